package hub

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"seaway.dev/seaway/api/v1alpha1"
	"seaway.dev/seaway/hub/credential"
	"seaway.dev/seaway/hub/join"
	"seaway.dev/seaway/hub/place"
)

// fetchFor is how long a member has to fetch the answer before it is removed with the token.
const fetchFor = 60 * time.Second

// joins answers the claims of join tokens, once each.
type joins struct {
	client client.Client
	tokens kubernetes.Interface // to mint, which the cached client cannot
	log    *slog.Logger
}

func (j *joins) add(mgr ctrl.Manager) error {
	here := predicate.NewPredicateFuncs(func(o client.Object) bool {
		return o.GetNamespace() == place.Joins && o.GetLabels()[place.LabelComponent] == "join"
	})
	return ctrl.NewControllerManagedBy(mgr).Named("joins").For(&corev1.ConfigMap{}).WithEventFilter(here).Complete(j)
}

// Reconcile implements reconcile.Reconciler for one join token's ConfigMap.
func (j *joins) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	var cm corev1.ConfigMap
	if err := j.client.Get(ctx, req.NamespacedName, &cm); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	var sa corev1.ServiceAccount
	if err := j.client.Get(ctx, req.NamespacedName, &sa); apierrors.IsNotFound(err) {
		return ctrl.Result{}, j.remove(ctx, req.Name) // revoked, or half removed
	} else if err != nil {
		return ctrl.Result{}, err
	}
	record := join.Record{ConfigMap: &cm}
	if record.Data == nil {
		record.Data = map[string]string{}
	}
	expires, err := time.Parse(time.RFC3339, sa.Annotations[place.AnnotationExpires])
	if err != nil {
		return ctrl.Result{}, j.remove(ctx, req.Name) // not a token of ours
	}
	claimed := sa.Annotations[place.AnnotationClaimed]
	if claimed == "" && !time.Now().Before(expires) {
		j.log.Info("join token expired unused", "cluster", sa.Labels[place.LabelCluster], "id", req.Name)
		return ctrl.Result{}, j.remove(ctx, req.Name)
	}
	if claimed == "" && (record.Claimed() == "" || record.Refused()) {
		return ctrl.Result{RequeueAfter: time.Until(expires)}, nil
	}
	if claimed == "" {
		return j.take(ctx, &sa, record)
	}
	return j.answer(ctx, &sa, record, claimed)
}

// take remembers the first claimant where no bearer of the token can change it.
func (j *joins) take(ctx context.Context, sa *corev1.ServiceAccount, record join.Record) (ctrl.Result, error) {
	claim, err := join.ParseClaim(record.Claimed())
	if err != nil {
		return j.refuse(ctx, sa, record, join.Refusal{Reason: "ClaimInvalid", Message: err.Error(),
			Next: "use the same version of seaway on the hub and on the member, then join again; the token is still good"})
	}
	sa = sa.DeepCopy()
	sa.Annotations[place.AnnotationClaimed] = claim.Key.String()
	sa.Annotations[place.AnnotationAt] = time.Now().UTC().Format(time.RFC3339)
	if err := j.client.Update(ctx, sa); err != nil { // fails if someone was faster: then we look again
		return ctrl.Result{}, fmt.Errorf("take the claim of join token %s: %w", sa.Name, err)
	}
	return j.answer(ctx, sa, record, claim.Key.String())
}

