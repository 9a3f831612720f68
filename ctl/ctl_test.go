package ctl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"seaway.dev/seaway/api/v1alpha1"
	"seaway.dev/seaway/hub/join"
)

// run executes a command line that needs no cluster, or does not reach one.
func run(t *testing.T, args ...string) (out, errs string, code int) {
	t.Helper()
	var o, e bytes.Buffer
	code = Run(t.Context(), Config{Name: "seaway", Version: "v0.0.0-test", Out: &o, Err: &e}, args)
	return o.String(), e.String(), code
}

// TestMistakes is what people get for wrong command lines: what is wrong, what to do, and exit code 2.
func TestMistakes(t *testing.T) {
	for args, says := range map[string]string{
		"slice create":                                      "accepts 1 arg",
		"slice create Pay --dry-run":                        "small letters",
		"slice create seaway --dry-run":                     "management slice",
		"slice create pay --prefix x":                       "",
		"slice create pay --dry-run --prefix 10.77.0.0/33":  "no address prefix",
		"slice create pay --dry-run --prefix 10.77.1.2/16":  "did you mean 10.77.0.0/16?",
		"slice create pay --dry-run --clusters A":           "small letters",
		"slice create pay --dry-run --addresses pod":        "there are Slice and Pod",
		"slice create pay --dry-run --selector ,=":          "--selector",
		"token create system":                               "Seaway's own",
		"token create paris --ttl 1s":                       "10m to 720h",
		"token create paris --ttl 1000h":                    "10m to 720h",
		"token create paris --server http://hub":            "https URL",
		"join --token garbage":                              "seaway token create",
		"join --token @/does/not/exist":                     "no such file",
		"join --gateways 0":                                 "1 to 16",
		"join --gateways role":                              "key=value",
		"join --log-level loud":                             "debug, info, warn or error",
		"install hub --replicas 0":                          "1 to 9",
		"explain pod web-0":                                 "NAMESPACE/NAME",
		"explain path n1":                                   "accepts 2 arg",
		"slices":                                            "unknown command",
		"slice create pay --nope":                           "unknown flag",
		"status --kubeconfig /does/not/exist":               "--kubeconfig FILE",
		"leave --kubeconfig /does/not/exist --context nope": "--kubeconfig FILE",
	} {
		_, errs, code := run(t, append(strings.Fields(args), kubeconfigOf(t, args)...)...)
		if code != ExitUsage && !strings.Contains(args, "--prefix x") || !strings.Contains(errs, says) {
			t.Errorf("seaway %s: exit code %d, %s\nwant it to say %q", args, code, errs, says)
		}
	}
}

// kubeconfigOf keeps tests away from the developer's own clusters.
func kubeconfigOf(t *testing.T, args string) []string {
	if strings.Contains(args, "--kubeconfig") {
		return nil
	}
	file := filepath.Join(t.TempDir(), "kubeconfig")
	// Port 1 of the loopback: nobody listens there.
	text := "apiVersion: v1\nkind: Config\nclusters: [{name: c, cluster: {server: 'https://127.0.0.1:1'}}]\n" +
		"contexts: [{name: c, context: {cluster: c, user: u}}]\nusers: [{name: u, user: {token: x}}]\ncurrent-context: c\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{"--kubeconfig", file}
}

func TestAnUnreachableClusterIsSaidSo(t *testing.T) {
	for _, args := range []string{"status", "slice list", "cluster list", "token list", "export web -n pay", "leave", "uninstall hub", "install hub",
		"explain slice pay", "explain pod shop/web-0", "explain path n1 tokyo/n1"} {
		_, errs, code := run(t, append(strings.Fields(args), kubeconfigOf(t, args)...)...)
		if code != ExitUnreachable || !strings.Contains(errs, "next: ") {
			t.Errorf("seaway %s: exit code %d, %s", args, code, errs)
		}
	}
}

func TestEveryVerbHelps(t *testing.T) {
	c := &cli{Config: Config{Out: &bytes.Buffer{}, Err: &bytes.Buffer{}}}
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		if cmd.Short == "" {
			t.Errorf("%s has no help", cmd.CommandPath())
		}
		if cmd.Runnable() && cmd.Example == "" && cmd.Name() != "version" {
			t.Errorf("%s has no example", cmd.CommandPath())
		}
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	walk(c.root())
}

