package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"
)

// tally is what a name was answered with.
type tally struct{ right, wrong, missing, failed int }

// names asks for names again and again for a while and counts the answers: the address that each is to have, another
// one, that there is no such name, or no answer. It prints the counts and fails if any answer was not the right one;
// -unsure allows the last kind (SERVFAIL). With -for 0 it asks until its input ends.
//
//	names -for 40s db-0.c1.db.shop.svc.clusterset.local=10.77.0.5 …
func names(args []string) error {
	fs := flag.NewFlagSet("names", flag.ContinueOnError)
	length := fs.Duration("for", 10*time.Second, "how long")
	unsure := fs.Bool("unsure", false, "no answer (SERVFAIL) is allowed")
	if err := fs.Parse(args); err != nil {
		return err
	}
	want := map[string]netip.Addr{}
	for _, a := range fs.Args() {
		name, text, ok := strings.Cut(a, "=")
		ip, err := netip.ParseAddr(text)
		if !ok || err != nil {
			return fmt.Errorf("names: %q: want NAME=ADDRESS", a)
		}
		want[strings.TrimSuffix(name, ".")+"."] = ip
	}
	if len(want) == 0 {
		return errors.New("names: want NAME=ADDRESS")
	}
	fmt.Printf("asking for %d names for %s\n", len(want), *length)
	end := time.After(*length)
	if *length == 0 {
		over := make(chan time.Time)
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			close(over)
		}()
		end = over
	}
	var t tally
	for {
		select {
		case <-end:
			return t.verdict(*unsure)
		case <-time.After(10 * time.Millisecond):
		}
		for name, ip := range want {
			t.count(name, ip)
		}
	}
}

func (t *tally) verdict(unsure bool) error {
	fmt.Printf("right=%d wrong=%d missing=%d failed=%d\n", t.right, t.wrong, t.missing, t.failed)
	if t.wrong+t.missing > 0 || t.right == 0 || t.failed > 0 && !unsure {
		return errors.New("names: not every answer was the right one")
	}
	return nil
}

func (t *tally) count(name string, want netip.Addr) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	got, err := (&net.Resolver{PreferGo: true}).LookupNetIP(ctx, map[bool]string{true: "ip4", false: "ip6"}[want.Is4()], name)
	var no *net.DNSError
	switch {
	case errors.As(err, &no) && no.IsNotFound:
		fmt.Println(name, "does not exist")
		t.missing++
	case err != nil:
		fmt.Println(name, err)
		t.failed++
	case len(got) != 1 || got[0].Unmap() != want:
		fmt.Println(name, got)
		t.wrong++
	default:
		t.right++
	}
}
