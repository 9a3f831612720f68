package node

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"seaway.dev/seaway/delta"
	"seaway.dev/seaway/fleet"
)

// pause lets the bubble's time pass, and everybody finish what they do then.
func pause(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// TestHearApplyReport is the thin line: an intent comes, the node becomes it, the report says so.
func TestHearApplyReport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.kernel.running["a"] = true
		b.start(t)
		synctest.Wait()
		pause(time.Second)
		if r := b.controller.last(t); r.Node != "n1" || r.MTU != 1500 || r.Port != fleet.DefaultPort || len(r.Addrs) != 1 || r.Keys[fleet.ManagementSlice].IsZero() {
			t.Errorf("before any intent the controller must know the node's whereabouts and its management key: %+v", r)
		}
		b.controller.tell(t, intent(7, "a"))
		pause(100 * time.Millisecond)
		r := b.controller.last(t)
		if r.IntentRev != 7 || len(r.Attachments) != 1 || !r.Attachments[0].Attached || r.Keys["pay"].IsZero() || len(r.Problems) != 0 {
			t.Errorf("after an intent: %+v", r)
		}
		if len(b.kernel.want) != 1 || b.kernel.want[0].Name != "pay" || !strings.HasPrefix(b.kernel.want[0].NetNS, b.cfg.RunDir) {
			t.Errorf("the kernel was told %+v", b.kernel.want)
		}
		put := b.tunnel.puts[len(b.tunnel.puts)-1]
		if len(put.Devices) != 1 || put.Devices[0].Slice != "pay" || put.Port != fleet.DefaultPort {
			t.Errorf("the tunnel was told %+v", put)
		}
	})
}

// TestControllerAway: the last intent is taken up at the start, stands, and nobody is stormed.
func TestControllerAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		in := intent(3, "a")
		if _, err := saveIntent(b.cfg.StateDir+"/intent.json", &in); err != nil {
			t.Fatal(err)
		}
		if st, err := os.Stat(b.cfg.StateDir + "/intent.json"); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("the saved intent: %v, %v; want mode 0600", st.Mode(), err)
		}
		b.kernel.running["a"] = true
		b.controller.setAway(true)
		a := b.start(t)
		pause(10 * time.Minute)
		if st := a.state(); st.IntentRev != 3 || len(st.Attachments) != 1 || st.Problems[0].Reason != "ControllerUnreachable" || st.Problems[0].Next == "" {
			t.Errorf("with the controller away: %+v", st)
		}
		// Stream and reports together: at most one each per 7.5 s once the waits are at their longest.
		if n, _ := b.controller.counts(); n < 60 || n > 200 {
			t.Errorf("%d attempts in ten minutes, want between 60 and 200", n)
		}
		b.controller.setAway(false)
		pause(16 * time.Second)
		b.controller.tell(t, intent(4, "a"))
		pause(time.Second)
		if r := b.controller.last(t); r.IntentRev != 4 || len(r.Problems) != 0 {
			t.Errorf("with the controller back: %+v", r)
		}
	})
}

// TestSilentController: heartbeats keep a stream, silence ends it.
func TestSilentController(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.start(t)
		synctest.Wait()
		for range 20 {
			pause(15 * time.Second)
			b.controller.say(t, nil)
		}
		synctest.Wait()
		if n, _ := b.controller.counts(); n != 1 {
			t.Errorf("%d streams while heartbeats came, want 1", n)
		}
		pause(47 * time.Second)
		if n, _ := b.controller.counts(); n < 2 {
			t.Error("the agent did not dial again after 47 s of silence")
		}
	})
}

// TestReportsAreFew: a flock of changes is one report; nothing happening is one a minute.
func TestReportsAreFew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.start(t)
		pause(2 * time.Second)
		_, before := b.controller.counts()
		for rev := range 20 {
			b.controller.tell(t, intent(uint64(rev+1), "a"))
			synctest.Wait()
		}
		pause(time.Second)
		_, after := b.controller.counts()
		if n := after - before; n < 1 || n > 2 {
			t.Errorf("20 intents at once gave %d reports, want one or two", n)
		}
		b.kernel.mu.Lock()
		b.kernel.running["a"] = true
		b.kernel.mu.Unlock()
		_, before = b.controller.counts()
		pause(10 * time.Minute)
		_, after = b.controller.counts()
		// More than ten, because this fake sends no heartbeats: streams are cut, which is a change each time.
		if n := after - before; n < 10 || n > 60 {
			t.Errorf("ten quiet minutes gave %d reports", n)
		}
	})
}

