package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"
)

// How count sends, and how long it waits for answers at the end.
const (
	countEvery = 4 * time.Millisecond
	countWait  = 2 * time.Second
)

// count sends datagrams all the time until its standard input ends, then says how many of them were not answered. No
// datagram is sent twice: a packet lost on the way there or back is lost.
func count(args []string) error {
	if len(args) != 1 {
		return errors.New("count: want one address")
	}
	c, err := net.Dial("udp", withPort(args[0]))
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.(*net.UDPConn).SetReadBuffer(4 << 20)
	end := make(chan struct{})
	go func() {
		io.Copy(io.Discard, os.Stdin)
		close(end)
	}()
	var answered, refused atomic.Int64
	go func() {
		buf := make([]byte, 2048)
		for {
			switch _, err := c.Read(buf); {
			case err == nil:
				answered.Add(1)
			case errors.Is(err, net.ErrClosed):
				return
			default:
				refused.Add(1)
			}
		}
	}()
	fmt.Println("counting", c.LocalAddr(), c.RemoteAddr())
	sent := int64(0)
	tick := time.NewTicker(countEvery)
	defer tick.Stop()
	for {
		if _, err := c.Write([]byte("who\n")); err == nil {
			sent++
		} else {
			refused.Add(1)
		}
		select {
		case <-tick.C:
			continue
		case <-end:
		}
		break
	}
	for late := time.Now().Add(countWait); answered.Load() < sent && time.Now().Before(late); {
		<-tick.C
	}
	fmt.Printf("sent=%d errors=%d lost=%d\n", sent, refused.Load(), sent-answered.Load())
	return nil
}
