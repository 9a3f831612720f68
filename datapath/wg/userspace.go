package wg

import (
	"encoding/hex"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"

	"seaway.dev/seaway/datapath/relay"
	"seaway.dev/seaway/fleet"
	"seaway.dev/seaway/slice/plan"
)

// Userspace drives wireguard-go devices in this process.
type Userspace struct {
	log *slog.Logger
	tun func(want plan.Device) (tun.Device, nsID, error)

	mu      sync.Mutex // handshakes and statistics come from other goroutines than changes
	devices map[string]*userDevice
	early   asked
}

type userDevice struct {
	dev  *device.Device
	seat *seat // at the slice's link
	ns   nsID
	path string
	link string
	bind *relay.Port
	key  PrivateKey
	own  fleet.Key // key's public part
	made time.Time

	slice      string
	generation uint64
	wanted     []plan.Peer             // as last applied; under the driver's mu, as is tried
	tried      map[fleet.Key]time.Time // when a first handshake was begun last
}

// peersOf lists a device's peers as last applied.
func (u *Userspace) peersOf(d *userDevice) []plan.Peer {
	u.mu.Lock()
	defer u.mu.Unlock()
	return d.wanted
}

var _ Driver = (*Userspace)(nil)

// NewUserspace returns a driver that puts TUN links into the slices' namespaces.
func NewUserspace(log *slog.Logger) *Userspace {
	return &Userspace{log: log, devices: map[string]*userDevice{}, tun: newLink}
}

// NewUserspaceOn returns a driver whose devices use what open returns in place of TUN links, without any namespace:
// for running many nodes in one process.
func NewUserspaceOn(log *slog.Logger, open func(want plan.Device) (tun.Device, error)) *Userspace {
	u := NewUserspace(log)
	u.tun = func(want plan.Device) (tun.Device, nsID, error) {
		t, err := open(want)
		return t, nsID{}, err
	}
	return u
}

// Name implements [Driver].
func (u *Userspace) Name() string { return "userspace" }

// Apply implements [Driver].
func (u *Userspace) Apply(want plan.Device, key PrivateKey, bind *relay.Port) (changes int, err error) {
	d := u.get(want.Name())
	if d != nil && d.stale(want, key, bind) {
		u.forget(want.Name())
		d.dev.Close()
		d, changes = nil, 1
	}
	if d == nil {
		if d, err = u.create(want, key, bind); err != nil {
			return changes, fmt.Errorf("slice %s: %w", want.Slice, err)
		}
		changes++
	}
	if l, ok := d.seat.fork.link.(*link); ok {
		n, err := l.dress(want)
		changes += n
		if err != nil {
			return changes, fmt.Errorf("slice %s: %w", want.Slice, err)
		}
	}
	n, err := d.setPeers(want.Peers)
	if err != nil {
		return changes, fmt.Errorf("slice %s: %w", want.Slice, err)
	}
	u.mu.Lock()
	d.wanted = want.Peers
	u.mu.Unlock()
	u.steer(d)
	for peer, renew := range u.early.take(want.Name()) {
		if d.dev.LookupPeer(device.NoisePublicKey(peer)) != nil {
			u.Handshake(want.Name(), peer, renew)
		}
	}
	return changes + n, nil
}

func (u *Userspace) get(slice string) *userDevice {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.devices[slice]
}

func (u *Userspace) forget(slice string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.devices, slice)
}

// stale tells whether a device must be made anew: it died (its link was deleted), its namespace was made anew, or it
// is to have another key or link.
func (d *userDevice) stale(want plan.Device, key PrivateKey, bind *relay.Port) bool {
	select {
	case <-d.dev.Wait():
		return true
	default:
	}
	if d.key != key || d.path != want.NetNS || d.link != want.Link || d.bind != bind {
		return true
	}
	return d.elsewhere()
}

