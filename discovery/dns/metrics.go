package dns

import (
	"fmt"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
)

// Transports, as indexes of the counters.
const (
	protoUDP = iota
	protoTCP
)

var protos = [2]string{protoUDP: "udp", protoTCP: "tcp"}

// metrics counts what happens.
type metrics struct {
	responses *prometheus.CounterVec
	counters  [2]map[int]prometheus.Counter // of responses with the usual codes
	dropped   [2]prometheus.Counter
	truncated prometheus.Counter
	failed    prometheus.Counter
	refused   prometheus.Counter
}

// usual are the codes that this server answers with: their counters are there from the start.
var usual = []int{dns.RcodeSuccess, dns.RcodeFormatError, dns.RcodeServerFailure, dns.RcodeNameError, dns.RcodeNotImplemented,
	dns.RcodeRefused, dns.RcodeBadVers}

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
	for p, proto := range protos {
		m.dropped[p] = dropped.WithLabelValues(proto)
		m.counters[p] = map[int]prometheus.Counter{}
		for _, code := range usual {
			m.counters[p][code] = m.responses.WithLabelValues(proto, codeName(code))
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

// codeName returns a code as DNS tools print it.
func codeName(code int) string {
	if code == dns.RcodeBadVers { // the library knows it as the other meaning of its number
		return "BADVERS"
	}
	return dns.RcodeToString[code]
}

func (m *metrics) response(proto, code int) {
	if c := m.counters[proto][code]; c != nil {
		c.Inc()
		return
	}
	m.responses.WithLabelValues(protos[proto], codeName(code)).Inc()
}
