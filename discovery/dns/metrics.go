package dns

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"seaway.dev/seaway/discovery/zone"
)

// Transports, as indexes of the counters.
const (
	protoUDP = iota
	protoTCP
)

// metrics counts what happens. The counters of the usual codes are looked up once, so that counting is one addition.
type metrics struct {
	responses *prometheus.CounterVec
	usual     [2][17]prometheus.Counter
	dropped   [2]prometheus.Counter
	truncated prometheus.Counter
	failed    prometheus.Counter
	refused   prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		responses: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "seaway_dns_responses_total",
			Help: "DNS queries answered, by transport and response code."}, []string{"proto", "rcode"}),
		truncated: prometheus.NewCounter(prometheus.CounterOpts{Name: "seaway_dns_truncated_total",
			Help: "DNS responses that did not fit and were cut, so that the client asks again by TCP."}),
		failed: prometheus.NewCounter(prometheus.CounterOpts{Name: "seaway_dns_write_errors_total",
			Help: "DNS responses that could not be sent."}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{Name: "seaway_dns_connections_refused_total",
			Help: "DNS connections closed at once because too many were open."}),
	}
	dropped := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "seaway_dns_dropped_total",
		Help: "Messages that were no DNS queries and got no response."}, []string{"proto"})
	for p, proto := range []string{"udp", "tcp"} {
		m.dropped[p] = dropped.WithLabelValues(proto)
		for code := range m.usual[p] {
			if name := codeName(uint16(code)); name != "" {
				m.usual[p][code] = m.responses.WithLabelValues(proto, name)
			}
		}
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.responses, m.truncated, m.failed, m.refused, dropped} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("register the DNS server's metrics: %w", err)
		}
	}
	return m, nil
}

// codeName returns the name of a code that this server answers with, "" for others.
func codeName(code uint16) string {
	switch code {
	case uint16(zone.NoError), uint16(zone.ServFail), uint16(zone.NXDomain), uint16(zone.Refused):
		return zone.Code(code).String()
	case codeForm:
		return "FORMERR"
	case codeNotIm:
		return "NOTIMP"
	case codeVers:
		return "BADVERS"
	}
	return ""
}

func (m *metrics) count(proto int, answered bool, what outcome) {
	if !answered {
		m.dropped[proto].Inc()
		return
	}
	if c := m.usual[proto][what.code]; c != nil {
		c.Inc()
	}
	if what.truncated {
		m.truncated.Inc()
	}
}
