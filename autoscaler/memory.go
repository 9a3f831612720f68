package autoscaler

import (
	"context"
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"seaway.dev/seaway/api/v1alpha1"
	"seaway.dev/seaway/hub/place"
)

// What is learnt lies in a ConfigMap for each Autoscaler, in Seaway's own namespace: the role needs no right on
// anybody else's ConfigMaps.
const (
	labelMemory = "seaway.dev/autoscaler-memory"
	keyState    = "state"
	keySpec     = "spec" // so that an Autoscaler that went while nobody looked is still handed over
	keyOwner    = "owner"
)

func memoryName(key types.NamespacedName) string {
	return "autoscaler-" + key.Namespace + "." + key.Name
}

// keep writes down what the pilot knows.
func (t *target) keep(ctx context.Context) {
	if t.pilot == nil {
		return
	}
	saved, err := t.pilot.Save()
	if err != nil {
		t.log.Error("cannot save what was learnt", "err", err)
		return
	}
	spec, err := json.Marshal(t.spec)
	if err != nil {
		t.log.Error("cannot save what was learnt", "err", err)
		return
	}
	cm := &corev1.ConfigMap{}
	cm.Namespace, cm.Name = place.System, memoryName(t.key)
	cm.Labels = map[string]string{place.LabelManagedBy: Name, labelMemory: "true"}
	cm.BinaryData = map[string][]byte{keyState: saved}
	cm.Data = map[string]string{keySpec: string(spec), keyOwner: t.key.String()}
	if err := t.loop.keep(ctx, cm); err != nil {
		t.log.Warn("cannot write down what was learnt", "err", err)
	}
}

// keep writes a ConfigMap that nobody else writes, whatever lies there.
func (l *loop) keep(ctx context.Context, cm *corev1.ConfigMap) error {
	err := l.client.Update(ctx, cm)
	if apierrors.IsNotFound(err) {
		err = l.client.Create(ctx, cm)
	}
	return err
}

// memory is what was learnt, and the spec that it was learnt with; the zero value is nothing.
type memory struct {
	state []byte
	spec  *v1alpha1.AutoscalerSpec
}

// remembered reads what was written down.
func (t *target) remembered(ctx context.Context) (memory, error) {
	cm := &corev1.ConfigMap{}
	err := t.loop.client.Get(ctx, client.ObjectKey{Namespace: place.System, Name: memoryName(t.key)}, cm)
	if apierrors.IsNotFound(err) {
		return memory{}, nil
	}
	if err != nil {
		return memory{}, fmt.Errorf("read what was learnt: %w", err)
	}
	spec := &v1alpha1.AutoscalerSpec{}
	if err := json.Unmarshal([]byte(cm.Data[keySpec]), spec); err != nil {
		spec = nil
	}
	return memory{cm.BinaryData[keyState], spec}, nil
}

// adopt takes note of Autoscalers that are remembered, so that those which went meanwhile are handed over.
func (l *loop) adopt(ctx context.Context) {
	var list corev1.ConfigMapList
	if err := l.client.List(ctx, &list, client.InNamespace(place.System), client.HasLabels{labelMemory}); err != nil {
		l.log.Warn("cannot list what was learnt", "err", err)
		return
	}
	for i := range list.Items {
		cm := &list.Items[i]
		var spec v1alpha1.AutoscalerSpec
		key, err := owner(cm.Data[keyOwner])
		if err == nil {
			err = json.Unmarshal([]byte(cm.Data[keySpec]), &spec)
		}
		if err != nil {
			l.log.Warn("a ConfigMap of ours makes no sense", "name", cm.Name, "err", err)
			continue
		}
		l.targets[key] = &target{loop: l, key: key, spec: spec, log: l.log.With("autoscaler", key.String())}
	}
}

func owner(text string) (types.NamespacedName, error) {
	for i, c := range text {
		if c == '/' && i > 0 && i < len(text)-1 {
			return types.NamespacedName{Namespace: text[:i], Name: text[i+1:]}, nil
		}
	}
	return types.NamespacedName{}, fmt.Errorf("owner %q: want NAMESPACE/NAME", text)
}