// answer gives the first claimant its credential, or removes the token when that is done.
func (j *joins) answer(ctx context.Context, sa *corev1.ServiceAccount, record join.Record, claimed string) (ctrl.Result, error) {
	at, _ := time.Parse(time.RFC3339, sa.Annotations[place.AnnotationAt])
	left := time.Until(at.Add(fetchFor))
	if record.Fetched() && record.Answered() || left <= 0 {
		return ctrl.Result{}, j.remove(ctx, sa.Name)
	}
	if record.Answered() {
		return ctrl.Result{RequeueAfter: left}, nil
	}
	claim, err := join.ParseClaim(record.Claimed())
	if err != nil || claim.Key.String() != claimed {
		return ctrl.Result{RequeueAfter: left}, nil // a second claimant wrote over the first: nobody gets an answer
	}
	grant, no, err := j.admit(ctx, sa, claim)
	if err != nil {
		return ctrl.Result{}, err
	}
	if no != nil {
		return j.refuse(ctx, sa, record, *no)
	}
	sealed, err := join.Seal(*grant, claim.Key)
	if err != nil {
		return ctrl.Result{}, err
	}
	record.Answer(sealed)
	if err := j.client.Update(ctx, record.ConfigMap); err != nil {
		return ctrl.Result{}, fmt.Errorf("answer join token %s: %w", sa.Name, err)
	}
	j.log.Info("cluster joined", "cluster", grant.Cluster, "uid", claim.UID)
	return ctrl.Result{RequeueAfter: left}, nil
}

// refuse says no. The token stays good: whoever holds it may correct what was wrong and claim again until it expires.
// That the claimant got nothing is known here and not read from the record, which the token's bearer can write.
func (j *joins) refuse(ctx context.Context, sa *corev1.ServiceAccount, record join.Record, no join.Refusal) (ctrl.Result, error) {
	if sa.Annotations[place.AnnotationClaimed] != "" {
		sa = sa.DeepCopy()
		delete(sa.Annotations, place.AnnotationClaimed)
		delete(sa.Annotations, place.AnnotationAt)
		if err := j.client.Update(ctx, sa); err != nil {
			return ctrl.Result{}, fmt.Errorf("forget the claim of join token %s: %w", sa.Name, err)
		}
	}
	if err := record.Refuse(no); err != nil {
		return ctrl.Result{}, err
	}
	if err := j.client.Update(ctx, record.ConfigMap); err != nil { // fails if another claim was written meanwhile
		return ctrl.Result{}, fmt.Errorf("refuse join token %s: %w", record.Name, err)
	}
	j.log.Info("join refused", "id", record.Name, "reason", no.Reason)
	return ctrl.Result{}, nil // the update calls this loop again, which waits for another claim
}

// admit makes the member's Cluster, mailbox and accounts, or says why not. Doing it again changes nothing.
func (j *joins) admit(ctx context.Context, sa *corev1.ServiceAccount, claim join.Claim) (*join.Grant, *join.Refusal, error) {
	name := sa.Labels[place.LabelCluster]
	var all v1alpha1.ClusterList
	if err := j.client.List(ctx, &all); err != nil {
		return nil, nil, err
	}
	if no := objection(name, claim.UID, all.Items); no != nil {
		return nil, no, nil
	}
	if err := j.ensure(ctx, name, sa, claim); apierrors.IsInvalid(err) {
		return nil, &join.Refusal{Reason: "ClaimInvalid", Message: err.Error(), Next: "join with other options; the token is still good"}, nil
	} else if err != nil {
		return nil, nil, err
	}
	if err := settle(ctx, j.client, name); err != nil {
		return nil, nil, err
	}
	access, err := credential.Issue(ctx, j.tokens, name, false)
	if err != nil {
		return nil, nil, err
	}
	renewal, err := credential.Issue(ctx, j.tokens, name, true)
	if err != nil {
		return nil, nil, err
	}
	return &join.Grant{Cluster: name, Access: access, Renewal: renewal}, nil, nil
}

// settle makes what a member needs on the hub besides its Cluster, where it is missing.
func settle(ctx context.Context, c client.Client, cluster string) error {
	for _, o := range place.ForMember(cluster) {
		if err := c.Create(ctx, o); err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("make %T %s/%s for cluster %s: %w", o, o.GetNamespace(), o.GetName(), cluster, err)
		}
	}
	return nil
}

