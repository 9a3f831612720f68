package main

import (
	"context"
	"crypto/ed25519"
	"log/slog"
	"net"
	"testing"

	"seaway.dev/seaway/bulletin"
	"seaway.dev/seaway/bulletin/post"
	"seaway.dev/seaway/fleet"
)

// TestLiesAreHeardAsSuch: each way to misbehave reaches a real carrier and is counted for what it is; control: who only
// greets and listens is blamed for nothing.
func TestLiesAreHeardAsSuch(t *testing.T) {
	ways := lies()
	ways["nothing"] = (*liar).stay
	for way, reason := range map[string]bulletin.Reason{
		"garbage": bulletin.Garbage, "lie": bulletin.Forged, "replay": bulletin.Replay, "flood": bulletin.Flood, "nothing": "",
	} {
		t.Run(way, func(t *testing.T) {
			public, private, err := ed25519.GenerateKey(nil)
			if err != nil {
				t.Fatal(err)
			}
			store := bulletin.NewStore(func(string) (fleet.Key, bool) { return fleet.Key(public), true })
			office := post.New(post.Config{Cluster: "c1", Node: "n1", Store: store, News: func(string, string) {}, Log: slog.New(slog.DiscardHandler)})
			own, err := bulletin.Write(&fleet.Bulletin{Version: fleet.WireVersion, Cluster: "c1", Epoch: 1, Rev: 1}, nil, private)
			if err != nil {
				t.Fatal(err)
			}
			if err := office.Post(own); err != nil {
				t.Fatal(err)
			}
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			ended := make(chan error, 1)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			go func() {
				c, err := l.Accept()
				if err == nil {
					err = office.Serve(ctx, c, post.Peer{Cluster: "c3", Node: "c3n1"})
				}
				ended <- err
			}()
			c, err := net.Dial("tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			if err := misbehave(c, []string{"c3", "c3n1"}, []string{"c1", "n1"}, ways[way]); err != nil {
				t.Fatal(err)
			}
			_ = c.Close()
			<-ended
			counts := map[string]int{}
			for _, st := range office.States() {
				for r, n := range st.Refused {
					counts[r] += n
				}
			}
			if reason == "" && len(counts) > 0 || reason != "" && counts[string(reason)] == 0 {
				t.Errorf("counted %v, want %q", counts, reason)
			}
			if have := store.Have(); len(have) != 1 || have["c1"].Epoch != 1 {
				t.Errorf("it believes %v", have)
			}
		})
	}
}
