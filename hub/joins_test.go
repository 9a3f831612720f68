package hub

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	kubefake "k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"seaway.dev/seaway/api/v1alpha1"
	"seaway.dev/seaway/hub/credential"
	"seaway.dev/seaway/hub/join"
	"seaway.dev/seaway/hub/place"
	"seaway.dev/seaway/hub/token"
)

func leaseOf(ctx context.Context, t *testing.T, c client.Client, cluster string) *coordinationv1.Lease {
	t.Helper()
	var l coordinationv1.Lease
	if err := c.Get(ctx, client.ObjectKey{Namespace: place.Mailbox(cluster), Name: place.Alive}, &l); err != nil {
		t.Fatal(err)
	}
	return &l
}

// issue makes a join token on the rig's hub, as `seaway token create` does.
func (r *rig) issue(id, cluster string, ttl time.Duration) token.Token {
	r.t.Helper()
	expires := time.Now().Add(ttl)
	r.must(r.Create(r.t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: place.Joins, Name: id, Labels: place.Labels("join", cluster),
		Annotations: map[string]string{place.AnnotationExpires: expires.Format(time.RFC3339), place.AnnotationRegion: "eu", place.AnnotationPrivate: "true"}}}))
	for _, o := range place.ForJoin(id, cluster) {
		r.must(r.Create(r.t.Context(), o))
	}
	return token.Token{Server: "https://hub", ID: id, Cluster: cluster, Bearer: "x", Expires: expires}
}

// member is the API server as the bearer of a join token sees it: the rig's, through ConfigMaps alone. After each
// write the hub looks.
func (r *rig) member() kubernetes.Interface {
	k := kubefake.NewClientset()
	k.PrependReactor("get", "configmaps", func(a clienttesting.Action) (bool, runtime.Object, error) {
		var cm corev1.ConfigMap
		err := r.Get(r.t.Context(), client.ObjectKey{Namespace: a.GetNamespace(), Name: a.(clienttesting.GetAction).GetName()}, &cm)
		return true, &cm, err
	})
	k.PrependReactor("update", "configmaps", func(a clienttesting.Action) (bool, runtime.Object, error) {
		cm := a.(clienttesting.UpdateAction).GetObject().(*corev1.ConfigMap).DeepCopy()
		if r.mute && cm.Data["fetched"] != "" {
			return true, nil, errors.New("the connection broke")
		}
		err := r.Update(r.t.Context(), cm)
		return true, cm, err
	})
	return k
}

func (r *rig) reconcileJoin(id string) {
	r.t.Helper()
	if _, err := r.joins.Reconcile(r.t.Context(), ctrl.Request{NamespacedName: client.ObjectKey{Namespace: place.Joins, Name: id}}); err != nil {
		r.t.Error(err)
	}
}

// redeem runs both ends of a join.
func (r *rig) redeem(tok token.Token, uid string, w join.Wish) (credential.Credential, error) {
	ctx, stop := context.WithCancel(r.t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				_, _ = r.joins.Reconcile(ctx, ctrl.Request{NamespacedName: client.ObjectKey{Namespace: place.Joins, Name: tok.ID}})
			}
		}
	})
	cred, err := join.Redeem(r.t.Context(), r.member(), tok, uid, w)
	stop()
	wg.Wait()
	return cred, err
}

const uid = "0e0c8bd4-7b6e-4c1b-9b3e-0f6a3e6b1c11"

