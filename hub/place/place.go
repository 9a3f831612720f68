// Package place says where everything of Seaway lies on the hub, and who may touch it. The hub's only interface is the
// Kubernetes API of its cluster, so names and rights are its protocol:
//
//	seaway-system         the hub's own Deployment
//	seaway-members        one ServiceAccount per member: its access (an hour)
//	seaway-renewal        one ServiceAccount per member: may only mint tokens for the member's two accounts (30 days)
//	seaway-joins          one ServiceAccount and one ConfigMap per join token: may only touch that ConfigMap
//	seaway-<cluster>      the member's mailbox: ConfigMap "bulletin", Lease "alive"
//
// A member reads Clusters, Slices and everyone's bulletins and leases, and writes its own two. There are no Secrets.
package place

import (
	"fmt"
	"regexp"
)

// Namespaces on the hub.
const (
	System  = "seaway-system"
	Members = "seaway-members"
	Renewal = "seaway-renewal"
	Joins   = "seaway-joins"
)

// Objects in a member's mailbox. The hub makes them, the member fills them in.
const (
	Bulletin     = "bulletin"  // ConfigMap
	BulletinKey  = "bulletin"  // its key in binaryData: gzip of the JSON of a fleet.Bulletin
	SignatureKey = "signature" // its key there too: the signature of a bulletin.Letter whose body the former is
	Alive        = "alive"     // Lease, renewed by the member's leading controller
)

// Labels and annotations.
const (
	LabelPartOf    = "app.kubernetes.io/part-of"    // "seaway" on every object of ours
	LabelManagedBy = "app.kubernetes.io/managed-by" // "seaway"
	LabelComponent = "app.kubernetes.io/component"  // hub, member, join
	LabelCluster   = "seaway.dev/cluster"           // whose object it is

	AnnotationUID     = "seaway.dev/cluster-uid" // on a Cluster: the UID of the member's kube-system namespace
	AnnotationLeaving = "seaway.dev/leaving"     // on the Lease: the member asks to be taken out of the fleet
	Finalizer         = "seaway.dev/mailbox"     // on a Cluster: its mailbox and accounts are to be removed first

	// Of a join token's ServiceAccount, which its bearer cannot change.
	AnnotationExpires  = "seaway.dev/expires"
	AnnotationServer   = "seaway.dev/server"
	AnnotationPrivate  = "seaway.dev/private"
	AnnotationRegion   = "seaway.dev/region"
	AnnotationProvider = "seaway.dev/provider"
	AnnotationClaimed  = "seaway.dev/claimed"    // the public key of the one who claimed the token
	AnnotationAt       = "seaway.dev/claimed-at" // and when
)

// Owner is the field manager of everything that Seaway applies.
const Owner = "seaway"

var name = regexp.MustCompile(`^[a-z]([-a-z0-9]{0,30}[a-z0-9])?$`)

// reserved are the names whose mailbox would be one of Seaway's own namespaces, and the management slice's name.
var reserved = map[string]bool{"seaway": true, "system": true, "members": true, "renewal": true, "joins": true}

// CheckCluster tells whether a name can be a cluster's, and if not, why. The CRD has the same rule.
func CheckCluster(n string) error {
	if err := check("cluster", n); err != nil {
		return err
	}
	if reserved[n] {
		return fmt.Errorf("cluster name %q is one of Seaway's own (seaway, system, members, renewal, joins): choose another", n)
	}
	return nil
}

// CheckSlice tells whether a name can be a slice's, and if not, why. The CRD has the same rule.
func CheckSlice(n string) error {
	if err := check("slice", n); err != nil {
		return err
	}
	if n == "seaway" {
		return fmt.Errorf("slice name %q is taken by Seaway's own management slice: choose another", n)
	}
	return nil
}

func check(what, n string) error {
	if name.MatchString(n) {
		return nil
	}
	return fmt.Errorf("%s name %.64q: want 1 to 32 characters, small letters, digits and hyphens, a letter first, no hyphen last", what, n)
}

// Mailbox is the namespace of a member's mailbox.
func Mailbox(cluster string) string { return "seaway-" + cluster }

// Labels are what every object of ours carries.
func Labels(component, cluster string) map[string]string {
	l := map[string]string{LabelPartOf: "seaway", LabelManagedBy: "seaway", LabelComponent: component}
	if cluster != "" {
		l[LabelCluster] = cluster
	}
	return l
}
