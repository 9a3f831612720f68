package install

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"seaway.dev/seaway/hub/place"
	"seaway.dev/seaway/kube"
)

var update = flag.Bool("update", false, "write the golden files anew")

func all() map[string][]client.Object {
	m := Member(MemberOptions{Cluster: "paris", Image: "example/seaway:1"})
	for _, d := range MCS() {
		m = append(m, d)
	}
	return map[string][]client.Object{"hub": Hub(HubOptions{Image: "example/seaway:1"}), "member": m}
}

// TestGolden shows every change of what is installed to whoever reviews it. Definitions are left out: they are
// generated, or a standard's.
func TestGolden(t *testing.T) {
	for name, objs := range all() {
		var few []client.Object
		for _, o := range objs {
			if o.GetObjectKind().GroupVersionKind().Kind != "CustomResourceDefinition" {
				few = append(few, o)
			}
		}
		got, err := YAML(few)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join("testdata", name+".yaml")
		if *update {
			if err := os.WriteFile(file, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s differs from what is installed (%v): look at it, then go test ./install -update", file, err)
		}
	}
}

func TestObjectsAreWhole(t *testing.T) {
	for name, objs := range all() {
		seen := map[string]bool{}
		namespaces := map[string]bool{}
		for _, o := range objs {
			gvk := o.GetObjectKind().GroupVersionKind()
			if gvk.Kind == "" || gvk.Version == "" {
				t.Errorf("%s: %T %s has no kind", name, o, o.GetName())
			}
			if o.GetLabels()[place.LabelPartOf] != "seaway" || o.GetLabels()[place.LabelComponent] == "" {
				t.Errorf("%s: %s would not be found when it is removed: %v", name, nameOf(o), o.GetLabels())
			}
			if seen[nameOf(o)] {
				t.Errorf("%s: %s twice", name, nameOf(o))
			}
			seen[nameOf(o)] = true
			if gvk.Kind == "Namespace" {
				namespaces[o.GetName()] = true
			} else if ns := o.GetNamespace(); ns != "" && !namespaces[ns] {
				t.Errorf("%s: %s comes before its namespace", name, nameOf(o))
			}
		}
	}
}

func TestNobodyMayDoEverything(t *testing.T) {
	for name, objs := range all() {
		for _, o := range objs {
			var rules []rbacv1.PolicyRule
			switch r := o.(type) {
			case *rbacv1.ClusterRole:
				rules = r.Rules
			case *rbacv1.Role:
				rules = r.Rules
			}
			for _, r := range rules {
				for _, v := range append(append(append([]string{}, r.Verbs...), r.Resources...), r.APIGroups...) {
					if v == "*" || v == "escalate" || v == "impersonate" {
						t.Errorf("%s: %s grants %s", name, nameOf(o), v)
					}
				}
				for _, res := range r.Resources {
					if _, cluster := o.(*rbacv1.ClusterRole); cluster && (strings.HasPrefix(res, "secrets") || strings.HasPrefix(res, "serviceaccounts")) {
						t.Errorf("%s: %s grants %s in all namespaces", name, nameOf(o), res)
					}
				}
			}
		}
	}
}

func newClient(t *testing.T, fail func(o client.Object) error, objs ...client.Object) client.Client {
	t.Helper()
	return fake.NewClientBuilder().WithScheme(kube.Scheme()).WithObjects(objs...).WithInterceptorFuncs(interceptor.Funcs{
		Patch: func(ctx context.Context, c client.WithWatch, o client.Object, p client.Patch, opts ...client.PatchOption) error {
			if err := fail(o); err != nil {
				return err
			}
			return c.Patch(ctx, o, p, opts...)
		},
	}).Build()
}

func never(client.Object) error { return nil }

func TestApplyAgainChangesNothing(t *testing.T) {
	for name, objs := range all() {
		c := newClient(t, never)
		for round, want := range []string{"created", "unchanged"} {
			done, err := Apply(t.Context(), c, objs, nil)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			for _, ch := range done {
				if ch.Did != want {
					t.Errorf("%s, round %d: %s was %s, want %s", name, round, ch.Name(), ch.Did, want)
				}
			}
		}
	}
}

// TestUndo breaks an installation at each of its objects and finds the cluster as it was.
func TestUndo(t *testing.T) {
	before := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: Namespace, Name: Settings, Labels: place.Labels(ComponentMember, "")},
		Data: map[string]string{"cluster": "old", "mine": "stays"}}
	objs := Member(MemberOptions{Cluster: "paris", Image: "example/seaway:1"})
	for i, broken := range objs {
		c := newClient(t, func(o client.Object) error {
			if nameOf(o) == nameOf(broken) {
				return errors.New("no room")
			}
			return nil
		}, before.DeepCopy())
		done, err := Apply(t.Context(), c, objs, nil)
		if err == nil || !strings.Contains(err.Error(), nameOf(broken)) || len(done) != i {
			t.Fatalf("broken at %s: %v, %d done", nameOf(broken), err, len(done))
		}
		if err := Undo(t.Context(), c, done); err != nil {
			t.Fatal(err)
		}
		for _, o := range objs {
			if nameOf(o) == "ConfigMap "+Namespace+"/"+Settings {
				continue
			}
			got := o.DeepCopyObject().(client.Object)
			if err := c.Get(t.Context(), client.ObjectKeyFromObject(o), got); client.IgnoreNotFound(err) != nil || err == nil {
				t.Errorf("broken at %s: %s is still there (%v)", nameOf(broken), nameOf(o), err)
			}
		}
		var cm corev1.ConfigMap
		if err := c.Get(t.Context(), client.ObjectKeyFromObject(before), &cm); err != nil || cm.Data["cluster"] != "old" || cm.Data["mine"] != "stays" {
			t.Errorf("broken at %s: the settings are now %v (%v)", nameOf(broken), cm.Data, err)
		}
	}
}

// TestLeavingSparesTheHub: on a cluster that is hub and member, leaving takes nothing that the hub keeps for its members.
func TestLeavingSparesTheHub(t *testing.T) {
	sel := ofMember()
	for _, c := range []struct {
		what   string
		labels map[string]string
		goes   bool
	}{
		{"an account that the hub made for a member", place.Labels("member", "c1"), false},
		{"an object of the hub", place.Labels(ComponentHub, ""), false},
		{"an object of the member", place.Labels(ComponentMember, ""), true},
		{"an object that the controller made", map[string]string{place.LabelPartOf: "seaway"}, true},
	} {
		if got := sel.Matches(labels.Set(c.labels)); got != c.goes {
			t.Errorf("leaving removes %s: %v, want %v", c.what, got, c.goes)
		}
	}
}
