package datapath

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"seaway.dev/seaway/datapath/netns"
	"seaway.dev/seaway/fleet"
)

// A pod answers a probe from its kernel, so in well under a millisecond; the rest is for a machine under load.
const (
	probeWait = 700 * time.Millisecond
	probeGap  = 60 * time.Millisecond // between repetitions
)

// probe sends an ICMP echo to every attached pod's every address through its own link, all at once.
func (r *run) probe(ctx context.Context) {
	var wg sync.WaitGroup
	for _, s := range r.slices {
		var targets []netip.Addr
		for _, p := range s.pods {
			if p.reason == "" && s.err == nil {
				targets = append(targets, p.Addrs...)
			}
		}
		if len(targets) == 0 {
			continue
		}
		wg.Go(func() {
			silent, err := Probe(ctx, s.ns, targets)
			for _, p := range s.pods {
				for _, a := range p.Addrs {
					switch {
					case err != nil:
						p.fail("ProbeFailed", err.Error())
					case silent[a]:
						p.fail("ProbeFailed", fmt.Sprintf("%s does not answer ICMP echo through the pod's own link; "+
							"look for packet filters and for other policy routing rules inside the pod", a))
					}
				}
			}
		})
	}
	wg.Wait()
}

// Probe sends ICMP echo requests from a slice's namespace and returns those who do not answer.
func Probe(ctx context.Context, ns *netns.NS, targets []netip.Addr) (silent map[netip.Addr]bool, err error) {
	silent = map[netip.Addr]bool{}
	var four, six []netip.Addr
	for _, a := range targets {
		silent[a] = true
		if a.Is4() {
			four = append(four, a)
		} else {
			six = append(six, a)
		}
	}
	deadline := time.Now().Add(probeWait)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	for _, f := range []struct {
		network, addr  string
		request, reply byte
		targets        []netip.Addr
	}{
		{"ip4:icmp", "0.0.0.0", 8, 0, four},
		{"ip6:ipv6-icmp", "::", 128, 129, six},
	} {
		if len(f.targets) == 0 {
			continue
		}
		var conn net.PacketConn
		err := ns.Do(func() (err error) {
			conn, err = net.ListenPacket(f.network, f.addr)
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("open a probe's socket: %w", err)
		}
		p := prober{conn: conn, request: f.request, reply: f.reply, silent: silent}
		p.run(ctx, f.targets, deadline)
		_ = conn.Close()
	}
	return silent, nil
}

type prober struct {
	conn           net.PacketConn
	request, reply byte
	silent         map[netip.Addr]bool
}

// run repeats the request to whoever has not answered until all have or the time is over.
func (p *prober) run(ctx context.Context, targets []netip.Addr, deadline time.Time) {
	buf := make([]byte, 256)
	for seq := uint16(1); ; seq++ {
		left := 0
		for _, a := range targets {
			if p.silent[a] {
				left++
				_, _ = p.conn.WriteTo(p.packet(seq), &net.IPAddr{IP: a.AsSlice()})
			}
		}
		now := time.Now()
		if left == 0 || !now.Before(deadline) || ctx.Err() != nil {
			return
		}
		_ = p.conn.SetReadDeadline(earlier(now.Add(probeGap), deadline))
		for left > 0 {
			n, from, err := p.conn.ReadFrom(buf)
			if err != nil {
				break
			}
			ip, ok := from.(*net.IPAddr)
			if !ok || n < 8 || buf[0] != p.reply || binary.BigEndian.Uint16(buf[4:]) != probeID {
				continue
			}
			if a, ok := netip.AddrFromSlice(ip.IP); ok && p.silent[a.Unmap()] {
				delete(p.silent, a.Unmap())
				left--
			}
		}
	}
}

// probeID tells our echoes from a user's ping ("Sy").
const probeID = 0x5379

func (p *prober) packet(seq uint16) []byte {
	b := []byte{p.request, 0, 0, 0, probeID >> 8, probeID & 0xff, byte(seq >> 8), byte(seq), 's', 'e', 'a', 'w', 'a', 'y', '.', '.'}
	if p.request == 8 { // the kernel fills in ICMPv6's
		var sum uint32
		for i := 0; i < len(b); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(b[i:]))
		}
		for sum>>16 != 0 {
			sum = sum&0xffff + sum>>16
		}
		binary.BigEndian.PutUint16(b[2:], ^uint16(sum))
	}
	return b
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// report turns what happened into attachments, with since when and how long it took.
func (r *run) report() {
	now := time.Now()
	states := map[string]*fleet.Attachment{}
	asked := map[string]time.Time{}
	for _, s := range r.slices {
		if !s.wanted {
			continue
		}
		if s.err != nil {
			r.problem("SliceFailed", "slice "+s.Name, s.err)
		}
		for _, p := range s.pods {
			key := s.Name + " " + p.PodUID
			asked[key] = r.k.asked[key]
			if s.err != nil {
				p.fail("LinkFailed", s.err.Error())
			}
			a := r.attachment(s, p, r.k.states[key], now)
			states[key] = &a
			r.result.Attachments = append(r.result.Attachments, a)
		}
	}
	r.k.states, r.k.asked = states, asked
	sortAttachments(r.result.Attachments)
}

func (r *run) attachment(s *sliceRun, p *podRun, was *fleet.Attachment, now time.Time) fleet.Attachment {
	a := fleet.Attachment{
		PodUID: p.PodUID, Namespace: p.Namespace, Pod: p.Pod, Slice: s.Name,
		Attached: p.reason == "", Reason: p.reason, Message: p.message, Since: now,
	}
	if a.Attached {
		a.Reason = "Attached"
	}
	sb := r.found.Sandboxes[p.PodUID]
	if sb != nil {
		a.NetNS = sb.NS.Inode()
	}
	if was != nil && was.Reason == a.Reason && was.NetNS == a.NetNS {
		a.Since, a.Took = was.Since, was.Took
		return a
	}
	if a.Attached && sb != nil {
		// From the sandbox's birth, or from when we were asked if that was later.
		from := r.k.asked[s.Name+" "+p.PodUID]
		if sb.Born.After(from) {
			from = sb.Born
		}
		a.Took = float64(now.Sub(from).Microseconds()) / 1000
	}
	return a
}
