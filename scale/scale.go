// Package scale holds the nouns of the autoscaler: what is measured of a service, what a policy decides, and the terms
// it works under. The deciders (forecast, capacity, decide, learn, hpa) are pure: they see the world only through
// these values, own no clock, and given the same inputs and seed they decide the same. The simulator (sim) and the
// autoscaler's loop feed them the same values, so that what was measured in the one holds for the other.
package scale

import "time"

// Terms are what a service's owner asks for and pays.
type Terms struct {
	Min, Max int // replicas, both included; Max 0 means no limit
	// Latency is the time within which a request counts as good; 0 means only success counts.
	Latency time.Duration
	// Good is the share of requests that must be good, such as 0.999.
	Good float64
	// PodHour and NodeHour are prices in any one currency. PodsPerNode is how many of the pods a node takes (0: nodes
	// are not counted, pods are what is paid).
	PodHour, NodeHour float64
	PodsPerNode       int
	// PodCores is what a pod requests: the HPA's utilisation is use divided by it.
	PodCores float64
}

// Sample is what the metrics say of a service over one interval. Values that are unknown are NaN, never 0.
type Sample struct {
	At       time.Time     // end of the interval
	Interval time.Duration // its length
	Rate     float64       // requests that arrived, per second
	InFlight float64       // mean number of requests being served or queued
	Busy     float64       // mean cores in use, summed over the ready pods
	Done     float64       // requests finished in the interval
	Bad      float64       // of those (and of those refused or timed out): not good by the Terms
	Ready    int           // pods
	Starting int           // pods wanted and not ready yet
	Nodes    int           // nodes that host or could host the pods now
	// Steady is how many pods were ready for the whole interval, SteadyBusy the mean cores in use summed over those:
	// what an HPA goes by. Steady 0 means unknown, then both are derived from Busy and Ready.
	Steady     int
	SteadyBusy float64
}

// Start is one pod's or node's way to readiness, from real timestamps. Zero times have not happened. A node's has no
// Image, is neither scheduled nor pulled, and has NewNode set.
type Start struct {
	Name                              string
	Cluster, Provider, Pool, Image    string
	Created, Scheduled, Pulled, Ready time.Time
	NewNode                           bool // the pod waited for a node that did not exist yet
	Failed                            bool
}

// Announced is a load that people expect: a sale, a campaign, a batch.
type Announced struct {
	From, To time.Time
	Factor   float64 // load compared with usual
}

// Input is all that a policy may look at when it decides. Samples and Starts are those that became known since the
// policy's last decision, in order; a sample becomes known later than its At.
type Input struct {
	Now       time.Time
	Samples   []Sample
	Starts    []Start
	Announced []Announced
	Replicas  int  // wanted now (spec.replicas)
	Ready     int  // pods ready now, as the API server tells
	Nodes     int  // nodes now
	Rollout   bool // the target is being rolled out
}

// Decision is how many replicas a policy wants, and how many nodes' worth of room should be kept warm beyond them.
type Decision struct {
	Replicas int
	Spare    int    // nodes
	Why      string // the binding constraint, in words
}

// Policy decides, and remembers what it was told. Decide is called every few seconds with rising Now.
type Policy interface {
	Name() string
	Decide(Input) Decision
}
