package datapath

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"seaway.dev/seaway/datapath/netns"
	"seaway.dev/seaway/fleet"
)

// A pod answers a probe from its kernel, so in well under a millisecond; the rest is for a machine under load. Who was
// silent the last time is not waited for that long again, so that one mute pod does not hold up the others.
const (
	probeWait      = 1500 * time.Millisecond
	probeWaitAgain = 150 * time.Millisecond
	probeGap       = 60 * time.Millisecond // between repetitions
)

// probe sends an ICMP echo to every attached pod's every address through its own link, all at once.
func (r *run) probe(ctx context.Context) {
	var wg sync.WaitGroup
	for _, s := range r.slices {
		targets := map[netip.Addr]time.Duration{}
		for _, p := range s.pods {
			if p.reason != "" || s.err != nil || p.trusted {
				continue
			}
			wait := probeWait
			if was := r.k.states[s.Name+" "+p.PodUID]; was != nil && was.Reason == "ProbeFailed" {
				wait = probeWaitAgain
			}
			for _, a := range p.Addrs {
				targets[a] = wait
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
					case p.trusted:
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

// Probe sends ICMP echo requests from a namespace to each target for as long as it is to be waited for, and returns
// those who did not answer.
func Probe(ctx context.Context, ns *netns.NS, targets map[netip.Addr]time.Duration) (silent map[netip.Addr]bool, err error) {
	four := &prober{network: "ip4:icmp", local: "0.0.0.0", request: 8, reply: 0}
	six := &prober{network: "ip6:ipv6-icmp", local: "::", request: 128, reply: 129}
	now := time.Now()
	for a, wait := range targets {
		p := six
		if a.Is4() {
			p = four
		}
		p.silent = append(p.silent, target{a, now.Add(wait)})
	}
	var wg sync.WaitGroup
	for _, p := range []*prober{four, six} {
		wg.Go(func() { p.err = p.run(ctx, ns) })
	}
	wg.Wait()
	silent = map[netip.Addr]bool{}
	for _, p := range []*prober{four, six} {
		for _, t := range p.silent {
			silent[t.addr] = true
		}
	}
	return silent, errors.Join(four.err, six.err)
}

type target struct {
	addr  netip.Addr
	until time.Time
}

// prober probes the targets of one family.
type prober struct {
	network, local string
	request, reply byte
	silent         []target
	err            error
}

// run repeats the request to whoever has not answered until all have, or their time is over.
func (p *prober) run(ctx context.Context, ns *netns.NS) error {
	if len(p.silent) == 0 {
		return nil
	}
	var conn net.PacketConn
	err := ns.Do(func() (err error) {
		conn, err = net.ListenPacket(p.network, p.local)
		return err
	})
	if err != nil {
		return fmt.Errorf("open a probe's socket: %w", err)
	}
	defer func() { _ = conn.Close() }()
	buf := make([]byte, 256)
	for seq := uint16(1); ; seq++ {
		now := time.Now()
		waiting := 0
		for _, t := range p.silent {
			if now.Before(t.until) {
				waiting++
				_, _ = conn.WriteTo(p.packet(seq), &net.IPAddr{IP: t.addr.AsSlice()})
			}
		}
		if waiting == 0 || ctx.Err() != nil {
			return nil
		}
		_ = conn.SetReadDeadline(now.Add(probeGap))
		for len(p.silent) > 0 {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				break
			}
			ip, ok := from.(*net.IPAddr)
			if !ok || n < 8 || buf[0] != p.reply || binary.BigEndian.Uint16(buf[4:]) != probeID {
				continue
			}
			a, _ := netip.AddrFromSlice(ip.IP)
			p.silent = slices.DeleteFunc(p.silent, func(t target) bool { return t.addr == a.Unmap() })
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
	maps.DeleteFunc(r.k.found, func(key string, _ seen) bool {
		st := states[key]
		return st == nil || !st.Attached // whoever does not answer is looked into again
	})
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
