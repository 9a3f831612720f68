package stage

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestCommandsAreRunAndTheirFailuresTold(t *testing.T) {
	out, errs, err := Exec{}.Run(t.Context(), Command{Args: []string{"sh", "-c", "echo out; echo err >&2; cat"}, Stdin: strings.NewReader("in\n")})
	if err != nil || out != "out\nin\n" || errs != "err\n" {
		t.Errorf("%q %q %v", out, errs, err)
	}
	_, _, err = Exec{}.Run(t.Context(), Command{Args: []string{"sh", "-c", "echo it broke >&2; exit 3"}})
	if f := (*Failed)(nil); !errors.As(err, &f) || !strings.Contains(err.Error(), "it broke") || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("%v", err)
	}
	if !strings.Contains(err.Error(), `sh -c 'echo it broke >&2; exit 3'`) {
		t.Errorf("the command cannot be pasted: %v", err)
	}
}

func TestAStoppedCommandTakesItsChildrenAlong(t *testing.T) {
	ctx, cancel := context.WithTimeoutCause(t.Context(), 300*time.Millisecond, errors.New("enough"))
	defer cancel()
	start := time.Now()
	_, _, err := Exec{}.Run(ctx, Command{Args: []string{"sh", "-c", "sleep 60; true"}})
	if err == nil || !strings.Contains(err.Error(), "enough") || time.Since(start) > 10*time.Second {
		t.Errorf("%v after %s", err, time.Since(start))
	}
}

func TestPodsAreRead(t *testing.T) {
	pods, err := parsePods("c1", `{"items":[{"metadata":{"name":"web-1","namespace":"shop","uid":"u","labels":{"app":"web"}},
	 "spec":{"nodeName":"c1n1"},"status":{"phase":"Running","podIP":"10.244.1.2",
	 "conditions":[{"type":"Ready","status":"True"},{"type":"seaway.dev/attached","status":"False","reason":"HostNetwork","message":"no"}],
	 "containerStatuses":[{"name":"probe","containerID":"containerd://abc","restartCount":2,"state":{"running":{"startedAt":"2026-11-21T08:00:00Z"}}}]}}]}`)
	if err != nil || len(pods) != 1 {
		t.Fatal(pods, err)
	}
	p := pods[0]
	if p.App != "web" || p.Node != "c1n1" || p.Attached != (Condition{"False", "HostNetwork", "no"}) || p.Containers[0].Restarts != 2 {
		t.Errorf("%+v", p)
	}
}

func TestEventuallyKeepsTheLastError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		if err := Await(t.Context(), time.Minute, func() error {
			if n++; n < 5 {
				return errors.New("not yet")
			}
			return nil
		}); err != nil || n != 5 {
			t.Errorf("%v after %d", err, n)
		}
		err := Await(t.Context(), time.Second, func() error { return errors.New("still closed") })
		if err == nil || !strings.Contains(err.Error(), "still closed") || !strings.Contains(err.Error(), "waited 1s") {
			t.Errorf("%v", err)
		}
	})
}

// fake answers by the longest matching beginning.
type fake struct {
	answers map[string]string
	ran     []string
}

func (f *fake) Run(_ context.Context, c Command) (string, string, error) {
	line := strings.Join(c.Args, " ")
	f.ran = append(f.ran, line)
	best := ""
	for k := range f.answers {
		if strings.HasPrefix(line, k) && len(k) > len(best) {
			best = k
		}
	}
	a := f.answers[best]
	if text, bad := strings.CutPrefix(a, "!"); bad {
		return "", text, &Failed{Args: c.Args, Status: "exit status 1", Output: text}
	}
	return a, "", nil
}

func (f *fake) did(prefix string) bool {
	for _, l := range f.ran {
		if strings.HasPrefix(l, prefix) {
			return true
		}
	}
	return false
}

const lab1 = `{"healthy":true,"clusters":[{"name":"hub","machines":[{"name":"hubcp","role":"control-plane","cable":true}]},
 {"name":"c1","private":true,"machines":[{"name":"c1cp","role":"control-plane","cable":true},{"name":"c1n1","role":"node","state":"running","cable":true}]}]}`

func TestUpUsesWhatIsThereAndMendsWhatItCan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		healthy := &fake{answers: map[string]string{"lab status": lab1}}
		if err := New(Config{Lab: "lab", Runner: healthy}).Up(t.Context()); err != nil || healthy.did("lab up") || healthy.did("lab down") {
			t.Errorf("a healthy lab: %v %q", err, healthy.ran)
		}
		none := &fake{answers: map[string]string{"lab status": "!seaway-lab: no lab is up; start one"}}
		if err := New(Config{Lab: "lab", Runner: none}).Up(t.Context()); err != nil || !none.did("lab up") || none.did("lab down") {
			t.Errorf("no lab: %v %q", err, none.ran)
		}
		dead := &fake{answers: map[string]string{"lab status": strings.NewReplacer("true,", "false,", "running", "off").Replace(lab1)}}
		if err := New(Config{Lab: "lab", Runner: dead}).Up(t.Context()); err != nil || !dead.did("lab machine start c1n1") || !dead.did("lab down") || !dead.did("lab up") {
			t.Errorf("a dead lab: %v %q", err, dead.ran)
		}
	})
}

func TestInstallDoesOnlyWhatIsMissing(t *testing.T) {
	run := func(installed string) *fake {
		f := &fake{answers: map[string]string{"lab status": lab1, "seaway token create": "tok\n",
			"lab kubectl hub get deployments,daemonsets": installed, "lab kubectl c1 get deployments,daemonsets": installed}}
		s := New(Config{Lab: "lab", Seaway: "seaway", Runner: f})
		s.Image = "localhost/seaway:1"
		if err := s.Install(t.Context(), "c1"); err != nil {
			t.Fatal(err)
		}
		return f
	}
	if f := run(""); !f.did("seaway install hub --image localhost/seaway:1") || !f.did("seaway token create c1 --private") || !f.did("seaway join --token tok --image localhost/seaway:1") {
		t.Errorf("from nothing: %q", f.ran)
	}
	if f := run("localhost/seaway:1 localhost/seaway:1"); f.did("seaway install") || f.did("seaway join") {
		t.Errorf("all there: %q", f.ran)
	}
	if f := run("localhost/seaway:0"); !f.did("seaway uninstall") || !f.did("seaway install hub") {
		t.Errorf("another build: %q", f.ran)
	}
}

func TestManifestsHaveWhatWasAskedFor(t *testing.T) {
	m := App{Namespace: "shop", Name: "web", Cluster: "c1", Replicas: 2, Node: "c1n2"}.manifest("img")
	for _, want := range []string{"kind: Deployment", "replicas: 2", "      nodeSelector: {kubernetes.io/hostname: c1n2}", "kind: Service", "value: c1"} {
		if !strings.Contains(m, want) {
			t.Errorf("no %q in\n%s", want, m)
		}
	}
	if m := (App{Namespace: "shop", Name: "db", Stateful: true}).manifest("img"); !strings.Contains(m, "kind: StatefulSet") || !strings.Contains(m, "clusterIP: None") {
		t.Error(m)
	}
	if m := (App{Namespace: "shop", Name: "x", Single: true, HostNetwork: true}).manifest("img"); !strings.Contains(m, "kind: Pod") || !strings.Contains(m, "hostNetwork: true") || strings.Contains(m, "Service") {
		t.Error(m)
	}
}