// TestNewSandbox: a pod that is told before its sandbox runs is attached within milliseconds of it, and a pod whose
// sandbox never comes is not looked for all the time.
func TestNewSandbox(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.start(t)
		synctest.Wait()
		b.controller.tell(t, intent(1, "a"))
		pause(5 * time.Minute)
		before := b.kernel.count()
		pause(time.Minute)
		if n := b.kernel.count() - before; n > 8 {
			t.Errorf("%d rounds in a minute of waiting for a sandbox, want about 6", n)
		}
		b.kernel.mu.Lock()
		changed := b.kernel.changed
		b.kernel.mu.Unlock()
		changed() // the namespace's file appears …
		pause(180 * time.Millisecond)
		b.kernel.mu.Lock()
		b.kernel.running["a"] = true // … and a while later the runtime knows the sandbox
		b.kernel.mu.Unlock()
		ready := time.Now()
		pause(time.Second)
		b.kernel.mu.Lock()
		defer b.kernel.mu.Unlock()
		if took := b.kernel.at["a"].Sub(ready); took < 0 || took > 20*time.Millisecond {
			t.Errorf("attached %v after the sandbox was ready, want at most 20 ms", took)
		}
	})
}

// TestTunnelRestarts: it is told everything again.
func TestTunnelRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		a := b.start(t)
		synctest.Wait()
		b.controller.tell(t, intent(1, "a"))
		pause(6 * time.Second)
		b.tunnel.mu.Lock()
		b.tunnel.down = true
		b.tunnel.mu.Unlock()
		pause(11 * time.Second)
		if st := a.state(); len(st.Problems) == 0 || st.Problems[0].Reason != "TunnelDown" || st.Keys["pay"].IsZero() {
			t.Errorf("with the tunnel down: %+v; want the problem TunnelDown, and the keys still told", st)
		}
		b.tunnel.mu.Lock()
		b.tunnel.down, b.tunnel.started = false, time.Now()
		puts := len(b.tunnel.puts)
		b.tunnel.mu.Unlock()
		pause(300 * time.Millisecond)
		b.tunnel.mu.Lock()
		if len(b.tunnel.puts) == puts {
			t.Error("a tunnel that came back was not told again within 300 ms")
		}
		b.tunnel.started, puts = time.Now(), len(b.tunnel.puts) // a restart too short to be seen as an absence
		b.tunnel.mu.Unlock()
		pause(5100 * time.Millisecond)
		b.tunnel.mu.Lock()
		defer b.tunnel.mu.Unlock()
		if len(b.tunnel.puts) == puts {
			t.Error("a restarted tunnel was not told again within 5 s")
		}
	})
}

// TestKeysGo: a slice's key goes a while after the slice, not at once; the management slice's stays.
func TestKeysGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.start(t)
		synctest.Wait()
		b.controller.tell(t, intent(1, "a"))
		pause(10 * time.Second)
		b.controller.tell(t, intent(2))
		pause(50 * time.Second)
		b.tunnel.mu.Lock()
		_, has := b.tunnel.keys["pay"]
		b.tunnel.mu.Unlock()
		if !has {
			t.Error("the key went at once")
		}
		pause(30 * time.Second)
		b.tunnel.mu.Lock()
		defer b.tunnel.mu.Unlock()
		if _, has := b.tunnel.keys["pay"]; has || len(b.tunnel.keys) != 1 {
			t.Errorf("keys 80 seconds after the slice: %v, want the management slice's alone", b.tunnel.keys)
		}
	})
}

