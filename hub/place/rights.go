package place

import (
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Authorities is the ConfigMap in which Kubernetes publishes, in each namespace, from which authorities its API server's
// certificate may be (kube-controller-manager's root-ca-certificate-publisher).
const Authorities = "kube-root-ca.crt"

// ClusterRoles on the hub that `seaway install hub` makes.
const (
	RoleHub    = "seaway-hub"           // the hub itself
	RoleMember = "seaway-member"        // every member: reads the fleet
	RoleOwner  = "seaway-mailbox-owner" // bound in a mailbox to the member that it belongs to
)

// MemberRules are the rights of every member on the whole hub. A list or watch of bulletins and leases must name them
// by field selector (metadata.name=bulletin), because of the resource names here: that is how one watch hears all
// mailboxes and no other ConfigMap is ever seen.
func MemberRules() []rbacv1.PolicyRule {
	read := []string{"get", "list", "watch"}
	return []rbacv1.PolicyRule{
		{APIGroups: []string{"seaway.dev"}, Resources: []string{"clusters", "slices"}, Verbs: read},
		{APIGroups: []string{""}, Resources: []string{"configmaps"}, ResourceNames: []string{Bulletin}, Verbs: read},
		{APIGroups: []string{"coordination.k8s.io"}, Resources: []string{"leases"}, ResourceNames: []string{Alive}, Verbs: read},
	}
}

// OwnerRules are the rights of a member in its own mailbox, besides [MemberRules]. It cannot create or delete: the hub
// makes both objects.
func OwnerRules() []rbacv1.PolicyRule {
	write := []string{"update", "patch"}
	return []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"configmaps"}, ResourceNames: []string{Bulletin}, Verbs: write},
		{APIGroups: []string{""}, Resources: []string{"configmaps"}, ResourceNames: []string{Authorities}, Verbs: []string{"get"}},
		{APIGroups: []string{"coordination.k8s.io"}, Resources: []string{"leases"}, ResourceNames: []string{Alive}, Verbs: write},
	}
}

// ForMember lists everything that the hub makes for a member besides its Cluster, in the order of making.
func ForMember(cluster string) []client.Object {
	meta := func(ns, name string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Namespace: ns, Name: name, Labels: Labels("member", cluster)}
	}
	access := account(Members, cluster)
	renewal := account(Renewal, cluster)
	mint := func(ns string) *rbacv1.Role {
		return &rbacv1.Role{ObjectMeta: meta(ns, cluster), Rules: []rbacv1.PolicyRule{{
			APIGroups: []string{""}, Resources: []string{"serviceaccounts/token"}, ResourceNames: []string{cluster}, Verbs: []string{"create"},
		}}}
	}
	bind := func(ns, kind, role string, to rbacv1.Subject) *rbacv1.RoleBinding {
		return &rbacv1.RoleBinding{ObjectMeta: meta(ns, cluster), Subjects: []rbacv1.Subject{to},
			RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: kind, Name: role}}
	}
	no := false
	return []client.Object{
		&corev1.Namespace{ObjectMeta: meta("", Mailbox(cluster))},
		&corev1.ConfigMap{ObjectMeta: meta(Mailbox(cluster), Bulletin)},
		&coordinationv1.Lease{ObjectMeta: meta(Mailbox(cluster), Alive)},
		&corev1.ServiceAccount{ObjectMeta: meta(Members, cluster), AutomountServiceAccountToken: &no},
		&corev1.ServiceAccount{ObjectMeta: meta(Renewal, cluster), AutomountServiceAccountToken: &no},
		mint(Members), mint(Renewal),
		bind(Members, "Role", cluster, renewal),
		bind(Renewal, "Role", cluster, renewal),
		bind(Mailbox(cluster), "ClusterRole", RoleOwner, access),
	}
}

// ForJoin lists the ConfigMap of a join token and the rights of its ServiceAccount to it. The account itself is made
// first, and owns them.
func ForJoin(id, cluster string) []client.Object {
	meta := metav1.ObjectMeta{Namespace: Joins, Name: id, Labels: Labels("join", cluster)}
	return []client.Object{
		&corev1.ConfigMap{ObjectMeta: meta},
		&rbacv1.Role{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{{
			APIGroups: []string{""}, Resources: []string{"configmaps"}, ResourceNames: []string{id}, Verbs: []string{"get", "update"},
		}}},
		&rbacv1.RoleBinding{ObjectMeta: meta, Subjects: []rbacv1.Subject{account(Joins, id)},
			RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: id}},
	}
}

func account(ns, name string) rbacv1.Subject {
	return rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Namespace: ns, Name: name}
}