func TestJoin(t *testing.T) {
	r := newRig(t)
	tok := r.issue("abcdef", "paris", time.Hour)
	cred, err := r.redeem(tok, uid, join.Wish{Provider: "gcp", Region: "wished"})
	if err != nil {
		t.Fatal(err)
	}
	if cred.Cluster != "paris" || cred.Server != "https://hub" || cred.Access.Text != "token-of-seaway-members/paris" ||
		cred.Renewal.Text != "token-of-seaway-renewal/paris" || cred.Access.Life != credential.AccessLife || cred.Renewal.Life != credential.RenewalLife {
		t.Errorf("credential: %+v", cred)
	}
	c := r.cluster("paris")
	if c.Spec.Region != "eu" || c.Spec.Provider != "gcp" || !c.Spec.Private || c.Annotations[place.AnnotationUID] != uid {
		t.Errorf("cluster: %+v %v", c.Spec, c.Annotations)
	}
	for _, o := range place.ForMember("paris") {
		if err := r.Get(t.Context(), client.ObjectKeyFromObject(o), o); err != nil {
			t.Errorf("%T: %v", o, err)
		}
	}
	// It was fetched, so the token goes.
	r.reconcileJoin("abcdef")
	r.absent(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: place.Joins, Name: "abcdef"}})
	for _, o := range place.ForJoin("abcdef", "") {
		r.absent(t.Context(), o)
	}
	_, err = join.Redeem(t.Context(), r.member(), tok, uid, join.Wish{})
	var no *join.Refusal
	if !errors.As(err, &no) || no.Reason != "TokenInvalid" || !strings.Contains(no.Next, "seaway token create paris") {
		t.Errorf("used again: %v", err)
	}
}

func TestJoinIsSealedToTheFirstClaimant(t *testing.T) {
	r := newRig(t)
	r.mute = true // so that the token stays for its last minute
	tok := r.issue("abcdef", "paris", time.Hour)
	cred, err := r.redeem(tok, uid, join.Wish{})
	if err != nil {
		t.Fatal(err)
	}
	var cm corev1.ConfigMap
	r.must(r.Get(t.Context(), client.ObjectKey{Namespace: place.Joins, Name: "abcdef"}, &cm))
	for k, v := range cm.Data {
		if strings.Contains(v, string(cred.Access.Text)) {
			t.Errorf("the credential stands in clear under %q", k)
		}
	}
	// Before the token is gone another bearer comes: it is told so, and gets nothing.
	_, err = join.Redeem(t.Context(), r.member(), tok, "another-cluster-uid", join.Wish{})
	var no *join.Refusal
	if !errors.As(err, &no) || no.Reason != "TokenUsed" {
		t.Errorf("second claimant: %v", err)
	}
	// A wicked one writes over the first claim: no second answer is made, and the first claimant stays the member.
	cm.Data = map[string]string{"claim": `{"version":1,"key":"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=","uid":"` + uid + `"}`}
	r.must(r.Update(t.Context(), &cm))
	r.reconcileJoin("abcdef")
	r.must(r.Get(t.Context(), client.ObjectKeyFromObject(&cm), &cm))
	if cm.Data["answer"] != "" || cm.Data["refusal"] != "" {
		t.Errorf("a second claimant was answered: %v", cm.Data)
	}
	if got := r.cluster("paris").Annotations[place.AnnotationUID]; got != uid {
		t.Errorf("the cluster is now %s", got)
	}
}

func TestTwoRaceWithOneToken(t *testing.T) {
	for range 5 {
		r := newRig(t)
		tok := r.issue("abcdef", "paris", time.Hour)
		var wg sync.WaitGroup
		errs := make([]error, 4)
		for i := range errs {
			wg.Go(func() { _, errs[i] = r.redeem(tok, uid, join.Wish{}) })
		}
		wg.Wait()
		won := 0
		for _, err := range errs {
			var no *join.Refusal
			switch {
			case err == nil:
				won++
			case !errors.As(err, &no):
				t.Errorf("a loser was told %v", err)
			}
		}
		if won != 1 {
			t.Fatalf("%d of %d won: %v", won, len(errs), errs)
		}
	}
}

