package relay

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.zx2c4.com/wireguard/conn"
)

// Port is one device's place at the switch: a [conn.Bind] that shares the node's UDP port with the other devices.
type Port struct {
	sw    *Switch
	dev   *device
	turns [2]atomic.Pointer[turn] // nil until opened

	mu   sync.Mutex
	open bool
}

var _ conn.Bind = (*Port)(nil)

func newPort(sw *Switch, d *device) *Port {
	p := &Port{sw: sw, dev: d}
	for i := range p.turns {
		t := newTurn()
		t.closed = true
		p.turns[i].Store(t)
	}
	return p
}

// Bind returns the port of a slice's device, for its WireGuard driver, or nil if no such device is configured.
func (sw *Switch) Bind(slice string) *Port {
	sw.mu.Lock()
	defer sw.mu.Unlock()
	if d := sw.t.devices[slice]; d != nil {
		return d.port
	}
	return nil
}

// Open implements [conn.Bind]. The UDP port is the switch's, whatever is asked for.
func (p *Port) Open(uint16) ([]conn.ReceiveFunc, uint16, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open {
		return nil, 0, conn.ErrBindAlreadyOpen
	}
	p.open = true
	var fns []conn.ReceiveFunc
	for i, r := range p.sw.readers {
		t := newTurn()
		p.turns[i].Store(t)
		fns = append(fns, func(bufs [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
			return r.receive(t, bufs, sizes, eps)
		})
	}
	return fns, p.sw.Port(), nil
}

// Close implements [conn.Bind].
func (p *Port) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.open {
		return nil
	}
	p.open = false
	for i, r := range p.sw.readers {
		r.quit(p.turns[i].Load())
	}
	return nil
}

// SetMark implements [conn.Bind]: the socket is shared, so no device may mark it.
func (p *Port) SetMark(uint32) error { return nil }

// BatchSize implements [conn.Bind].
func (p *Port) BatchSize() int { return conn.IdealBatchSize }

// ParseEndpoint implements [conn.Bind]. It knows [Auto] besides addresses with ports.
func (p *Port) ParseEndpoint(s string) (conn.Endpoint, error) {
	if s == Auto {
		return &Endpoint{}, nil
	}
	a, err := netip.ParseAddrPort(s)
	if err != nil {
		return nil, err
	}
	return At(a), nil
}

// Send implements [conn.Bind]: data and answers go to ep, initiations over the paths of the peer that they name.
func (p *Port) Send(bufs [][]byte, ep conn.Endpoint) error {
	e, ok := ep.(*Endpoint)
	if !ok {
		return conn.ErrWrongEndpointType
	}
	if len(bufs) == 0 {
		return nil
	}
	m := parse(bufs[0])
	if m.kind == typeData || m.kind == typeCookie {
		if m.kind == typeData {
			var pr *peer
			var hedge []*Endpoint
			var proof bool
			if e, hedge, pr, proof = p.dev.route(m.receiver, e); pr != nil {
				p.note(pr, e)
				if proof {
					p.sw.proved(pr)
				}
				if nb := pr.node.Load(); nb != nil {
					now := p.sw.now()
					nb.sent.Store(now)
					p.hedge(bufs, hedge, nb, now)
				}
			}
		}
		if !e.addr.IsValid() {
			p.sw.t.drops[dropNoPath].Add(uint64(len(bufs)))
			return nil
		}
		return p.sw.write(bufs, e, true)
	}
	for _, b := range bufs { // handshake messages come alone
		if err := p.sendHandshake(b, e); err != nil {
			return err
		}
	}
	return nil
}

// hedge sends data by further ways, as good as it goes.
func (p *Port) hedge(bufs [][]byte, by []*Endpoint, nb *neighbor, now int64) {
	if len(bufs) > hedgeAtMost {
		return
	}
	for _, h := range by {
		if !nb.mayHedge(len(bufs), now) {
			return
		}
		_ = p.sw.write(bufs, h, false)
	}
}

// note keeps track of where a peer is.
func (p *Port) note(pr *peer, e *Endpoint) {
	switch old := pr.using.Load(); {
	case old == e:
	case old != nil && old.addr == e.addr && old.head == e.head:
		pr.using.Store(e)
	default:
		p.sw.mu.Lock()
		p.sw.t.use(pr, e)
		p.sw.mu.Unlock()
	}
}

func (p *Port) sendHandshake(b []byte, e *Endpoint) error {
	m := parse(b)
	if m.kind != typeInitiation && m.kind != typeResponse {
		return nil
	}
	p.sw.mu.Lock()
	attempts, answer := p.sw.t.outgoing(p.dev, b, m, e, p.sw.now())
	p.sw.mu.Unlock()
	if answer != nil {
		p.sw.provedBy(m.sender) // WireGuard answers nothing that is not genuine
		return p.sw.write([][]byte{b}, answer, true)
	}
	for _, a := range attempts {
		if a.after == 0 {
			for _, at := range a.at {
				_ = p.sw.write([][]byte{b}, at, true) // WireGuard repeats
			}
			p.sendTo(b, a.to, e)
			continue
		}
		late := append([]byte(nil), b...)
		time.AfterFunc(time.Duration(a.after), func() {
			if p.sw.waiting(m.sender) {
				p.sendTo(late, a.to, e)
			}
		})
	}
	return nil
}

// sendTo sends an initiation over several paths. That some fail is expected; WireGuard repeats.
func (p *Port) sendTo(b []byte, to []netip.AddrPort, e *Endpoint) {
	for _, a := range to {
		dst := e
		if a != e.addr {
			dst = At(a)
		}
		if err := p.sw.write([][]byte{b}, dst, true); err != nil {
			p.sw.t.drops[dropSend].Add(1)
		}
	}
}

// waiting tells whether the handshake with a local index is still without an answer.
func (sw *Switch) waiting(index uint32) bool {
	if sw.closed.Load() {
		return false
	}
	sw.mu.Lock()
	defer sw.mu.Unlock()
	e := sw.t.index[index]
	return e != nil && e.peer != nil && e.peer.paths.unanswered > 0
}
