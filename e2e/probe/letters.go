package main

import (
	"bufio"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"seaway.dev/seaway/bulletin"
	"seaway.dev/seaway/fleet"
)

// carryPort is where carriers of bulletins take others in, on the management slice.
const carryPort = 51871

// letters misbehaves towards a carrier of bulletins, as somebody could who has got hold of a node. It is to run in the
// management slice's network namespace of that node, whose address is what the other side knows it by.
//
//	letters FROM TO garbage   bytes that are no frames
//	letters FROM TO lie       a bulletin of the other side's cluster and of a third one, signed by nobody that may
//	letters FROM TO replay    what the other side has said itself, again and again
//	letters FROM TO flood     more talk than anybody needs, until it is shut out
//
// FROM and TO are cluster/node. It fails if it did not come to say it all: it may be shut out still.
func letters(args []string) error {
	if len(args) != 3 {
		return errors.New("letters: want FROM TO garbage|lie|replay|flood")
	}
	from, to := strings.Split(args[0], "/"), strings.Split(args[1], "/")
	act, known := lies()[args[2]]
	if !known || len(from) != 2 || len(to) != 2 {
		return errors.New("letters: want FROM TO garbage|lie|replay|flood, FROM and TO as cluster/node")
	}
	at := netip.AddrPortFrom(fleet.ManagementAddr(to[0], to[1]), carryPort)
	c, err := net.DialTimeout("tcp6", at.String(), patience)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := misbehave(c, from, to, act); err != nil {
		return err
	}
	fmt.Println("said")
	return nil
}

func lies() map[string]func(*liar) error {
	return map[string]func(*liar) error{
		"garbage": (*liar).garbage, "lie": (*liar).lie, "replay": (*liar).replay, "flood": (*liar).flood,
	}
}

// misbehave greets the other side as one of its peers and does what it should not.
func misbehave(c net.Conn, from, to []string, act func(*liar) error) (err error) {
	if err := c.SetDeadline(time.Now().Add(2 * patience)); err != nil {
		return err
	}
	l := &liar{c: c, in: bufio.NewReader(c), to: to[0]}
	if err := l.say(bulletin.NewHello(from[0], from[1]), &bulletin.Have{All: true}); err != nil {
		return err
	}
	if l.first, err = l.hear(); err != nil {
		return fmt.Errorf("no letter of %s came: %w", to[0], err)
	}
	return act(l)
}

// liar is a connection that was greeted.
type liar struct {
	c     net.Conn
	in    *bufio.Reader
	to    string           // the other side's cluster
	first *bulletin.Letter // of that cluster
}

func (l *liar) say(frames ...any) error {
	var out []byte
	for _, f := range frames {
		var err error
		if out, err = bulletin.AppendFrame(out, f); err != nil {
			return err
		}
	}
	_, err := l.c.Write(out)
	return err
}

// hear reads until a whole letter of the other side's cluster comes.
func (l *liar) hear() (*bulletin.Letter, error) {
	for {
		say, err := bulletin.ReadFrame(l.in)
		if err != nil {
			return nil, err
		}
		if got, ok := say.(*bulletin.Letter); ok && got.Cluster == l.to {
			return got, nil
		}
	}
}

// closed waits until the other side has had enough.
func (l *liar) closed() error {
	if _, err := io.Copy(io.Discard, l.in); err != nil {
		var late net.Error
		if errors.As(err, &late) && late.Timeout() {
			return errors.New("the other side bore it all")
		}
	}
	return nil
}

func (l *liar) garbage() error {
	b := make([]byte, 64<<10)
	_, _ = rand.Read(b)
	b[0] = 0 // no kind of frame
	if _, err := l.c.Write(b); err != nil {
		return err
	}
	return l.closed()
}

// stay waits until the other side has read what was said: it answers a question with a letter.
func (l *liar) stay() error {
	if err := l.say(&bulletin.Have{Ask: true, Have: map[string]bulletin.Version{l.to: {}}}); err != nil {
		return err
	}
	_, err := l.hear()
	return err
}

func (l *liar) lie() error {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		return err
	}
	for _, cluster := range []string{l.to, "c2"} {
		far := uint64(time.Now().Add(24 * time.Hour).UnixNano())
		b := &fleet.Bulletin{Version: fleet.WireVersion, Cluster: cluster, Epoch: far, Rev: 1}
		forged, err := bulletin.Write(b, nil, key)
		if err == nil {
			err = l.say(forged)
		}
		if err != nil {
			return err
		}
	}
	return l.stay()
}

func (l *liar) replay() error {
	if err := l.say(slices.Repeat([]any{l.first}, 5)...); err != nil {
		return err
	}
	return l.stay()
}

func (l *liar) flood() error {
	for range 1000 {
		if l.say(&bulletin.Have{}) != nil {
			return nil // it was shut out
		}
	}
	return l.closed()
}