// elsewhere tells whether the device's namespace was made anew.
func (d *userDevice) elsewhere() bool {
	if d.ns == (nsID{}) {
		return false
	}
	h, id, err := namespace(d.path)
	if err != nil {
		return true
	}
	h.Close()
	return id != d.ns
}

func (u *Userspace) create(want plan.Device, key PrivateKey, bind *relay.Port) (*userDevice, error) {
	at, ns, err := u.fork(want)
	if err != nil {
		return nil, err
	}
	t := at.sit()
	log := u.log.With("slice", want.Name())
	inner, outer := paced(t, bind)
	dev := device.NewDevice(inner, outer, &device.Logger{
		Verbosef: device.DiscardLogf, // it speaks of every packet that it does not like
		Errorf:   func(f string, a ...any) { log.Debug("wireguard", "err", fmt.Sprintf(f, a...)) },
	})
	if err := dev.IpcSet("private_key=" + key.hex() + "\n"); err != nil {
		dev.Close()
		return nil, fmt.Errorf("set the private key: %w", err)
	}
	if err := dev.Up(); err != nil {
		dev.Close()
		return nil, fmt.Errorf("start: %w", err)
	}
	d := &userDevice{dev: dev, seat: t, ns: ns, path: want.NetNS, link: want.Link, bind: bind, key: key, own: key.Public(),
		made: time.Now(), slice: want.Slice, generation: want.Generation, tried: map[fleet.Key]time.Time{}}
	u.mu.Lock()
	u.devices[want.Name()] = d
	u.mu.Unlock()
	return d, nil
}

// fork returns the link of a device: that of the slice's other device, if there is one, else a new one.
func (u *Userspace) fork(want plan.Device) (*fork, nsID, error) {
	u.mu.Lock()
	for _, d := range u.devices {
		if d.slice == want.Slice && d.path == want.NetNS && d.link == want.Link && !d.seat.fork.dead.Load() && !d.elsewhere() {
			defer u.mu.Unlock()
			return d.seat.fork, d.ns, nil
		}
	}
	u.mu.Unlock()
	t, ns, err := u.tun(want)
	if err != nil {
		return nil, nsID{}, err
	}
	return newFork(t), ns, nil
}

// Remove implements [Driver].
func (u *Userspace) Remove(name string) error {
	u.early.take(name)
	d := u.get(name)
	if d == nil {
		return nil
	}
	u.forget(name)
	if l, ok := d.seat.fork.link.(*link); ok && d.seat.alone() {
		l.unpersist()
	}
	d.dev.Close()
	return nil
}

// Peers implements [Driver].
func (u *Userspace) Peers(slice string) (map[fleet.Key]PeerStat, error) {
	d := u.get(slice)
	if d == nil {
		return nil, nil
	}
	return d.peers()
}

// Handshake implements [Driver].
func (u *Userspace) Handshake(slice string, peer fleet.Key, renew bool) {
	d := u.get(slice)
	if d == nil {
		u.early.keep(slice, peer, renew)
		return
	}
	p := d.dev.LookupPeer(device.NoisePublicKey(peer))
	if p == nil {
		u.early.keep(slice, peer, renew)
		return
	}
	if renew {
		p.ExpireCurrentKeypairs()
	}
	if err := p.SendHandshakeInitiation(false); err != nil {
		u.log.Debug("start a handshake", "slice", slice, "err", err)
	}
}

// Close implements [Driver].
func (u *Userspace) Close() {
	u.mu.Lock()
	all := slices.Collect(maps.Values(u.devices))
	clear(u.devices)
	u.mu.Unlock()
	for _, d := range all {
		d.dev.Close()
	}
}

// peers reads what the device has.
func (d *userDevice) peers() (map[fleet.Key]PeerStat, error) {
	text, err := d.dev.IpcGet()
	if err != nil {
		return nil, fmt.Errorf("read the device's state: %w", err)
	}
	return parseState(text)
}

