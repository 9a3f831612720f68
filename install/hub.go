package install

import (
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"seaway.dev/seaway/deploy/crds"
	"seaway.dev/seaway/hub/place"
)

// HubRole is the name of the hub's Deployment, account and roles.
const HubRole = "seaway-hub"

// HubOptions are the choices that an installation of the hub has.
type HubOptions struct {
	Image    string // with its tag
	Replicas int32  // 0 means 2
}

// Hub lists the objects of a hub.
func Hub(o HubOptions) []client.Object {
	if o.Replicas == 0 {
		o.Replicas = 2
	}
	return objects(
		[]client.Object{
			namespace(ComponentShared, Namespace, true),
			namespace(ComponentHub, place.Members, false),
			namespace(ComponentHub, place.Renewal, false),
			namespace(ComponentHub, place.Joins, false),
			definition(ComponentHub, crds.Clusters),
			definition(ComponentHub, crds.Slices),
			serviceAccount(ComponentHub, Namespace, HubRole, true),
		},
		hubRights(),
		stayHome(),
		[]client.Object{hubDeployment(o), hubBudget()},
	)
}

func hubDeployment(o HubOptions) client.Object {
	return deployment(ComponentHub, HubRole, o.Replicas, corev1.PodSpec{
		ServiceAccountName: HubRole,
		Containers: []corev1.Container{{
			Name: "hub", Image: o.Image, Args: []string{"hub", "--metrics", ":8080", "--health", ":8081"},
			Ports: []corev1.ContainerPort{
				{Name: "metrics", ContainerPort: 8080, Protocol: corev1.ProtocolTCP},
				{Name: "health", ContainerPort: 8081, Protocol: corev1.ProtocolTCP},
			},
			LivenessProbe:   &corev1.Probe{ProbeHandler: get("/healthz", 8081), PeriodSeconds: 10, FailureThreshold: 6},
			ReadinessProbe:  &corev1.Probe{ProbeHandler: get("/readyz", 8081), PeriodSeconds: 2},
			Resources:       corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("20m"), corev1.ResourceMemory: resource.MustParse("48Mi")}},
			SecurityContext: confined(),
		}},
	})
}

func hubBudget() client.Object {
	one := intstr.FromInt(1)
	return &policyv1.PodDisruptionBudget{
		TypeMeta:   metav1.TypeMeta{APIVersion: "policy/v1", Kind: "PodDisruptionBudget"},
		ObjectMeta: meta(ComponentHub, Namespace, HubRole),
		Spec:       policyv1.PodDisruptionBudgetSpec{MaxUnavailable: &one, Selector: &metav1.LabelSelector{MatchLabels: podLabels(HubRole)}},
	}
}

// hubRights are the hub's own rights, and those that it can give to members. What may be done in a namespace that is
// not there yet (a mailbox) can only be granted for all namespaces; stayHome takes back what that is too much.
func hubRights() []client.Object {
	all := []string{"get", "list", "watch", "create", "update", "patch", "delete"}
	mint := []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"serviceaccounts"}, Verbs: all},
		{APIGroups: []string{""}, Resources: []string{"serviceaccounts/token"}, Verbs: []string{"create"}},
		{APIGroups: []string{rbacv1.GroupName}, Resources: []string{"roles", "rolebindings"}, Verbs: []string{"create", "delete"}},
	}
	hub := []rbacv1.PolicyRule{
		{APIGroups: []string{"seaway.dev"}, Resources: []string{"clusters", "clusters/status", "clusters/finalizers", "slices", "slices/status"}, Verbs: all},
		{APIGroups: []string{""}, Resources: []string{"namespaces"}, Verbs: []string{"get", "create", "delete"}},
		{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"list", "watch"}, ResourceNames: []string{place.Bulletin}},
		{APIGroups: []string{"coordination.k8s.io"}, Resources: []string{"leases"}, Verbs: []string{"list", "watch"}, ResourceNames: []string{place.Alive}},
		{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"create"}},
		{APIGroups: []string{"coordination.k8s.io"}, Resources: []string{"leases"}, Verbs: []string{"create"}},
		{APIGroups: []string{rbacv1.GroupName}, Resources: []string{"rolebindings"}, Verbs: []string{"create", "delete"}},
		{APIGroups: []string{rbacv1.GroupName}, Resources: []string{"clusterroles"}, Verbs: []string{"bind"}, ResourceNames: []string{place.RoleOwner}},
	}
	joins := append([]rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: all}}, mint...)
	lead := []rbacv1.PolicyRule{
		{APIGroups: []string{"coordination.k8s.io"}, Resources: []string{"leases"}, Verbs: []string{"get", "create", "update"}},
		{APIGroups: []string{"", "events.k8s.io"}, Resources: []string{"events"}, Verbs: []string{"create", "patch"}},
	}
	me := rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Namespace: Namespace, Name: HubRole}
	members := rbacv1.Subject{Kind: rbacv1.GroupKind, APIGroup: rbacv1.GroupName, Name: "system:serviceaccounts:" + place.Members}
	return []client.Object{
		clusterRole(ComponentHub, place.RoleMember, place.MemberRules()),
		clusterRole(ComponentHub, place.RoleOwner, place.OwnerRules()),
		clusterRole(ComponentHub, place.RoleHub, hub),
		clusterRoleBinding(ComponentHub, place.RoleMember, members),
		clusterRoleBinding(ComponentHub, place.RoleHub, me),
		role(ComponentHub, place.Members, HubRole, mint), roleBinding(ComponentHub, place.Members, HubRole, me),
		role(ComponentHub, place.Renewal, HubRole, mint), roleBinding(ComponentHub, place.Renewal, HubRole, me),
		role(ComponentHub, place.Joins, HubRole, joins), roleBinding(ComponentHub, place.Joins, HubRole, me),
		role(ComponentHub, Namespace, HubRole, lead), roleBinding(ComponentHub, Namespace, HubRole, me),
	}
}

