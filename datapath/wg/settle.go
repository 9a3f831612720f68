package wg

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"

	"golang.zx2c4.com/wireguard/device"

	"seaway.dev/seaway/fleet"
)

// Each handshake of a new key is begun by one of the two, the one with the lower key: of two that cross, WireGuard
// takes neither. If the other cannot be reached from there, this one tries after a while.
const (
	patience = 3 * time.Second
	tryEvery = 2 * time.Second // WireGuard itself would wait 5 s: the peer may have heard of the new key just after the first
)

// Settle implements [Driver].
func (u *Userspace) Settle() {
	u.mu.Lock()
	forks := map[*fork]*userDevice{}
	for _, d := range u.devices {
		forks[d.seat.fork] = d
	}
	u.mu.Unlock()
	for _, d := range forks {
		u.steer(d)
	}
}

// steer has the packets of a device's slice go by the device that is to have them.
func (u *Userspace) steer(d *userDevice) {
	u.mu.Lock()
	var all []*userDevice
	for _, o := range u.devices {
		if o.seat.fork == d.seat.fork {
			all = append(all, o)
		}
	}
	u.mu.Unlock()
	if len(all) < 2 {
		d.seat.fork.share(nil, nil)
		return
	}
	slices.SortFunc(all, func(a, b *userDevice) int { return cmp.Compare(a.generation, b.generation) })
	to := map[netip.Addr]*seat{}
	var wide []span
	for i, o := range all {
		stats, err := o.peers()
		if err != nil {
			u.log.Warn("read a device's sessions", "slice", o.slice, "generation", o.generation, "err", err)
			continue
		}
		for _, p := range u.peersOf(o) {
			live := !stats[p.Key].Handshake.IsZero()
			if i > 0 && !live {
				u.shake(o, p.Key)
			}
			for _, a := range p.Allowed {
				if a.IsSingleIP() {
					if _, there := to[a.Addr()]; live || !there {
						to[a.Addr()] = o.seat
					}
					continue
				}
				k := slices.IndexFunc(wide, func(s span) bool { return s.prefix == a })
				switch {
				case k < 0:
					wide = append(wide, span{a, o.seat})
				case live:
					wide[k].seat = o.seat
				}
			}
		}
	}
	d.seat.fork.share(to, wide)
}

// shake begins a handshake with a peer that has had none with this device.
func (u *Userspace) shake(d *userDevice, key fleet.Key) {
	now := time.Now()
	u.mu.Lock()
	last := d.tried[key]
	due := now.Sub(last) >= tryEvery && (slices.Compare(d.own[:], key[:]) < 0 || now.Sub(d.made) >= patience)
	if due {
		maps.DeleteFunc(d.tried, func(_ fleet.Key, at time.Time) bool { return now.Sub(at) > time.Hour })
		d.tried[key] = now
	}
	u.mu.Unlock()
	if !due {
		return
	}
	p := d.dev.LookupPeer(device.NoisePublicKey(key))
	if p == nil {
		return
	}
	if !last.IsZero() {
		p.ExpireCurrentKeypairs() // there are none; but then not even WireGuard's five seconds are waited for
	}
	if err := p.SendHandshakeInitiation(false); err != nil {
		u.log.Debug("start a handshake", "slice", d.slice, "generation", d.generation, "err", err)
	}
}
