package controller

import (
	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
)

// The controller's own metrics, beside those of the libraries under it.
var (
	metricTurn = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "seaway_controller_turn_seconds", Help: "Time to work out who is on which slice and what to tell whom.",
		Buckets: prometheus.ExponentialBuckets(0.0005, 4, 8),
	})
	metricIntents   = prometheus.NewCounter(prometheus.CounterOpts{Name: "seaway_controller_intents_total", Help: "Intents sent to nodes."})
	metricReports   = prometheus.NewCounter(prometheus.CounterOpts{Name: "seaway_controller_reports_total", Help: "Reports taken from nodes."})
	metricMarks     = prometheus.NewCounter(prometheus.CounterOpts{Name: "seaway_controller_pod_marks_total", Help: "Conditions written on pods."})
	metricRefused   = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "seaway_controller_requests_refused_total", Help: "Requests of agents that were refused, by HTTP code."}, []string{"code"})
	metricBulletins = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "seaway_controller_bulletins_total", Help: "Bulletins sent, taken from other clusters, and refused."}, []string{"what"})
	metricHub       = prometheus.NewGauge(prometheus.GaugeOpts{Name: "seaway_controller_hub_connected", Help: "1 while the link to the hub stands."})
	metricNodes     = prometheus.NewGauge(prometheus.GaugeOpts{Name: "seaway_controller_nodes_connected", Help: "Nodes whose stream is open."})
	metricPods      = prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "seaway_slice_pods", Help: "Pods of this cluster on a slice, by whether a probe went through their link."}, []string{"slice", "attached"})
	metricLeases    = prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "seaway_slice_addresses", Help: "Addresses of a slice in this cluster, by state."}, []string{"slice", "state"})
	metricLies      = prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "seaway_bulletin_refused_entries", Help: "Entries of another cluster's newest bulletin that were not believed."}, []string{"peer"})
	metricProblems  = prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "seaway_problems", Help: "Problems that a person must act on, by reason."}, []string{"reason"})
)

// registerMetrics has the metrics shown on /metrics. Registering them again is no error: a test may run two replicas
// in one process.
func registerMetrics() {
	for _, c := range []prometheus.Collector{
		metricTurn, metricIntents, metricReports, metricMarks, metricRefused, metricBulletins, metricHub, metricNodes,
		metricPods, metricLeases, metricLies, metricProblems,
	} {
		_ = metrics.Registry.Register(c)
	}
}
