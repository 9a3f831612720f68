package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"seaway.dev/seaway/controller/roster"
	"seaway.dev/seaway/fleet"
)

// memoryPace is the shortest time between two writes of what is known of the fleet.
const memoryPace = 2 * time.Second

// memoryKey is the key in the ConfigMap's binaryData.
const memoryKey = "fleet"

// maxMemory is the most bytes that the ConfigMap takes.
const maxMemory = 1000 << 10

// memory keeps what is known of the fleet in this cluster, so that a controller that starts while the hub is away, or
// before the nodes have reported again, does not take away what stands.
type memory struct {
	client    client.Client
	namespace string
	log       *slog.Logger

	mu   sync.Mutex
	want *remembered
	here uint64 // roster.Facts.Here of want
	wake chan struct{}
}

// remembered is what is kept. Version is fleet.WireVersion of the writer.
type remembered struct {
	Version   int                        `json:"version"`
	Members   []roster.Member            `json:"members,omitempty"`
	Slices    []roster.Wish              `json:"slices,omitempty"`
	Bulletins map[string]*fleet.Bulletin `json:"bulletins,omitempty"`
	Reports   map[string]*fleet.Report   `json:"reports,omitempty"` // of this cluster's nodes: where they are, their keys
	Exports   []fleet.Export             `json:"exports,omitempty"`
	Services  []fleet.Service            `json:"services,omitempty"`
}

func newMemory(c client.Client, namespace string, log *slog.Logger) *memory {
	return &memory{client: c, namespace: namespace, log: log, wake: make(chan struct{}, 1)}
}

// load returns what is kept; nil if nothing is, or nothing that this version understands.
func (m *memory) load(ctx context.Context) (*remembered, error) {
	var cm corev1.ConfigMap
	err := m.client.Get(ctx, client.ObjectKey{Namespace: m.namespace, Name: MemoryMap}, &cm)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read configmap %s/%s: %w", m.namespace, MemoryMap, err)
	}
	plain, err := unpack(cm.BinaryData[memoryKey])
	out := new(remembered)
	if err == nil {
		err = json.Unmarshal(plain, out)
	}
	if err != nil || out.Version > fleet.WireVersion {
		m.log.Warn("what was last known of the fleet cannot be read; waiting for the hub", "configmap", MemoryMap, "version", out.Version, "err", err)
		return nil, nil
	}
	m.want = out
	return out, nil
}

// offer says what is known now.
func (m *memory) offer(f *roster.Facts) {
	m.mu.Lock()
	defer m.mu.Unlock()
	alike := m.want != nil && f.Here != 0 && f.Here == m.here
	if alike && maps.Equal(m.want.Bulletins, f.Bulletins) && same(m.want.Exports, f.Exports) && same(m.want.Services, f.Services) {
		return
	}
	now := &remembered{
		Version: fleet.WireVersion, Members: f.Members, Slices: f.Slices, Bulletins: f.Bulletins,
		Exports: f.Exports, Services: f.Services, Reports: map[string]*fleet.Report{},
	}
	for name, rep := range f.Reports {
		now.Reports[name] = &fleet.Report{Version: rep.Version, Node: rep.Node, Addrs: rep.Addrs, Port: rep.Port, MTU: rep.MTU, Keys: rep.Keys}
	}
	if !alike && reflect.DeepEqual(m.want, now) {
		m.here = f.Here
		return
	}
	m.want, m.here = now, f.Here
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// run writes down what changed, now and then, until ctx ends.
func (m *memory) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-m.wake:
		}
		m.mu.Lock()
		want := *m.want
		m.mu.Unlock()
		began := time.Now()
		if err := m.save(ctx, want); err != nil && ctx.Err() == nil {
			m.log.Warn("what is known of the fleet was not written down; trying again", "err", err)
			select {
			case m.wake <- struct{}{}:
			default:
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(max(memoryPace, 50*time.Since(began))): // a large fleet costs its time
		}
	}
}

func (m *memory) save(ctx context.Context, want remembered) error {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	data, err := packMemory(want)
	if err != nil {
		return err
	}
	return putConfigMap(ctx, m.client, &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: m.namespace, Name: MemoryMap},
		BinaryData: map[string][]byte{memoryKey: data},
	})
}

// packMemory drops what can be learnt again soonest when it does not fit: services first, then the others' bulletins.
func packMemory(want remembered) ([]byte, error) {
	for range 3 {
		plain, err := json.Marshal(want)
		if err != nil {
			return nil, fmt.Errorf("write down the fleet: %w", err)
		}
		data, err := pack(plain)
		if err != nil || len(data) <= maxMemory {
			return data, err
		}
		if want.Services != nil {
			want.Services = nil
		} else {
			want.Bulletins = nil
		}
	}
	return nil, fmt.Errorf("write down the fleet: more than %d bytes", maxMemory)
}

// putConfigMap makes a ConfigMap of ours be as given, whoever wrote it last.
func putConfigMap(ctx context.Context, c client.Client, want *corev1.ConfigMap) error {
	have := &corev1.ConfigMap{}
	err := c.Get(ctx, client.ObjectKeyFromObject(want), have)
	switch {
	case apierrors.IsNotFound(err):
		want.Labels = map[string]string{componentLabel: componentValue}
		err = c.Create(ctx, want)
	case err == nil && reflect.DeepEqual(have.BinaryData, want.BinaryData) && reflect.DeepEqual(have.Data, want.Data):
		return nil
	case err == nil:
		have.Data, have.BinaryData = want.Data, want.BinaryData
		err = c.Update(ctx, have)
	}
	if err != nil {
		return fmt.Errorf("write configmap %s/%s: %w", want.Namespace, want.Name, err)
	}
	return nil
}