// TestPurge: everything is removed, once, and reported; a later intent is followed again.
func TestPurge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.start(t)
		synctest.Wait()
		b.controller.tell(t, intent(1, "a"))
		pause(time.Second)
		gone := intent(2)
		gone.Purge = true
		b.controller.tell(t, gone)
		pause(time.Second)
		r := b.controller.last(t)
		if !r.Purged || r.IntentRev != 2 || len(r.Keys) != 0 || len(r.Attachments) != 0 || !b.kernel.purged || !b.tunnel.purged {
			t.Errorf("after purge: %+v, kernel %v, tunnel %v", r, b.kernel.purged, b.tunnel.purged)
		}
		if _, err := os.Stat(b.cfg.StateDir + "/intent.json"); !os.IsNotExist(err) {
			t.Errorf("the saved intent is still there: %v", err)
		}
		pause(time.Minute)
		if len(b.tunnel.keys) != 0 {
			t.Error("a key was made after the purge")
		}
		b.controller.tell(t, intent(3, "a"))
		pause(time.Second)
		if r := b.controller.last(t); r.Purged || r.IntentRev != 3 {
			t.Errorf("after coming back: %+v", r)
		}
	})
}

// TestBadIntents: each is refused with a reason, and what stands stays.
func TestBadIntents(t *testing.T) {
	edit := func(old, new string) []byte {
		b, _ := json.Marshal(intent(9, "a"))
		out := bytes.Replace(b, []byte(old), []byte(new), 1)
		if bytes.Equal(b, out) {
			t.Fatalf("test is wrong: no %s in %s", old, b)
		}
		return out
	}
	for name, line := range map[string][]byte{
		"garbage":          []byte("<html>"),
		"no version":       edit(`"version":1`, `"version":0`),
		"newer version":    edit(`"version":1`, `"version":99,"shiny":true`),
		"another node":     edit(`"node":"n1"`, `"node":"n2"`),
		"path for a name":  edit(`"name":"pay"`, `"name":"../../etc"`),
		"management slice": edit(`"name":"pay"`, `"name":"seaway"`),
		"no prefix":        edit(`"10.77.0.0/16"`, `""`),
		"all networks":     edit(`"name":"pay"`, `"name":"pay","networks":[{"cluster":"c2","prefix":"0.0.0.0/0"}]`),
		"no address":       edit(`"10.77.0.1"`, `""`),
		"no UID":           edit(`"uid":"a"`, `"uid":""`),
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := decodeIntent(line, "n1"); err == nil || errors.Is(err, errVersion) != (name == "newer version" || name == "no version") {
				t.Fatalf("decodeIntent: %v", err)
			}
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				a := b.start(t)
				synctest.Wait()
				b.controller.tell(t, intent(1, "a"))
				pause(time.Second)
				b.controller.say(t, line)
				pause(time.Second)
				st := a.state()
				if st.IntentRev != 1 || len(st.Problems) != 1 || len(b.kernel.want) != 1 {
					t.Errorf("after it: %+v", st)
				}
			})
		})
	}
}

// TestChangesAreToldByThemselves: after a whole intent the controller tells what changed; a change of something else
// has the node dial anew, and what stands stays.
func TestChangesAreToldByThemselves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		a := b.start(t)
		synctest.Wait()
		one, two := intent(1, "a"), intent(2, "a", "b")
		b.controller.tell(t, one)
		pause(time.Second)
		d, changed := delta.Intent(&one, &two)
		if d == nil || !changed {
			t.Fatal("no change")
		}
		line, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		b.controller.say(t, line)
		pause(3 * time.Second)
		if st := a.state(); st.IntentRev != 2 || len(st.Attachments) != 2 {
			t.Errorf("after the change: %+v", st)
		}
		if saved, err := loadIntent(a.intentFile(), "n1"); err != nil || saved.Rev != 2 || len(saved.Pods) != 2 {
			pause(a.cfg.Timing.Check)
			if saved, err = loadIntent(a.intentFile(), "n1"); err != nil || saved.Rev != 2 || len(saved.Pods) != 2 {
				t.Errorf("saved %+v, %v", saved, err)
			}
		}
		before, _ := b.controller.counts()
		d.Base = 7
		line, err = json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		b.controller.say(t, line)
		pause(3 * time.Second)
		if dials, _ := b.controller.counts(); dials != before+1 {
			t.Errorf("dialled %d times after a change of something else", dials-before)
		}
		if st := a.state(); st.IntentRev != 2 || len(st.Attachments) != 2 {
			t.Errorf("what stands did not stay: %+v", st)
		}
	})
}

