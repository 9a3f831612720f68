package install

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"seaway.dev/seaway/hub/place"
)

// Change is what an application did to one object.
type Change struct {
	Object *unstructured.Unstructured
	Did    string // created, changed, unchanged
	before *unstructured.Unstructured
}

// Name is how people call the object: "Deployment seaway-system/seaway-hub".
func (c Change) Name() string { return nameOf(c.Object) }

func nameOf(o client.Object) string {
	kind := o.GetObjectKind().GroupVersionKind().Kind
	if o.GetNamespace() == "" {
		return kind + " " + o.GetName()
	}
	return kind + " " + o.GetNamespace() + "/" + o.GetName()
}

// Apply makes objects what they should be, in order, by server-side apply as field owner "seaway": fields that others
// set stay theirs. It returns what it did, also when it fails in the middle; [Undo] takes that back.
func Apply(ctx context.Context, c client.Client, objs []client.Object, told func(Change)) ([]Change, error) {
	var done []Change
	for _, o := range objs {
		ch, err := apply(ctx, c, o)
		if err != nil {
			return done, fmt.Errorf("apply %s: %w", nameOf(o), err)
		}
		done = append(done, ch)
		if told != nil {
			told(ch)
		}
	}
	return done, nil
}

func apply(ctx context.Context, c client.Client, o client.Object) (Change, error) {
	want, err := plain(o)
	if err != nil {
		return Change{}, err
	}
	before := &unstructured.Unstructured{}
	before.SetGroupVersionKind(want.GroupVersionKind())
	err = c.Get(ctx, client.ObjectKeyFromObject(want), before)
	if apierrors.IsNotFound(err) {
		before = nil
	} else if err != nil {
		return Change{}, err
	}
	if err := c.Patch(ctx, want, client.Apply, client.FieldOwner(place.Owner), client.ForceOwnership); err != nil { //nolint:staticcheck // the typed form needs generated types
		return Change{}, err
	}
	ch := Change{Object: want, Did: "created", before: before}
	if before != nil {
		ch.Did = "changed"
		if equality.Semantic.DeepEqual(strip(before), strip(want)) {
			ch.Did = "unchanged"
		}
	}
	return ch, nil
}

// strip leaves what an application can change.
func strip(o *unstructured.Unstructured) map[string]any {
	o = o.DeepCopy()
	o.SetManagedFields(nil)
	o.SetResourceVersion("")
	o.SetGeneration(0)
	delete(o.Object, "status")
	return o.Object
}

// Undo takes back what was done, the last first: what was created is deleted, what was changed becomes what it was.
// It goes on past errors and returns them all.
func Undo(ctx context.Context, c client.Client, done []Change) error {
	var errs []error
	for _, ch := range slices.Backward(done) {
		var err error
		switch ch.Did {
		case "created":
			err = client.IgnoreNotFound(c.Delete(ctx, ch.Object))
		case "changed":
			back := ch.before.DeepCopy()
			back.SetManagedFields(nil)
			back.SetResourceVersion("") // whatever it is by now
			err = c.Update(ctx, back)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("take back %s: %w", ch.Name(), err))
		}
	}
	return errors.Join(errs...)
}

// plain turns an object into what is sent: no status, no empty times.
func plain(o client.Object) (*unstructured.Unstructured, error) {
	m, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", nameOf(o), err)
	}
	delete(m, "status")
	prune(m)
	return &unstructured.Unstructured{Object: m}, nil
}

// prune removes nulls, and the empty maps that typed objects leave where nothing was said.
func prune(m map[string]any) {
	for k, v := range m {
		switch v := v.(type) {
		case nil:
			delete(m, k)
		case map[string]any:
			prune(v)
			if len(v) == 0 && (k == "resources" || k == "strategy") {
				delete(m, k)
			}
		case []any:
			for _, e := range v {
				if e, ok := e.(map[string]any); ok {
					prune(e)
				}
			}
		}
	}
}

// YAML prints objects as a file for kubectl, or for whoever keeps manifests in git.
func YAML(objs []client.Object) ([]byte, error) {
	var out []byte
	for _, o := range objs {
		u, err := plain(o)
		if err != nil {
			return nil, err
		}
		b, err := yaml.Marshal(u.Object)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", nameOf(o), err)
		}
		out = append(append(out, "---\n"...), b...)
	}
	return out, nil
}
