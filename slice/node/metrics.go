package node

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"seaway.dev/seaway/datapath"
	"seaway.dev/seaway/datapath/flow"
	"seaway.dev/seaway/fleet"
)

// metrics are the agent's, named seaway_agent_…
type metrics struct {
	rounds prometheus.Histogram
	attach prometheus.Histogram
	ops    prometheus.Counter
	steers prometheus.Histogram
	ends   *prometheus.CounterVec
}

func newMetrics() *metrics {
	return &metrics{
		rounds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "seaway_agent_apply_duration_seconds", Help: "Time of one round of making the node what it should be.",
			Buckets: prometheus.ExponentialBuckets(0.001, 4, 8),
		}),
		attach: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "seaway_agent_attach_duration_seconds", Help: "Time from a sandbox's birth to its probe's answer.",
			Buckets: []float64{.01, .025, .05, .1, .2, .3, .5, 1, 2.5, 10},
		}),
		ops: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "seaway_agent_kernel_changes_total", Help: "Changes made in the kernel; it stands still while nothing changes.",
		}),
		steers: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "seaway_agent_steer_duration_seconds", Help: "Time from news of who can be reached to rules, sockets and names that follow.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 12),
		}),
		ends: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "seaway_agent_connections_ended_total", Help: "Sockets of pods that were ended because their peer is gone.",
		}, []string{"protocol"}),
	}
}

// steered notes a change of where traffic goes.
func (m *metrics) steered(done datapath.Steered, took time.Duration) {
	m.ops.Add(float64(done.Ops))
	m.steers.Observe(took.Seconds())
	m.ended(done.Ended)
}

func (m *metrics) ended(n flow.Ended) {
	m.ends.WithLabelValues("tcp").Add(float64(n.TCP))
	m.ends.WithLabelValues("udp").Add(float64(n.UDP))
}

// attached notes how long new attachments took.
func (m *metrics) attached(old, now []fleet.Attachment) {
	was := map[string]bool{}
	for _, a := range old {
		was[a.Slice+" "+a.PodUID] = a.Attached
	}
	for _, a := range now {
		if a.Attached && !was[a.Slice+" "+a.PodUID] {
			m.attach.Observe(a.Took / 1000)
		}
	}
}

// register puts the agent's metrics into its registry.
func (m *metrics) register(a *agent) {
	a.cfg.Metrics.MustRegister(m.rounds, m.attach, m.ops, m.steers, m.ends, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), collector{a}, tunnelCollector{a})
}

// collector reads gauges from the agent's state when asked.
type collector struct{ a *agent }

var (
	descAttachments = prometheus.NewDesc("seaway_agent_attachments", "Pods on a slice on this node, by how they stand.",
		[]string{"slice", "reason"}, nil)
	descConnected = prometheus.NewDesc("seaway_agent_controller_connected", "1 while the controller is heard.", nil, nil)
	descProblems  = prometheus.NewDesc("seaway_agent_problems", "What a person must act on.", []string{"reason"}, nil)
	descDropped   = prometheus.NewDesc("seaway_agent_dropped_packets_total", "Packets that a slice's rules dropped or refused, by rule.",
		[]string{"slice", "rule"}, nil)
	descNodes = prometheus.NewDesc("seaway_agent_nodes", "Other nodes by how they look from here: up, gray, returning or down.",
		[]string{"state"}, nil)
	descKept = prometheus.NewDesc("seaway_agent_unreachable_services", "Services of whose ready endpoints none can be reached.", nil, nil)
	descRev  = prometheus.NewDesc("seaway_agent_intent_revision", "Newest intent fully applied.", nil, nil)
)

// Describe implements prometheus.Collector.
func (c collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descAttachments, descConnected, descProblems, descDropped, descRev, descNodes, descKept} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	st := c.a.state()
	c.a.mu.Lock()
	connected, nodes := c.a.connected, c.a.nodes
	kept := 0
	for _, n := range c.a.kept {
		kept += n
	}
	c.a.mu.Unlock()
	gauge(descKept, float64(kept))
	sights := map[string]float64{"up": 0, "gray": 0, "returning": 0, "down": 0}
	for _, s := range nodes {
		sights[s.State()]++
	}
	for state, n := range sights {
		gauge(descNodes, n, state)
	}
	count := map[[2]string]float64{}
	for _, at := range st.Attachments {
		count[[2]string{at.Slice, at.Reason}]++
	}
	for k, n := range count {
		gauge(descAttachments, n, k[0], k[1])
	}
	problems := map[string]float64{}
	for _, p := range st.Problems {
		problems[p.Reason]++
	}
	for k, n := range problems {
		gauge(descProblems, n, k)
	}
	gauge(descRev, float64(st.IntentRev))
	for slice, rules := range c.a.cfg.Datapath.Drops() {
		for rule, n := range rules {
			ch <- prometheus.MustNewConstMetric(descDropped, prometheus.CounterValue, float64(n), slice, rule)
		}
	}
	if connected {
		gauge(descConnected, 1)
	} else {
		gauge(descConnected, 0)
	}
}