func TestReadLine(t *testing.T) {
	r := bufio.NewReaderSize(strings.NewReader(strings.Repeat("x", 100)+"\n\n"+strings.Repeat("y", 200)+"\n"), 16)
	if l, err := readLine(r, 150); err != nil || len(l) != 101 {
		t.Errorf("%d bytes, %v", len(l), err)
	}
	if l, err := readLine(r, 150); err != nil || len(l) != 1 {
		t.Errorf("%d bytes, %v", len(l), err)
	}
	if _, err := readLine(r, 150); err == nil {
		t.Error("a line over the limit was read")
	}
}

func FuzzIntent(f *testing.F) {
	good, _ := json.Marshal(intent(1, "a", "b"))
	f.Add(good)
	f.Add([]byte(`{"version":1,"node":"n1","slices":[{"name":"x","prefixes":["10.0.0.0/8","::/0"]}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		in, err := decodeIntent(b, "n1")
		if err != nil {
			return
		}
		for _, s := range in.Slices {
			if strings.ContainsAny(s.Name, "/.") || s.Name == "" {
				t.Errorf("a slice can be called %q", s.Name)
			}
		}
		again, err := json.Marshal(in)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decodeIntent(again, "n1"); err != nil {
			t.Errorf("what was accepted is refused when saved: %v", err)
		}
	})
}

// TestNamesFail: a DNS port that is taken is reported, and the agent goes on.
func TestNamesFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		var fail func(error)
		b.cfg.Names = func(ctx context.Context, failing func(error)) error {
			fail = failing
			<-ctx.Done()
			return nil
		}
		a := b.start(t)
		go func() { _ = a.names(t.Context()) }()
		synctest.Wait()
		fail(errors.New("another process has the port"))
		pause(time.Second)
		ps := b.controller.last(t).Problems
		if len(ps) == 0 || ps[0].Reason != "NamesUnanswered" || ps[0].Message != "another process has the port" || ps[0].Where != "node n1" {
			t.Errorf("reported %+v", ps)
		}
		fail(nil)
		pause(time.Second)
		for _, p := range b.controller.last(t).Problems {
			if p.Reason == "NamesUnanswered" {
				t.Errorf("still reported: %+v", p)
			}
		}
	})
}

// TestProgressIsReportedAtAPace: in a fleet where something changes all the time a node says how far it has come now
// and then, of the newest always; after a quiet time at once.
func TestProgressIsReportedAtAPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.kernel.running["a"] = true
		b.start(t)
		synctest.Wait()
		b.controller.tell(t, intent(1, "a"))
		pause(3 * time.Second)
		b.controller.tell(t, intent(2, "a"))
		pause(100 * time.Millisecond)
		if r := b.controller.last(t); r.IntentRev != 2 {
			t.Errorf("after a quiet time revision %d is reported, want 2", r.IntentRev)
		}
		_, before := b.controller.counts()
		for rev := range uint64(60) {
			b.controller.tell(t, intent(3+rev, "a"))
			pause(50 * time.Millisecond)
		}
		if _, after := b.controller.counts(); after-before > 13 || after-before < 6 {
			t.Errorf("%d reports in three seconds of changes, want four a second", after-before)
		}
		pause(400 * time.Millisecond)
		if r := b.controller.last(t); r.IntentRev != 62 {
			t.Errorf("revision %d is reported, want 62", r.IntentRev)
		}
		// What differs is reported at once, whenever the last report was.
		b.controller.tell(t, intent(63, "a"))
		pause(200 * time.Millisecond)
		b.kernel.running["b"] = true
		b.controller.tell(t, intent(64, "a", "b"))
		pause(100 * time.Millisecond)
		if r := b.controller.last(t); len(r.Attachments) != 2 {
			t.Errorf("%d attachments are reported, want 2", len(r.Attachments))
		}
	})
}
