package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/ipv4"

	"seaway.dev/seaway/datapath/netnstest"
)

// The traffic generator: it runs in this process, with its sockets in the ways' namespaces.
const (
	streamChunk = 256 << 10 // bytes per write and read of a TCP stream
	datagram    = 1400 - 28 // bytes of UDP payload: packets of 1400 bytes, which all ways carry unfragmented
	udpBatch    = 32        // datagrams per system call
	udpWindow   = 256       // datagrams on the way at once
	warmUp      = 300 * time.Millisecond
)

// tcp measures n streams and returns the bytes that arrived in the time after warming up.
func tcp(w way, n int, d time.Duration, began, ended func()) (bytes int64, err error) {
	var l net.Listener
	if err := w.to.Do(func() (err error) { l, err = net.Listen("tcp4", netip.AddrPortFrom(w.addr, 0).String()); return err }); err != nil {
		return 0, err
	}
	var got atomic.Int64
	var group sync.WaitGroup
	defer group.Wait()
	defer l.Close()
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	group.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			group.Go(func() {
				defer c.Close()
				for buf := make([]byte, streamChunk); ; {
					m, err := c.Read(buf)
					got.Add(int64(m))
					if err != nil {
						return
					}
				}
			})
		}
	})
	for range n {
		c, err := dial(w.from, "tcp4", l.Addr().String())
		if err != nil {
			return 0, err
		}
		group.Go(func() {
			defer c.Close()
			context.AfterFunc(ctx, func() { c.Close() })
			for buf := make([]byte, streamChunk); ; {
				if _, err := c.Write(buf); err != nil {
					return
				}
			}
		})
	}
	return window(&got, d, began, ended), nil
}

func window(got *atomic.Int64, d time.Duration, began, ended func()) int64 {
	<-time.After(warmUp)
	began()
	first := got.Load()
	<-time.After(d)
	last := got.Load()
	ended()
	return last - first
}

func dial(n *netnstest.NS, network, addr string) (c net.Conn, err error) {
	err = n.Do(func() error {
		c, err = net.DialTimeout(network, addr, 5*time.Second)
		return err
	})
	return c, err
}

// udp keeps up to udpWindow datagrams on the way, as a protocol with flow control would, and returns the bytes of payload
// that arrived. A sender that floods would measure how soon the receiver starves on a machine with few cores.
func udp(w way, d time.Duration, began, ended func()) (bytes int64, err error) {
	var in net.PacketConn
	if err := w.to.Do(func() (err error) {
		in, err = net.ListenPacket("udp4", netip.AddrPortFrom(w.addr, 0).String())
		return err
	}); err != nil {
		return 0, err
	}
	_ = in.(*net.UDPConn).SetReadBuffer(4 << 20) // as far as the machine allows
	out, err := dial(w.from, "udp4", in.LocalAddr().String())
	if err != nil {
		in.Close()
		return 0, err
	}
	var got atomic.Int64
	arrived := make(chan struct{}, 1)
	var group sync.WaitGroup
	ctx, stop := context.WithCancel(context.Background())
	group.Go(func() {
		pc, msgs := ipv4.NewPacketConn(in), batch()
		for {
			n, err := pc.ReadBatch(msgs, 0)
			if err != nil {
				return
			}
			for _, m := range msgs[:n] {
				got.Add(int64(m.N))
			}
			select {
			case arrived <- struct{}{}:
			default:
			}
		}
	})
	group.Go(func() {
		pc, msgs := ipv4.NewPacketConn(out.(*net.UDPConn)), batch()
		lost := time.NewTicker(20 * time.Millisecond)
		defer lost.Stop()
		for sent := int64(0); ctx.Err() == nil; {
			if sent-got.Load() > udpWindow*datagram {
				before := got.Load()
				select {
				case <-arrived:
				case <-lost.C:
					if got.Load() == before {
						sent = before // what is still missing is lost
					}
				}
				continue
			}
			n, _ := pc.WriteBatch(msgs, 0) // an error is a full queue
			sent += int64(n) * datagram
		}
	})
	bytes = window(&got, d, began, ended)
	stop()
	out.Close()
	in.Close()
	group.Wait()
	return bytes, nil
}

func batch() []ipv4.Message {
	msgs := make([]ipv4.Message, udpBatch)
	for i := range msgs {
		msgs[i].Buffers = [][]byte{make([]byte, datagram)}
	}
	return msgs
}

// rtt sends small datagrams to and fro, one at a time, and returns the sorted times.
func rtt(w way, n int) ([]time.Duration, error) {
	var in net.PacketConn
	if err := w.to.Do(func() (err error) {
		in, err = net.ListenPacket("udp4", netip.AddrPortFrom(w.addr, 0).String())
		return err
	}); err != nil {
		return nil, err
	}
	var group sync.WaitGroup
	defer group.Wait()
	defer in.Close()
	group.Go(func() {
		for buf := make([]byte, 64); ; {
			m, from, err := in.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = in.WriteTo(buf[:m], from) // a lost answer shows at the other end
		}
	})
	c, err := dial(w.from, "udp4", in.LocalAddr().String())
	if err != nil {
		return nil, err
	}
	defer c.Close()
	times := make([]time.Duration, 0, n)
	buf := make([]byte, 64)
	for lost := 0; len(times) < n; {
		start := time.Now()
		_ = c.SetReadDeadline(start.Add(time.Second))
		if _, err := c.Write(buf); err != nil {
			return nil, err
		}
		if _, err := c.Read(buf); err != nil {
			if lost++; lost > 10 || errors.Is(err, io.EOF) {
				return nil, fmt.Errorf("ping-pong: %w", err)
			}
			continue
		}
		times = append(times, time.Since(start))
	}
	slices.Sort(times)
	return times, nil
}