// objection says why a cluster with this UID cannot join under this name; nil if it can.
func objection(name, uid string, all []v1alpha1.Cluster) *join.Refusal {
	if err := place.CheckCluster(name); err != nil {
		return &join.Refusal{Reason: "ClusterNameInvalid", Message: err.Error(), Next: "make a token for another name"}
	}
	for _, c := range all {
		has := c.Annotations[place.AnnotationUID]
		switch {
		case c.Name == name && c.DeletionTimestamp != nil:
			return &join.Refusal{Reason: "ClusterLeaving", Message: fmt.Sprintf("cluster %s is still being removed from the fleet", name),
				Next: fmt.Sprintf("wait until `kubectl get clusters.seaway.dev %s` on the hub finds nothing, then join again; the token is still good", name)}
		case c.Name == name && has != "" && has != uid:
			return &join.Refusal{Reason: "ClusterNameTaken", Message: fmt.Sprintf("another cluster has already joined as %s", name),
				Next: fmt.Sprintf("make a token for another name; or, if that cluster is gone or was made anew, `seaway cluster delete %s` on the hub first", name)}
		case c.Name != name && has == uid:
			return &join.Refusal{Reason: "ClusterAlreadyMember", Message: fmt.Sprintf("this cluster is already in the fleet, as %s", c.Name),
				Next: fmt.Sprintf("run `seaway leave` here first, then join again; or make a token for %s", c.Name)}
		}
	}
	return nil
}

// ensure makes the Cluster, or marks the one that is there as this member's.
func (j *joins) ensure(ctx context.Context, name string, sa *corev1.ServiceAccount, claim join.Claim) error {
	var c v1alpha1.Cluster
	err := j.client.Get(ctx, client.ObjectKey{Name: name}, &c)
	if err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	if apierrors.IsNotFound(err) {
		c = v1alpha1.Cluster{
			ObjectMeta: metav1.ObjectMeta{Name: name, Labels: place.Labels("member", name), Finalizers: []string{place.Finalizer},
				Annotations: map[string]string{place.AnnotationUID: claim.UID}},
			Spec: spec(sa.Annotations, claim.Wish),
		}
		if err := j.client.Create(ctx, &c); err != nil {
			return fmt.Errorf("make cluster %s: %w", name, err)
		}
		return nil
	}
	// The cluster is known: what people wrote into its spec stays.
	before := c.DeepCopy()
	if c.Annotations == nil {
		c.Annotations = map[string]string{}
	}
	c.Annotations[place.AnnotationUID] = claim.UID
	if len(c.Finalizers) == 0 {
		c.Finalizers = []string{place.Finalizer}
	}
	if err := j.client.Patch(ctx, &c, client.MergeFrom(before)); err != nil {
		return fmt.Errorf("mark cluster %s as joined: %w", name, err)
	}
	return nil
}

// spec is what a new Cluster begins with: what the token says, and where that is silent what the cluster wishes.
func spec(said map[string]string, w join.Wish) v1alpha1.ClusterSpec {
	or := func(a, b string) string {
		if a != "" {
			return a
		}
		return b
	}
	private, _ := strconv.ParseBool(said[place.AnnotationPrivate])
	return v1alpha1.ClusterSpec{
		Private:  private || w.Private,
		Region:   or(said[place.AnnotationRegion], w.Region),
		Provider: or(said[place.AnnotationProvider], w.Provider),
		Gateways: v1alpha1.Gateways{Count: w.Gateways, Selector: w.Selector},
	}
}

// remove ends a token: its account (and with it the right of whoever holds it) first.
func (j *joins) remove(ctx context.Context, id string) error {
	sa := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: place.Joins, Name: id}}
	objects := append([]client.Object{sa}, place.ForJoin(id, "")...)
	// The ConfigMap goes last, because it is what this loop is called for.
	objects = append(objects[:1:1], append(objects[2:], objects[1])...)
	for _, o := range objects {
		if err := j.client.Delete(ctx, o); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("remove join token %s: %w", id, err)
		}
	}
	return nil
}