// stayHome is an admission policy that holds the hub's account to namespaces that begin with "seaway-": RBAC cannot
// say that, and the rights to make a mailbox would otherwise reach into every namespace. It is evaluated by the API
// server itself; there is no webhook.
func stayHome() []client.Object {
	fail := admissionregistrationv1.Fail
	deny := []admissionregistrationv1.ValidationAction{admissionregistrationv1.Deny}
	scope := admissionregistrationv1.AllScopes
	rule := func(group, version string, resources ...string) admissionregistrationv1.NamedRuleWithOperations {
		return admissionregistrationv1.NamedRuleWithOperations{RuleWithOperations: admissionregistrationv1.RuleWithOperations{
			Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create, admissionregistrationv1.Update, admissionregistrationv1.Delete},
			Rule:       admissionregistrationv1.Rule{APIGroups: []string{group}, APIVersions: []string{version}, Resources: resources, Scope: &scope},
		}}
	}
	return []client.Object{
		&admissionregistrationv1.ValidatingAdmissionPolicy{
			TypeMeta:   metav1.TypeMeta{APIVersion: "admissionregistration.k8s.io/v1", Kind: "ValidatingAdmissionPolicy"},
			ObjectMeta: meta(ComponentHub, "", "seaway-hub-stays-home"),
			Spec: admissionregistrationv1.ValidatingAdmissionPolicySpec{
				FailurePolicy: &fail,
				MatchConstraints: &admissionregistrationv1.MatchResources{ResourceRules: []admissionregistrationv1.NamedRuleWithOperations{
					rule("", "v1", "namespaces", "configmaps", "serviceaccounts", "serviceaccounts/token"),
					rule("coordination.k8s.io", "v1", "leases"), rule(rbacv1.GroupName, "v1", "roles", "rolebindings"),
				}},
				MatchConditions: []admissionregistrationv1.MatchCondition{{Name: "the-hub",
					Expression: "request.userInfo.username == 'system:serviceaccount:" + Namespace + ":" + HubRole + "'"}},
				Validations: []admissionregistrationv1.Validation{{
					Expression: "(request.resource.resource == 'namespaces' ? request.name : request.namespace).startsWith('seaway-')",
					Message:    "Seaway's hub works in namespaces that begin with seaway- and in no other",
				}},
			},
		},
		&admissionregistrationv1.ValidatingAdmissionPolicyBinding{
			TypeMeta:   metav1.TypeMeta{APIVersion: "admissionregistration.k8s.io/v1", Kind: "ValidatingAdmissionPolicyBinding"},
			ObjectMeta: meta(ComponentHub, "", "seaway-hub-stays-home"),
			Spec:       admissionregistrationv1.ValidatingAdmissionPolicyBindingSpec{PolicyName: "seaway-hub-stays-home", ValidationActions: deny},
		},
	}
}
