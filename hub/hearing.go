package hub

import (
	"fmt"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"

	"seaway.dev/seaway/bulletin"
	"seaway.dev/seaway/fleet"
	"seaway.dev/seaway/hub/place"
)

// silence is how long a member may not renew its lease (it does so every 10 seconds) before it counts as not heard
// from.
const silence = 40 * time.Second

// hearing remembers what each member last said, so that a bulletin is unpacked once, and when its lease last changed
// by the hub's own clock, so that a member's wrong clock does no harm.
type hearing struct {
	now func() time.Time

	mu      sync.Mutex
	members map[string]*voice
}

type voice struct {
	bulletinRV string
	bulletin   *fleet.Bulletin
	fault      error // the bulletin cannot be read
	leaseRV    string
	renewed    time.Time // zero: its lease has never been renewed
}

func newHearing(now func() time.Time) *hearing {
	return &hearing{now: now, members: map[string]*voice{}}
}

func (h *hearing) voice(cluster string) *voice {
	v := h.members[cluster]
	if v == nil {
		v = &voice{}
		h.members[cluster] = v
	}
	return v
}

// forget drops a member that left.
func (h *hearing) forget(cluster string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.members, cluster)
}

// bulletin returns what a member says in a ConfigMap: nil while it has said nothing, and an error when that cannot be
// read. Whatever it says of other clusters is not believed.
func (h *hearing) bulletin(cluster string, cm *corev1.ConfigMap) (*fleet.Bulletin, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	v := h.voice(cluster)
	if v.bulletinRV == cm.ResourceVersion && v.bulletinRV != "" {
		return v.bulletin, v.fault
	}
	v.bulletinRV, v.fault = cm.ResourceVersion, nil
	packed := cm.BinaryData[place.BulletinKey]
	if len(packed) == 0 {
		v.bulletin = nil
		return nil, nil
	}
	b, err := bulletin.Decode(packed)
	if err == nil && b.Cluster != cluster {
		err = fmt.Errorf("it speaks for cluster %.40q", b.Cluster)
	}
	if err != nil {
		v.fault = fmt.Errorf("bulletin of %s: %w", cluster, err)
		return v.bulletin, v.fault // the last good one
	}
	v.bulletin = b
	return b, nil
}

// renewed tells when the member was last heard from, by the hub's clock; zero if never.
func (h *hearing) renewed(cluster string, lease *coordinationv1.Lease) time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	v := h.voice(cluster)
	if lease.Spec.RenewTime == nil {
		return time.Time{}
	}
	if v.leaseRV != lease.ResourceVersion {
		// After a restart the first look counts as news: the member gets the benefit of the doubt for one silence.
		v.leaseRV, v.renewed = lease.ResourceVersion, h.now()
	}
	return v.renewed
}
