package place

import (
	"slices"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

func TestNames(t *testing.T) {
	for name, ok := range map[string]bool{
		"paris": true, "c1": true, "a": true, "eu-west-3": true, strings.Repeat("a", 32): true,
		"": false, "Paris": false, "1c": false, "-a": false, "a-": false, "a.b": false, "a_b": false, strings.Repeat("a", 33): false,
		"système": false, "a\n": false,
	} {
		if err := CheckCluster(name); (err == nil) != ok {
			t.Errorf("cluster %q: %v", name, err)
		}
		if err := CheckSlice(name); (err == nil) != ok {
			t.Errorf("slice %q: %v", name, err)
		}
	}
	for _, own := range []string{System, Members, Renewal, Joins} {
		if name := strings.TrimPrefix(own, "seaway-"); CheckCluster(name) == nil {
			t.Errorf("a cluster named %s would have %s as its mailbox", name, own)
		}
	}
	if CheckCluster("seaway") == nil || CheckSlice("seaway") == nil {
		t.Error("the management slice's name is free")
	}
}

// TestPromises checks the rights of accounts, as they are made for two members and a join token, against the list.
func TestPromises(t *testing.T) {
	var objs []client.Object
	objs = append(objs, ForMember("paris")...)
	objs = append(objs, ForMember("tokyo")...)
	objs = append(objs, ForJoin("abc234", "paris")...)
	for _, p := range Promises("paris", "tokyo", "abc234") {
		who := map[Account]rbacv1.Subject{Access: account(Members, "paris"), Renew: account(Renewal, "paris"), Join: account(Joins, "abc234")}[p.Who]
		if got := allowed(objs, who, p); got != p.Allowed {
			t.Errorf("%s %s %s/%s %s/%s: allowed=%v, promised %v (%s)", p.Who, p.Verb, p.Resource, p.Sub, p.Namespace, p.Object, got, p.Allowed, p.Why)
		}
	}
}

// allowed does what the API server does with RBAC, for the objects given and the two bindings of `seaway install hub`.
func allowed(objs []client.Object, who rbacv1.Subject, p Promise) bool {
	if who.Namespace == Members && anyRule(MemberRules(), p) {
		return true
	}
	for _, o := range objs {
		b, ok := o.(*rbacv1.RoleBinding)
		if !ok || b.Namespace != p.Namespace || !slices.Contains(b.Subjects, who) {
			continue
		}
		if b.RoleRef.Kind == "ClusterRole" && b.RoleRef.Name == RoleOwner && anyRule(OwnerRules(), p) {
			return true
		}
		for _, o := range objs {
			if r, ok := o.(*rbacv1.Role); ok && b.RoleRef.Kind == "Role" && r.Namespace == b.Namespace && r.Name == b.RoleRef.Name && anyRule(r.Rules, p) {
				return true
			}
		}
	}
	return false
}

func anyRule(rules []rbacv1.PolicyRule, p Promise) bool {
	resource := p.Resource
	if p.Sub != "" {
		resource += "/" + p.Sub
	}
	return slices.ContainsFunc(rules, func(r rbacv1.PolicyRule) bool {
		return slices.Contains(r.Verbs, p.Verb) && slices.Contains(r.APIGroups, p.Group) && slices.Contains(r.Resources, resource) &&
			(len(r.ResourceNames) == 0 || slices.Contains(r.ResourceNames, p.Object))
	})
}
