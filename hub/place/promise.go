package place

// Account is one of the accounts that Seaway gives to a member, or to whoever holds a join token.
type Account string

// The accounts.
const (
	Access Account = "access"  // the member's hour-long token
	Renew  Account = "renewal" // its month-long token
	Join   Account = "join"    // the token inside a join token
)

// Promise is something that an account can or cannot do on the hub, in the terms of a SubjectAccessReview. The
// documents make these promises, a unit test checks them against the rights as values, and a story against a real API
// server.
type Promise struct {
	Who                                           Account
	Verb, Group, Resource, Sub, Namespace, Object string // "" in Namespace means all, in Object any
	Allowed                                       bool
	Why                                           string
}

// Promises lists them for a member, another member, and a join token's id.
func Promises(cluster, other, id string) []Promise {
	box, theirs := Mailbox(cluster), Mailbox(other)
	const leases = "coordination.k8s.io"
	return []Promise{
		{Access, "watch", "seaway.dev", "slices", "", "", "", true, "intent is for everyone"},
		{Access, "watch", "seaway.dev", "clusters", "", "", "", true, "intent is for everyone"},
		{Access, "update", "seaway.dev", "slices", "", "", "", false, "intent is people's"},
		{Access, "update", "seaway.dev", "clusters", "status", "", cluster, false, "status is the hub's"},
		{Access, "delete", "seaway.dev", "clusters", "", "", cluster, false, "the hub removes clusters"},
		{Access, "watch", "", "configmaps", "", "", Bulletin, true, "one watch hears every bulletin"},
		{Access, "list", "", "configmaps", "", "", "", false, "and no other ConfigMap"},
		{Access, "get", "", "configmaps", "", theirs, Bulletin, true, "bulletins are for everyone"},
		{Access, "get", "", "configmaps", "", "kube-system", "coredns", false, "no other ConfigMap"},
		{Access, "patch", "", "configmaps", "", box, Bulletin, true, "its own bulletin"},
		{Access, "patch", "", "configmaps", "", theirs, Bulletin, false, "nobody speaks for another"},
		{Access, "patch", "", "configmaps", "", box, "other", false, "a mailbox holds one bulletin"},
		{Access, "create", "", "configmaps", "", box, "", false, "the hub makes what is in a mailbox"},
		{Access, "delete", "", "configmaps", "", box, Bulletin, false, "the hub removes mailboxes"},
		{Access, "update", leases, "leases", "", box, Alive, true, "its own life"},
		{Access, "update", leases, "leases", "", theirs, Alive, false, "nobody lives for another"},
		{Access, "get", "", "secrets", "", "", "", false, "there are none to read"},
		{Access, "create", "", "serviceaccounts", "token", Members, cluster, false, "an hour is an hour"},
		{Access, "create", "", "serviceaccounts", "token", Renewal, cluster, false, "an hour is an hour"},
		{Access, "list", "", "pods", "", "", "", false, "the hub's workloads are not its business"},

		{Renew, "create", "", "serviceaccounts", "token", Members, cluster, true, "that is what it is for"},
		{Renew, "create", "", "serviceaccounts", "token", Renewal, cluster, true, "that is what it is for"},
		{Renew, "create", "", "serviceaccounts", "token", Members, other, false, "nobody becomes another"},
		{Renew, "create", "", "serviceaccounts", "token", Renewal, other, false, "nobody becomes another"},
		{Renew, "create", "", "serviceaccounts", "token", System, "seaway-hub", false, "nobody becomes the hub"},
		{Renew, "list", "seaway.dev", "slices", "", "", "", false, "it reads nothing"},
		{Renew, "get", "", "configmaps", "", box, Bulletin, false, "it reads nothing"},

		{Join, "get", "", "configmaps", "", Joins, id, true, "the claim and its answer"},
		{Join, "update", "", "configmaps", "", Joins, id, true, "the claim and its answer"},
		{Join, "list", "", "configmaps", "", Joins, "", false, "no other token's"},
		{Join, "update", "", "serviceaccounts", "", Joins, id, false, "what the token allows is the hub's to say"},
		{Join, "create", "", "serviceaccounts", "token", Joins, id, false, "a token does not prolong itself"},
		{Join, "list", "seaway.dev", "clusters", "", "", "", false, "it is no member yet"},
		{Join, "get", "", "configmaps", "", box, Bulletin, false, "it is no member yet"},
	}
}
