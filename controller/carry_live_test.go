package controller_test

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"seaway.dev/seaway/api/v1alpha1"
	"seaway.dev/seaway/bulletin"
	"seaway.dev/seaway/bulletin/post"
	"seaway.dev/seaway/fleet"
)

// carriers has n1 of c1 and n1 of c2 carry bulletins to each other, as their agents would, until the part ends. It
// does the hub's part as well: the keys are published. cut breaks the link between the two for good.
func (f *liveFleet) carriers() (cut func()) {
	t := f.hub.t
	for _, c := range []*cluster{f.c1, f.c2} {
		eventually(t, 20*time.Second, c.name+"'s key is published", func(ctx context.Context) error {
			cm, o := &corev1.ConfigMap{}, &v1alpha1.Cluster{}
			err := f.hub.client.Get(ctx, client.ObjectKey{Namespace: "seaway-" + c.name, Name: "bulletin"}, cm)
			if err == nil {
				err = f.hub.client.Get(ctx, client.ObjectKey{Name: c.name}, o)
			}
			if err != nil {
				return err
			}
			b, err := bulletin.Decode(cm.BinaryData["bulletin"])
			if err != nil || b.Signer.IsZero() {
				return errors.Join(err, errors.New("no key yet"))
			}
			o.Status.Signer = b.Signer.String()
			return f.hub.client.Status().Update(ctx, o)
		})
	}
	ctx, cancel := context.WithCancel(context.Background())
	abroad, cut := context.WithCancel(ctx)
	var tasks sync.WaitGroup
	t.Cleanup(func() { cancel(); tasks.Wait() })
	x, y := net.Pipe()
	for i, c := range []*cluster{f.c1, f.c2} {
		a := f.agents[c.name+"/n1"]
		a.told("whose signatures to believe", func(in *fleet.Intent) error {
			if in.Carry == nil || len(in.Carry.Signers) != 2 {
				return errors.New("not of both clusters")
			}
			return nil
		})
		store := bulletin.NewStore(func(cluster string) (fleet.Key, bool) {
			a.mu.Lock()
			defer a.mu.Unlock()
			if a.intent == nil || a.intent.Carry == nil {
				return fleet.Key{}, false
			}
			k, ok := a.intent.Carry.Signers[cluster]
			return k, ok
		})
		office := post.New(post.Config{Cluster: c.name, Node: "n1", Store: store})
		other := post.Peer{Cluster: []string{"c2", "c1"}[i], Node: "n1"}
		conn := []net.Conn{x, y}[i]
		tasks.Go(func() { _ = office.Serve(abroad, conn, other) })
		tasks.Go(func() {
			for ctx.Err() == nil {
				if home, err := upgrade(ctx, a); err == nil {
					_ = office.Serve(ctx, home, post.Peer{Cluster: c.name})
				}
				select {
				case <-ctx.Done():
				case <-time.After(50 * time.Millisecond):
				}
			}
		})
	}
	return cut
}