// parseState reads WireGuard's configuration protocol (https://www.wireguard.com/xplatform/#configuration-protocol).
func parseState(text string) (map[fleet.Key]PeerStat, error) {
	all := map[fleet.Key]PeerStat{}
	var key fleet.Key
	var st PeerStat
	var sec, nsec int64
	flush := func() {
		if !key.IsZero() {
			if sec != 0 || nsec != 0 {
				st.Handshake = time.Unix(sec, nsec)
			}
			all[key] = st
		}
		st, sec, nsec = PeerStat{}, 0, 0
	}
	for line := range strings.Lines(text) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), "=")
		var err error
		switch k {
		case "public_key":
			flush()
			_, err = hex.Decode(key[:], []byte(v))
		case "last_handshake_time_sec":
			sec, err = strconv.ParseInt(v, 10, 64)
		case "last_handshake_time_nsec":
			nsec, err = strconv.ParseInt(v, 10, 64)
		case "rx_bytes":
			st.RxBytes, err = strconv.ParseUint(v, 10, 64)
		case "tx_bytes":
			st.TxBytes, err = strconv.ParseUint(v, 10, 64)
		case "persistent_keepalive_interval":
			st.Keepalive, err = strconv.Atoi(v)
		case "allowed_ip":
			var p netip.Prefix
			p, err = netip.ParsePrefix(v)
			st.Allowed = append(st.Allowed, p)
		}
		if err != nil {
			return nil, fmt.Errorf("the device's state, %s: %w", k, err)
		}
	}
	flush()
	return all, nil
}

// setPeers changes what differs.
func (d *userDevice) setPeers(want []plan.Peer) (changes int, err error) {
	have, err := d.peers()
	if err != nil {
		return 0, err
	}
	text, changes := diffPeers(have, want)
	if changes == 0 {
		return 0, nil
	}
	if err := d.dev.IpcSet(text); err != nil {
		return 0, fmt.Errorf("change peers: %w", err)
	}
	return changes, nil
}

// diffPeers writes, in WireGuard's configuration protocol, what makes want out of have. A prefix that moves from one
// peer to another is added there first, which takes it from the other in the same step; removals come last.
func diffPeers(have map[fleet.Key]PeerStat, want []plan.Peer) (text string, changes int) {
	var b strings.Builder
	line := func(k, v string) { b.WriteString(k + "=" + v + "\n") }
	wanted := map[fleet.Key]bool{}
	owner := map[netip.Prefix]fleet.Key{}
	for _, p := range want {
		wanted[p.Key] = true
		for _, a := range p.Allowed {
			owner[a.Masked()] = p.Key
		}
	}
	for _, p := range want {
		st, there := have[p.Key]
		var lines [][2]string
		if !there {
			lines = append(lines, [2]string{"endpoint", relay.Auto})
		}
		if st.Keepalive != p.Keepalive {
			lines = append(lines, [2]string{"persistent_keepalive_interval", strconv.Itoa(p.Keepalive)})
		}
		for _, a := range p.Allowed {
			if a = a.Masked(); owner[a] == p.Key && !slices.Contains(st.Allowed, a) {
				lines = append(lines, [2]string{"allowed_ip", a.String()})
			}
		}
		if there && len(lines) == 0 {
			continue
		}
		line("public_key", hex.EncodeToString(p.Key[:]))
		for _, l := range lines {
			line(l[0], l[1])
		}
		changes++
	}
	for _, k := range slices.SortedFunc(maps.Keys(have), func(a, b fleet.Key) int { return slices.Compare(a[:], b[:]) }) {
		switch {
		case !wanted[k]:
			line("public_key", hex.EncodeToString(k[:]))
			line("remove", "true")
			changes++
		default:
			var gone []netip.Prefix
			for _, a := range have[k].Allowed {
				if _, moved := owner[a]; !moved {
					gone = append(gone, a)
				}
			}
			if len(gone) == 0 {
				continue
			}
			line("public_key", hex.EncodeToString(k[:]))
			for _, a := range gone {
				line("allowed_ip", "-"+a.String())
			}
			changes++
		}
	}
	return b.String(), changes
}