// TestPlugin: called by kubectl, the usage says what people type.
func TestPlugin(t *testing.T) {
	var o, e bytes.Buffer
	for _, args := range [][]string{{"status", "--help"}, {"slice", "create", "--help"}} {
		Run(t.Context(), Config{Name: "kubectl seaway", Out: &o, Err: &e}, args)
	}
	for _, want := range []string{"\n  kubectl seaway status [flags]\n", "\n  kubectl seaway slice create NAME [flags]\n"} {
		if !strings.Contains(o.String(), want) {
			t.Errorf("%q is not in\n%s%s", want, o.String(), e.String())
		}
	}
}

func TestDryRunsPrintWhatKubectlTakes(t *testing.T) {
	for args, has := range map[string]string{
		"install hub --dry-run --image example/seaway:1":                                           "image: example/seaway:1",
		"slice create pay --dry-run -n pay -n shop --prefix 10.0.0.0/8,fd00::/48 --clusters paris": "- fd00::/48",
		"slice create pay --dry-run --selector team=blue":                                          "team: blue",
		"slice create pay --dry-run":                                                               DefaultPrefix,
	} {
		out, errs, code := run(t, strings.Fields(args)...)
		if code != ExitOK || !strings.Contains(out, has) || !strings.HasPrefix(out, "---\n") {
			t.Errorf("seaway %s: exit code %d\n%s%s", args, code, out, errs)
		}
	}
}

func TestChangingASliceKeepsTheRest(t *testing.T) {
	have := &v1alpha1.Slice{Spec: v1alpha1.SliceSpec{Prefixes: []v1alpha1.CIDR{"10.9.0.0/16"}, Clusters: []string{"paris"},
		Namespaces: v1alpha1.Namespaces{Names: []string{"pay"}}}}
	got, err := sliceOptions{namespaces: []string{"shop"}}.build("pay", have)
	if err != nil {
		t.Fatal(err)
	}
	if s := got.Spec; s.Prefixes[0] != "10.9.0.0/16" || s.Clusters[0] != "paris" || len(s.Namespaces.Names) != 1 || s.Namespaces.Names[0] != "shop" {
		t.Errorf("got %+v", s)
	}
}

func TestExplain(t *testing.T) {
	gr := schema.GroupResource{Resource: "slices"}
	for _, c := range []struct {
		err  error
		code int
		next string
	}{
		{fmt.Errorf("list: %w", apierrors.NewForbidden(gr, "pay", errors.New("no"))), ExitRefused, "cluster-admin"},
		{apierrors.NewUnauthorized("no"), ExitRefused, "--context"},
		{&net.OpError{Op: "dial", Err: errors.New("refused")}, ExitUnreachable, "--kubeconfig"},
		{&join.Refusal{Reason: "TokenUsed", Message: "used", Next: "make a new one"}, ExitRefused, "make a new one"},
		{fmt.Errorf("join: %w", context.Canceled), ExitFailed, "again"},
		{fail(ExitPartial, "left: %w", errors.New("x")).then("do %d", 1), ExitPartial, "do 1"},
		{fmt.Errorf("outer: %w", fail(ExitRefused, "inner").then("mend")), ExitRefused, "mend"},
		{errors.New("something"), ExitFailed, ""},
	} {
		f := explain(c.err)
		if f.code != c.code || !strings.Contains(f.next, c.next) || f.text == "" {
			t.Errorf("%v: got %d, %q, next %q", c.err, f.code, f.text, f.next)
		}
	}
}

func TestProgressShowsLongSteps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		p := &progress{out: &b}
		_ = p.step("quick", func(func(string)) (string, error) { return "done it", nil })
		err := p.step("slow", func(say func(string)) (string, error) {
			say("3 of 5 pods")
			time.Sleep(25 * time.Second)
			return "", errors.New("no")
		})
		if err == nil {
			t.Error("the error was lost")
		}
		want := "ok quick: done it (0s)\n  slow … 2s  3 of 5 pods\n  slow … 10s  3 of 5 pods\n  slow … 20s  3 of 5 pods\nfailed slow (25s)\n"
		if b.String() != want {
			t.Errorf("got\n%swant\n%s", b.String(), want)
		}
	})
}

func TestPollStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		err := poll(t.Context(), 10*time.Second, time.Second, func() (bool, error) { return false, nil })
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 10*time.Second {
			t.Errorf("%v after %s", err, time.Since(start))
		}
		n := 0
		if err := poll(t.Context(), time.Minute, time.Second, func() (bool, error) { n++; return n == 3, nil }); err != nil || n != 3 {
			t.Errorf("%v after %d", err, n)
		}
	})
}
