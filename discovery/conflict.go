package discovery

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"seaway.dev/seaway/fleet"
)

// Conflict is something that the exports of one name disagree about and that can not be merged.
type Conflict struct {
	Reason   string   // the standard's
	What     string   // the property, as people call it
	Clusters []string // whose exports differ from the oldest, sorted
}

// The standard's reasons of the condition Conflict (mcs-api v1beta1). They are written here once more so that the
// decision does not depend on Kubernetes' packages; a test of discovery/kube compares them.
const (
	ReasonNoConflicts           = "NoConflicts"
	ReasonPort                  = "PortConflict"
	ReasonType                  = "TypeConflict"
	ReasonSessionAffinity       = "SessionAffinityConflict"
	ReasonSessionAffinityConfig = "SessionAffinityConfigConflict"
	ReasonLabels                = "LabelsConflict"
	ReasonAnnotations           = "AnnotationsConflict"
	ReasonInternalTrafficPolicy = "InternalTrafficPolicyConflict"
	ReasonTrafficDistribution   = "TrafficDistributionConflict"
	ReasonIPFamily              = "IPFamilyConflict"
)

// conflicts compares the offers, the oldest first, with what they became.
func conflicts(offers []offer, im Import) []Conflict {
	first := offers[0]
	var out []Conflict
	check := func(reason, what string, agree func(o offer) bool) {
		c := Conflict{Reason: reason, What: what}
		for _, o := range offers[1:] {
			if !agree(o) {
				c.Clusters = append(c.Clusters, o.cluster)
			}
		}
		if len(c.Clusters) > 0 {
			slices.Sort(c.Clusters)
			out = append(out, c)
		}
	}
	check(ReasonPort, "ports", func(o offer) bool { return samePorts(o.Ports, first.Ports) })
	check(ReasonType, "headless or not", func(o offer) bool { return o.Headless == first.Headless })
	if !im.Headless { // a headless import has no use for these
		check(ReasonSessionAffinity, "sessionAffinity", func(o offer) bool { return o.Headless || o.Affinity == first.Affinity })
		check(ReasonSessionAffinityConfig, "sessionAffinityConfig", func(o offer) bool {
			return o.Headless || o.Affinity != first.Affinity || !o.Affinity || timeout(o.Export) == timeout(first.Export)
		})
	}
	check(ReasonLabels, "exportedLabels", func(o offer) bool { return maps.Equal(o.Labels, first.Labels) })
	check(ReasonAnnotations, "exportedAnnotations", func(o offer) bool { return maps.Equal(o.Annotations, first.Annotations) })
	check(ReasonInternalTrafficPolicy, "internalTrafficPolicy", func(o offer) bool {
		return o.Headless != first.Headless || policy(o.Export) == policy(first.Export)
	})
	check(ReasonTrafficDistribution, "trafficDistribution", func(o offer) bool {
		return o.TrafficDistribution == first.TrafficDistribution
	})
	// The standard asks for this one only where a family may reach a part of the endpoints: when an export lacks a
	// family that the import has.
	check(ReasonIPFamily, "ipFamilies", func(o offer) bool {
		for _, f := range im.Families {
			if len(o.Families) > 0 && slices.Contains(first.Families, f) && !slices.Contains(o.Families, f) {
				return false
			}
		}
		return true
	})
	return out
}

// samePorts tells whether two services expose the same ports, in whatever order.
func samePorts(a, b []fleet.Port) bool {
	if len(a) != len(b) {
		return false
	}
	for _, p := range a {
		if !slices.Contains(b, p) {
			return false
		}
	}
	return true
}

// timeout returns the seconds of an export's session affinity; Kubernetes' default is three hours.
func timeout(e fleet.Export) int32 {
	if e.Timeout <= 0 {
		return 10800
	}
	return e.Timeout
}

// policy returns an export's internal traffic policy; Kubernetes' default is Cluster.
func policy(e fleet.Export) string {
	if e.InternalTrafficPolicy == "" {
		return "Cluster"
	}
	return e.InternalTrafficPolicy
}

// conflictText says which conflicts there are, who wins and what to do.
func conflictText(im Import) (reason, message string) {
	var reasons, parts []string
	for _, c := range im.Conflicts {
		reasons = append(reasons, c.Reason)
		parts = append(parts, fmt.Sprintf("%s (%s)", c.What, strings.Join(c.Clusters, ", ")))
	}
	return strings.Join(reasons, ","), fmt.Sprintf(
		"exports differ from the one of cluster %s, which is the oldest and wins: %s; make the Services and ServiceExports equal, or export under another name",
		im.Oldest, strings.Join(parts, "; "))
}
