package install

import (
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"seaway.dev/seaway/hub/credential"
)

func clusterRole(component, name string, rules []rbacv1.PolicyRule) client.Object {
	return &rbacv1.ClusterRole{TypeMeta: rbac("ClusterRole"), ObjectMeta: meta(component, "", name), Rules: rules}
}

// clusterRoleBinding binds the ClusterRole of the same name.
func clusterRoleBinding(component, name string, to rbacv1.Subject) client.Object {
	return &rbacv1.ClusterRoleBinding{TypeMeta: rbac("ClusterRoleBinding"), ObjectMeta: meta(component, "", name),
		Subjects: []rbacv1.Subject{to}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name}}
}

func role(component, ns, name string, rules []rbacv1.PolicyRule) client.Object {
	return &rbacv1.Role{TypeMeta: rbac("Role"), ObjectMeta: meta(component, ns, name), Rules: rules}
}

// roleBinding binds the Role of the same name.
func roleBinding(component, ns, name string, to rbacv1.Subject) client.Object {
	return &rbacv1.RoleBinding{TypeMeta: rbac("RoleBinding"), ObjectMeta: meta(component, ns, name),
		Subjects: []rbacv1.Subject{to}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: name}}
}

func rbac(kind string) metav1.TypeMeta {
	return metav1.TypeMeta{APIVersion: "rbac.authorization.k8s.io/v1", Kind: kind}
}

// controllerRights are the least that a member's controller needs: it reads what is to be seen of pods and services,
// writes conditions of pods and the objects of the MCS-API, and keeps its own things in its own namespace. It can read
// no Secret but its own two, and change no workload.
func controllerRights() []client.Object {
	read := []string{"get", "list", "watch"}
	write := []string{"get", "list", "watch", "create", "update", "patch", "delete"}
	mcs, disco := []string{"multicluster.x-k8s.io"}, []string{"discovery.k8s.io"}
	core := []string{""}
	everywhere := []rbacv1.PolicyRule{
		{APIGroups: core, Resources: []string{"pods", "nodes", "namespaces", "services"}, Verbs: read},
		{APIGroups: core, Resources: []string{"pods/status"}, Verbs: []string{"patch"}},
		{APIGroups: []string{"networking.k8s.io"}, Resources: []string{"networkpolicies"}, Verbs: read},
		{APIGroups: []string{"apps"}, Resources: []string{"statefulsets"}, Verbs: read},
		{APIGroups: disco, Resources: []string{"endpointslices"}, Verbs: write},
		{APIGroups: mcs, Resources: []string{"serviceexports"}, Verbs: read},
		{APIGroups: mcs, Resources: []string{"serviceexports/status", "serviceimports/status"}, Verbs: []string{"update", "patch"}},
		{APIGroups: mcs, Resources: []string{"serviceimports"}, Verbs: write},
		{APIGroups: mcs, Resources: []string{"serviceexports/finalizers", "serviceimports/finalizers"}, Verbs: []string{"update"}},
		{APIGroups: []string{"", "events.k8s.io"}, Resources: []string{"events"}, Verbs: []string{"create", "patch"}},
		{APIGroups: []string{"authentication.k8s.io"}, Resources: []string{"tokenreviews"}, Verbs: []string{"create"}},
	}
	here := []rbacv1.PolicyRule{
		{APIGroups: core, Resources: []string{"configmaps"}, Verbs: write},
		{APIGroups: core, Resources: []string{"secrets"}, ResourceNames: []string{credential.SecretName, "seaway-controller-tls", "seaway-signing"}, Verbs: []string{"get", "update"}},
		{APIGroups: core, Resources: []string{"secrets"}, Verbs: []string{"create"}},
		{APIGroups: core, Resources: []string{"pods"}, Verbs: []string{"patch"}}, // the leader's label on its own pod
		{APIGroups: []string{"coordination.k8s.io"}, Resources: []string{"leases"}, Verbs: []string{"get", "create", "update"}},
	}
	me := rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Namespace: Namespace, Name: ControllerRole}
	return []client.Object{
		clusterRole(ComponentMember, ControllerRole, everywhere), clusterRoleBinding(ComponentMember, ControllerRole, me),
		role(ComponentMember, Namespace, ControllerRole, here), roleBinding(ComponentMember, Namespace, ControllerRole, me),
	}
}
