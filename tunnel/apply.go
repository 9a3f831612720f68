package tunnel

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	"seaway.dev/seaway/datapath/relay"
	"seaway.dev/seaway/datapath/wg"
	"seaway.dev/seaway/fleet"
	"seaway.dev/seaway/slice/plan"
)

// resume brings back what the process was told before it was restarted.
func (s *server) resume() {
	data, err := s.files.read(wantFile)
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	var t plan.Tunnel
	if err == nil {
		t, err = decode(data)
	}
	if err != nil {
		s.Log.Warn("what the agent had said before the restart cannot be read: waiting for it to say it again", "err", err)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.want = t
	n := s.apply()
	s.Log.Info("resumed", "devices", len(t.Devices), "targets", len(t.Relay), "changes", n, "problems", len(s.problems))
}

// put makes t what is wanted. That it cannot be written down, because the disk is full, is a problem and no reason not to
// do it: only a restart before there is room again would bring back what was wanted before.
func (s *server) put(t plan.Tunnel, data []byte) (Result, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.want, s.unsaved = t, data
	n := s.apply()
	if n > 0 {
		s.Log.Info("applied", "devices", len(t.Devices), "targets", len(t.Relay), "changes", n, "problems", len(s.problems))
	}
	return Result{Changes: n, Problems: s.problems}, nil
}

// apply makes the process what is wanted and returns how much it changed; what could not be done is in s.problems and
// is tried again. One slice's trouble does not keep the others waiting. The caller holds mu.
func (s *server) apply() (changes int) {
	old := s.problems
	s.problems, s.again = nil, false
	trouble := func(where, reason string, err error) {
		p := fleet.Problem{Reason: reason, Where: where, Message: err.Error(), Since: time.Now(),
			Next: "nothing if it passes: it is tried again every second; else see the message"}
		if i := slices.IndexFunc(old, func(o fleet.Problem) bool { return o.Where == where && o.Reason == reason }); i >= 0 {
			p.Since = old[i].Since
		} else {
			s.Log.Warn("apply", "where", where, "err", err)
		}
		s.problems, s.again = append(s.problems, p), true
	}
	if s.unsaved != nil {
		if err := s.files.write(wantFile, s.unsaved); err != nil {
			trouble("the tunnel's memory", "StateNotSaved", err)
		} else {
			s.unsaved = nil
		}
	}
	port := s.want.Port
	if port == 0 {
		port = s.Port
	}
	if have := s.sw.Port(); have == 0 || port != 0 && port != have {
		if err := s.sw.Listen(port); err != nil {
			trouble(fmt.Sprintf("port %d", port), "PortTaken", err)
		} else {
			changes++
		}
	}
	keys := map[string]wg.PrivateKey{}
	cfg := relay.Config{Targets: s.want.Relay, Gateways: s.want.Gateways}
	for _, d := range s.want.Devices {
		key, err := s.keys.ensure(d.Name())
		if err != nil {
			trouble("slice "+d.Slice, "KeyUnusable", err)
			continue
		}
		keys[d.Name()] = key
		cfg.Devices = append(cfg.Devices, relay.Device{Slice: d.Name(), Key: key.Public(), Peers: d.Peers})
	}
	if err := s.neighbors(&cfg); err != nil {
		trouble("probes", "KeyUnusable", err)
	}
	for _, name := range slices.Sorted(maps.Keys(s.have)) {
		if _, ok := keys[name]; ok {
			continue
		}
		if err := s.driver.Remove(name); err != nil {
			trouble("slice "+name, "TunnelStuck", err)
			continue
		}
		delete(s.have, name)
		changes++
	}
	if s.sw.Configure(cfg) {
		changes++
	}
	for _, d := range s.want.Devices {
		key, ok := keys[d.Name()]
		if !ok {
			continue
		}
		n, err := s.driver.Apply(d, key, s.sw.Bind(d.Name()))
		changes += n
		s.have[d.Name()] = d
		if err != nil {
			trouble("slice "+d.Slice, "TunnelDown", err)
		}
	}
	return changes
}

// neighbors adds to what the switch is to know the nodes to probe, each with the secret that it shares with this one.
func (s *server) neighbors(cfg *relay.Config) error {
	if len(s.want.Neighbors) == 0 {
		return nil
	}
	key, err := s.keys.ensure(fleet.ManagementSlice)
	if err != nil {
		return err
	}
	cfg.Self, cfg.Cluster, cfg.Relay = key.Public(), s.want.Cluster, s.want.Gateway
	var errs []error
	secrets := map[fleet.Key][32]byte{}
	for _, n := range s.want.Neighbors {
		secret, ok := s.secrets[n.Key]
		if !ok || s.secretsOf != cfg.Self {
			if secret, err = key.Shared(n.Key); err != nil {
				errs = append(errs, fmt.Errorf("node %s is not probed: %w", n.ID, err))
				continue
			}
		}
		secrets[n.Key] = secret
		cfg.Neighbors = append(cfg.Neighbors, relay.Neighbor{Neighbor: n, Secret: secret})
	}
	s.secrets, s.secretsOf = secrets, cfg.Self
	return errors.Join(errs...)
}

// purge removes every trace: devices, links, keys, files. The socket goes when the process ends.
func (s *server) purge() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.want, s.unsaved = plan.Tunnel{}, nil
	s.apply()
	s.sw.Memory() // nothing is left to be written down
	err := errors.Join(s.files.remove(wantFile, sessionsFile, lockFile), s.keys.removeAll())
	for _, p := range s.problems {
		err = errors.Join(err, fmt.Errorf("%s: %s", p.Where, p.Message))
	}
	return err
}

// removeKey deletes a slice's key. The device must be gone before.
func (s *server) removeKey(slice string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if slices.ContainsFunc(s.want.Devices, func(d plan.Device) bool { return d.Name() == slice }) {
		return fmt.Errorf("%w: slice %s still has a device: leave it out of the tunnel's value first", ErrInvalid, slice)
	}
	return s.keys.remove(slice)
}

// ensureKey returns a slice's public key, making the pair if there is none.
func (s *server) ensureKey(slice string) (fleet.Key, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key, err := s.keys.ensure(slice)
	if err != nil {
		return fleet.Key{}, err
	}
	return key.Public(), nil
}

// status tells how everything does.
func (s *server) status() (Status, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Status{Driver: s.driver.Name(), Port: s.sw.Port(), Started: s.started, Relay: s.sw.Counters(), Problems: s.problems}
	var err error
	if st.Keys, err = s.keys.public(); err != nil {
		return st, err
	}
	reach := map[string]fleet.Reach{}
	_, all, _ := s.sw.Reach()
	for _, r := range all {
		reach[r.Node] = r
	}
	st.Reach = all
	for _, d := range s.want.Devices {
		ds := DeviceStatus{Slice: d.Slice, Generation: d.Generation, Key: st.Keys[d.Name()], Peers: []fleet.PeerState{}}
		stats, err := s.driver.Peers(d.Name())
		if err != nil {
			return st, fmt.Errorf("slice %s: %w", d.Slice, err)
		}
		for _, p := range d.Peers {
			w := stats[p.Key]
			r := reach[p.ID]
			ds.Peers = append(ds.Peers, fleet.PeerState{Slice: d.Slice, Peer: p.ID, Path: s.sw.Path(d.Name(), p.Key),
				Handshake: w.Handshake, RxBytes: w.RxBytes, TxBytes: w.TxBytes, State: r.State, RTT: r.RTT, Loss: r.Loss, Why: r.Why})
		}
		st.Devices = append(st.Devices, ds)
	}
	return st, nil
}
