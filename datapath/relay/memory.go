package relay

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"sort"
	"time"

	"seaway.dev/seaway/fleet"
)

// memory is what a switch hands to its successor, so that a restart neither breaks relayed sessions nor loses sight
// of peers that cannot be dialled: addresses and indexes, all of which pass over the network in the clear. No keys.
type memory struct {
	At    time.Time    `json:"at"`
	Peers []peerMemory `json:"peers,omitempty"`
	Flows []flowMemory `json:"flows,omitempty"`
}

type peerMemory struct {
	Slice    string         `json:"slice"`
	Key      fleet.Key      `json:"key"`
	Endpoint netip.AddrPort `json:"endpoint"`
}

type flowMemory struct {
	Target fleet.Key     `json:"target"`
	A      sideMemory    `json:"a"`
	B      sideMemory    `json:"b"`
	Left   time.Duration `json:"left"` // of its life, when this was written
}

type sideMemory struct {
	Index uint32         `json:"index"`
	Addr  netip.AddrPort `json:"addr"`
	Local netip.Addr     `json:"local,omitzero"`
}

// endpoint returns where a peer was, while a session from then may still live.
func (m *memory) endpoint(slice string, key fleet.Key) netip.AddrPort {
	if time.Since(m.At) > time.Duration(lifetime) {
		return netip.AddrPort{}
	}
	for _, p := range m.Peers {
		if p.Slice == slice && p.Key == key {
			return p.Endpoint
		}
	}
	return netip.AddrPort{}
}

// Memory returns what a successor should know, and whether it changed since the last call.
func (sw *Switch) Memory() (data []byte, changed bool) {
	sw.mu.Lock()
	defer sw.mu.Unlock()
	if !sw.t.dirty {
		return nil, false
	}
	sw.t.dirty = false
	now := sw.now()
	m := memory{At: time.Now()}
	for _, d := range sw.t.devices {
		for _, p := range d.peers {
			if ep := p.endpoint(); ep.IsValid() {
				m.Peers = append(m.Peers, peerMemory{d.slice, p.Key, ep})
			}
		}
	}
	for i, e := range sw.t.index {
		if f := e.flow; f != nil && f.answered && f.a.index == i && now < f.deadline {
			m.Flows = append(m.Flows, flowMemory{f.target.Key, f.a.memory(), f.b.memory(), time.Duration(f.deadline - now)})
		}
	}
	sort.Slice(m.Flows, func(i, j int) bool { return m.Flows[i].A.Index < m.Flows[j].A.Index })
	sort.Slice(m.Peers, func(i, j int) bool { return m.Peers[i].Endpoint.Compare(m.Peers[j].Endpoint) < 0 })
	data, err := json.Marshal(m)
	if err != nil {
		panic("a memory of plain data does not marshal: " + err.Error())
	}
	return data, true
}

func (s side) memory() sideMemory { return sideMemory{s.index, s.home.addr, s.home.SrcIP()} }

// Remember takes what a predecessor's [Switch.Memory] returned. Call it before [Switch.Configure]. Memories older than
// a session's life are ignored.
func (sw *Switch) Remember(data []byte) error {
	var m memory
	if err := json.Unmarshal(data, &m); err != nil {
		return fmt.Errorf("what the tunnel remembered of its sessions: %w", err)
	}
	age := time.Since(m.At)
	if age < 0 || age > time.Duration(lifetime) {
		return nil
	}
	for i := range m.Flows {
		m.Flows[i].Left = min(m.Flows[i].Left, time.Duration(lifetime)) - age
	}
	sw.mu.Lock()
	defer sw.mu.Unlock()
	sw.memory = m
	return nil
}

// restoreFlows brings back relayed sessions whose target is still to be relayed for. The caller holds mu.
func (sw *Switch) restoreFlows() {
	now := sw.now()
	for _, fm := range sw.memory.Flows {
		tg := sw.t.targets[fm.Target]
		if tg == nil || fm.Left <= 0 || sw.t.index[fm.A.Index] != nil || sw.t.index[fm.B.Index] != nil ||
			fm.A.Index == fm.B.Index || sw.t.flows*2 >= maxIndexes || !fm.A.Addr.IsValid() || !fm.B.Addr.IsValid() {
			continue
		}
		f := &flow{a: fm.A.side(now), b: fm.B.side(now), target: tg, answered: true, deadline: now + int64(fm.Left)}
		sw.t.index[fm.A.Index] = &entry{flow: f, deadline: f.deadline}
		sw.t.index[fm.B.Index] = &entry{flow: f, deadline: f.deadline}
		sw.t.flows++
		sw.t.dirty = true
	}
	sw.memory.Flows = nil
}

func (s sideMemory) side(now int64) side {
	e := &Endpoint{addr: s.Addr, local: s.Local}
	return side{index: s.Index, home: e, seen: now}
}
