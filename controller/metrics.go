package controller

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// meters are the controller's own metrics, beside those of the libraries under it.
type meters struct {
	turn      prometheus.Histogram
	intents   prometheus.Counter
	reports   prometheus.Counter
	marks     prometheus.Counter
	refused   *prometheus.CounterVec // by code
	bulletins *prometheus.CounterVec // by what
	hub       prometheus.Gauge
	nodes     prometheus.Gauge
	pods      *prometheus.GaugeVec // by slice, attached
	addresses *prometheus.GaugeVec // by slice, state
	lies      *prometheus.GaugeVec // by peer
	problems  *prometheus.GaugeVec // by reason
	letters   *prometheus.GaugeVec // by peer and reason
}

func newMeters() *meters {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "seaway_controller_" + name, Help: help})
	}
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "seaway_controller_" + name, Help: help}, labels)
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: "seaway_" + name, Help: help})
	}
	gauges := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "seaway_" + name, Help: help}, labels)
	}
	return &meters{
		turn: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "seaway_controller_turn_seconds", Help: "Time to work out who is on which slice and what to tell whom.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 4, 8),
		}),
		intents:   counter("intents_total", "Intents sent to nodes."),
		reports:   counter("reports_total", "Reports taken from nodes."),
		marks:     counter("pod_marks_total", "Conditions written on pods."),
		refused:   counters("requests_refused_total", "Requests of agents that were refused, by HTTP code.", "code"),
		bulletins: counters("bulletins_total", "Bulletins sent, taken from other clusters, and refused.", "what"),
		hub:       gauge("controller_hub_connected", "1 while the link to the hub stands."),
		nodes:     gauge("controller_nodes_connected", "Nodes whose stream is open."),
		pods:      gauges("slice_pods", "Pods of this cluster on a slice, by whether a probe went through their link.", "slice", "attached"),
		addresses: gauges("slice_addresses", "Addresses of a slice in this cluster, by state.", "slice", "state"),
		lies:      gauges("bulletin_refused_entries", "Entries of another cluster's newest bulletin that were not believed.", "peer"),
		letters:   gauges("bulletin_letters_refused", "Letters and frames that carriers of another cluster sent and that were not taken, since the carriers here started.", "peer", "reason"),
		problems:  gauges("problems", "Problems that a person must act on, by reason.", "reason"),
	}
}

// register has the metrics shown. Two replicas in one process (a test) share the first one's.
func (m *meters) register(r prometheus.Registerer) error {
	for _, c := range []prometheus.Collector{
		m.turn, m.intents, m.reports, m.marks, m.refused, m.bulletins, m.hub, m.nodes, m.pods, m.addresses, m.lies, m.problems, m.letters,
	} {
		var twice prometheus.AlreadyRegisteredError
		if err := r.Register(c); err != nil && !errors.As(err, &twice) {
			return fmt.Errorf("show metrics: %w", err)
		}
	}
	return nil
}