func TestJoinRefusals(t *testing.T) {
	there := func(name, uid string) *v1alpha1.Cluster {
		return &v1alpha1.Cluster{ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{place.AnnotationUID: uid}}}
	}
	for name, c := range map[string]struct {
		have   *v1alpha1.Cluster
		reason string
	}{
		"the name is another's":      {there("paris", "another-cluster-uid"), "ClusterNameTaken"},
		"already under another name": {there("tokyo", uid), "ClusterAlreadyMember"},
		"the same again":             {there("paris", uid), ""},
		"made by hand before":        {&v1alpha1.Cluster{ObjectMeta: metav1.ObjectMeta{Name: "paris"}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, c.have)
			_, err := r.redeem(r.issue("abcdef", "paris", time.Hour), uid, join.Wish{})
			var no *join.Refusal
			errors.As(err, &no)
			switch {
			case c.reason == "" && err != nil:
				t.Error(err)
			case c.reason != "" && (no == nil || no.Reason != c.reason || no.Next == ""):
				t.Errorf("got %v, want %s", err, c.reason)
			}
			if c.reason != "" {
				r.absent(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: place.Mailbox("paris")}})
			}
		})
	}
}

// TestRefusedTokensStayGood: what was wrong is mended, and the same token joins; a refusal that the token's bearer wrote
// itself opens nothing.
func TestRefusedTokensStayGood(t *testing.T) {
	other := &v1alpha1.Cluster{ObjectMeta: metav1.ObjectMeta{Name: "tokyo", Annotations: map[string]string{place.AnnotationUID: uid}}}
	r := newRig(t, other)
	r.mute = true // so that the token stays for its last minute
	tok := r.issue("abcdef", "paris", time.Hour)
	_, err := r.redeem(tok, uid, join.Wish{})
	var no *join.Refusal
	if !errors.As(err, &no) || no.Reason != "ClusterAlreadyMember" {
		t.Fatalf("first: %v", err)
	}
	r.reconcileJoin("abcdef") // again and again changes nothing
	r.must(r.Delete(t.Context(), other))
	if _, err := r.redeem(tok, uid, join.Wish{}); err != nil {
		t.Fatalf("second: %v", err)
	}
	// A thief of the token takes the claim for refused, and claims.
	var cm corev1.ConfigMap
	key := client.ObjectKey{Namespace: place.Joins, Name: "abcdef"}
	r.must(r.Get(t.Context(), key, &cm))
	cm.Data = map[string]string{"claim": "x", "refusal": "{}"}
	r.must(r.Update(t.Context(), &cm))
	r.reconcileJoin("abcdef")
	cm.Data = map[string]string{"claim": `{"version":1,"key":"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=","uid":"` + uid + `"}`}
	r.must(r.Get(t.Context(), key, &corev1.ConfigMap{}))
	r.must(r.Update(t.Context(), &cm))
	r.reconcileJoin("abcdef")
	r.must(r.Get(t.Context(), key, &cm))
	if cm.Data["answer"] != "" {
		t.Error("a thief was let in")
	}
}

func TestExpiredTokensGo(t *testing.T) {
	r := newRig(t)
	r.issue("abcdef", "paris", -time.Second)
	r.reconcileJoin("abcdef")
	r.absent(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: place.Joins, Name: "abcdef"}})
	r.absent(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: place.Joins, Name: "abcdef"}})
}

func TestRevokedTokensLeaveNothing(t *testing.T) {
	r := newRig(t)
	r.issue("abcdef", "paris", time.Hour)
	r.must(r.Delete(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: place.Joins, Name: "abcdef"}}))
	r.reconcileJoin("abcdef")
	for _, o := range place.ForJoin("abcdef", "") {
		r.absent(t.Context(), o)
	}
}

func TestGarbageClaimIsRefused(t *testing.T) {
	r := newRig(t)
	r.issue("abcdef", "paris", time.Hour)
	var cm corev1.ConfigMap
	key := client.ObjectKey{Namespace: place.Joins, Name: "abcdef"}
	r.must(r.Get(t.Context(), key, &cm))
	cm.Data = map[string]string{"claim": strings.Repeat("x", 9000)}
	r.must(r.Update(t.Context(), &cm))
	r.reconcileJoin("abcdef")
	r.must(r.Get(t.Context(), key, &cm))
	if !strings.Contains(cm.Data["refusal"], "ClaimInvalid") {
		t.Errorf("got %v", cm.Data)
	}
	var list v1alpha1.ClusterList
	r.must(r.List(t.Context(), &list))
	if len(list.Items) != 0 {
		t.Error("a cluster was made")
	}
}
