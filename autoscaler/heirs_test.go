package autoscaler_test

import (
	"bufio"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"seaway.dev/seaway/api/v1alpha1"
	"seaway.dev/seaway/autoscaler"
	"seaway.dev/seaway/scale/record"
)

// either: both replicas answer KEDA, also the one that does not lead.
func (l *live) either(addresses []string) {
	l.t.Helper()
	for i, a := range addresses {
		l.eventually(10*time.Second, "KEDA is answered", func(ctx context.Context) error {
			n, err := autoscaler.AskKEDA(ctx, a, "shop", "web")
			wants := int(l.get().Status.Wants)
			return cmpErr(err, fault(err == nil && (n != wants || n <= 4), "replica %d says %d, status.wants is %d", i+1, n, wants))
		})
	}
}

// writers lists who wrote the scale, in order, runs of one as one: one, two.
func (l *live) writers() (out []string, writes int) {
	f, err := os.Open(filepath.Join(l.dir, "audit.log"))
	if err != nil {
		l.t.Fatal(err)
	}
	defer f.Close()
	in := bufio.NewScanner(f)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		var e struct {
			User           struct{ UID, Username string }
			ResponseStatus struct{ Code int }
		}
		if json.Unmarshal(in.Bytes(), &e) != nil || !strings.HasSuffix(e.User.Username, ":seaway-autoscaler") || e.ResponseStatus.Code != 200 {
			continue
		}
		writes++
		if len(out) == 0 || out[len(out)-1] != e.User.UID {
			out = append(out, e.User.UID)
		}
	}
	return out, writes
}

// succeeded: the leader is told to end, and the other goes on at once with what was learnt.
func (l *live) succeeded(s *service, one *exec.Cmd) {
	l.eventually(20*time.Second, "Ready again", func(context.Context) error {
		c := meta.FindStatusCondition(l.get().Status.Conditions, v1alpha1.AutoscalerReady)
		return fault(c.Status != metav1.ConditionTrue, "%+v", c)
	})
	before := l.get().Status
	if err := one.Process.Signal(syscall.SIGTERM); err != nil {
		l.t.Fatal(err)
	}
	most := l.replicas()
	at := s.set(1700)
	l.becomes(40*time.Second, "the second replica scales", func(n int) bool { return n > most })
	l.t.Logf("the leader was told to end, the other scaled %s later", time.Since(at).Round(time.Millisecond))
	var r record.Record
	l.eventually(10*time.Second, "its record", func(context.Context) error {
		return json.Unmarshal([]byte(l.get().Status.Records[0]), &r)
	})
	if r.WorkMillis < 0.9 || r.WorkMillis > 1.1 || strings.Contains(r.Rail, "learning") || strings.Contains(r.Why, "nothing is known") {
		l.t.Errorf("it has forgotten: %+v (before: %+v)", r, before)
	}
	who, writes := l.writers()
	l.t.Logf("%d writes of the scale, by %v", writes, who)
	if !slices.Equal(who, []string{"one", "two"}) || writes < 3 {
		l.t.Errorf("writers %v, %d writes: want one, then two", who, writes)
	}
}

// paused: the leader is paused beyond its lease, another takes over; when the paused one goes on it writes nothing, but
// learns that it does not lead any more.
func (l *live) paused(s *service, two *exec.Cmd) {
	heir := freePort(l.t)
	l.role("one", s.url, heir)
	l.eventually(20*time.Second, "the heir is there", func(ctx context.Context) error {
		_, err := autoscaler.AskKEDA(ctx, heir, "shop", "web")
		return err
	})
	at := time.Now()
	if err := two.Process.Signal(syscall.SIGSTOP); err != nil {
		l.t.Fatal(err)
	}
	l.change("a wider max, as the heir sees", func(s *v1alpha1.AutoscalerSpec) { s.Max = 40 })
	most := l.replicas()
	s.set(2500)
	l.becomes(40*time.Second, "the heir scales", func(n int) bool { return n > most })
	l.t.Logf("the leader was paused, the other scaled %s later", time.Since(at).Round(time.Millisecond))
	if err := two.Process.Signal(syscall.SIGCONT); err != nil {
		l.t.Fatal(err)
	}
	// Its election takes ten seconds to find out; there is something to write all the while.
	for i, end := int32(0), time.Now().Add(15*time.Second); time.Now().Before(end); i++ {
		pin := 5 + i%10
		l.change("a pin", func(s *v1alpha1.AutoscalerSpec) { s.Pin = &pin })
		l.becomes(10*time.Second, "pinned", func(n int) bool { return n == int(pin) })
	}
	who, writes := l.writers()
	l.t.Logf("%d writes of the scale, by %v", writes, who)
	if !slices.Equal(who, []string{"one", "two", "one"}) {
		l.t.Errorf("writers %v, %d writes: want one, two, and one again", who, writes)
	}
}
