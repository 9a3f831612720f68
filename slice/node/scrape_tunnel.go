package node

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"seaway.dev/seaway/tunnel"
)

// tunnelCollector shows the tunnel process as the agent last saw it, at most [Timing].Tunnel ago. The tunnel has no
// port of its own but the one for packets.
type tunnelCollector struct{ a *agent }

var (
	descTunnelUp    = prometheus.NewDesc("seaway_tunnel_up", "1 while the tunnel process answers.", nil, nil)
	descTunnelStart = prometheus.NewDesc("seaway_tunnel_start_time_seconds", "When the tunnel process started, Unix time.", nil, nil)
	descTunnelPeers = prometheus.NewDesc("seaway_tunnel_peers", "Other nodes on a slice, by the kind of path to them: direct, relay or none.",
		[]string{"slice", "path"}, nil)
	descTunnelReceived = prometheus.NewDesc("seaway_tunnel_received_bytes_total", "Encrypted bytes from a slice's peers.", []string{"slice"}, nil)
	descTunnelSent     = prometheus.NewDesc("seaway_tunnel_sent_bytes_total", "Encrypted bytes to a slice's peers.", []string{"slice"}, nil)
	descRelayed        = prometheus.NewDesc("seaway_relay_packets_total", "Packets relayed for other nodes.", nil, nil)
	descRelayedBytes   = prometheus.NewDesc("seaway_relay_bytes_total", "UDP payload bytes relayed for other nodes.", nil, nil)
	descRelaySessions  = prometheus.NewDesc("seaway_relay_sessions", "Sessions being relayed, half-open ones included.", nil, nil)
	descRelayKeys      = prometheus.NewDesc("seaway_relay_keys", "Keys that are relayed for.", nil, nil)
	descReach          = prometheus.NewDesc("seaway_path_state", "1 for the state of another node: unknown, up, gray or down.", []string{"node", "state"}, nil)
	descRTT            = prometheus.NewDesc("seaway_path_rtt_seconds", "Smoothed round trip to another node, on the path in use.", []string{"node"}, nil)
	descLoss           = prometheus.NewDesc("seaway_path_loss_ratio", "Share of probes lost lately, on the path in use.", []string{"node"}, nil)
	descAsked          = prometheus.NewDesc("seaway_path_probes_total", "Probes sent.", nil, nil)
	descAnswered       = prometheus.NewDesc("seaway_path_probes_answered_total", "Probes answered.", nil, nil)
	descMoved          = prometheus.NewDesc("seaway_path_moves_total", "Times that the packets to a node took another path.", nil, nil)
	descPortDropped    = prometheus.NewDesc("seaway_tunnel_dropped_packets_total", "Packets that the UDP port dropped, by reason.", []string{"reason"}, nil)
)

// Describe implements prometheus.Collector.
func (c tunnelCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descTunnelUp, descTunnelStart, descTunnelPeers, descTunnelReceived, descTunnelSent,
		descRelayed, descRelayedBytes, descRelaySessions, descRelayKeys, descPortDropped,
		descReach, descRTT, descLoss, descAsked, descAnswered, descMoved} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c tunnelCollector) Collect(ch chan<- prometheus.Metric) {
	c.a.mu.Lock()
	st, down := c.a.tunnel, c.a.tunnelDown
	c.a.mu.Unlock()
	if down || st.Started.IsZero() {
		ch <- prometheus.MustNewConstMetric(descTunnelUp, prometheus.GaugeValue, 0)
		return
	}
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	count := func(d *prometheus.Desc, n uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	gauge(descTunnelUp, 1)
	gauge(descTunnelStart, float64(st.Started.UnixMilli())/1000)
	for _, d := range st.Devices {
		var received, sent uint64
		kinds := map[string]int{"direct": 0, "relay": 0, "none": 0}
		for _, p := range d.Peers {
			received += p.RxBytes
			sent += p.TxBytes
			kind, _, _ := strings.Cut(p.Path, " ")
			if _, ok := kinds[kind]; !ok {
				kind = "none"
			}
			kinds[kind]++
		}
		for kind, n := range kinds {
			gauge(descTunnelPeers, float64(n), d.Slice, kind)
		}
		count(descTunnelReceived, received, d.Slice)
		count(descTunnelSent, sent, d.Slice)
	}
	relayCounters(st, gauge, count)
}

func relayCounters(st tunnel.Status, gauge func(*prometheus.Desc, float64, ...string), count func(*prometheus.Desc, uint64, ...string)) {
	count(descRelayed, st.Relay.Forwarded)
	count(descRelayedBytes, st.Relay.ForwardedBytes)
	gauge(descRelaySessions, float64(st.Relay.Flows))
	gauge(descRelayKeys, float64(st.Relay.Targets))
	count(descAsked, st.Relay.Asked)
	count(descAnswered, st.Relay.Answered)
	count(descMoved, st.Relay.Moved)
	for _, r := range st.Reach {
		gauge(descReach, 1, r.Node, string(r.State))
		if r.RTT > 0 {
			gauge(descRTT, r.RTT.Seconds(), r.Node)
			gauge(descLoss, r.Loss, r.Node)
		}
	}
	for reason, n := range st.Relay.Dropped {
		count(descPortDropped, n, reason)
	}
}
