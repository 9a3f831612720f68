package relay

import "net/netip"

// Limits of handshake initiations. Each costs one BLAKE2s of 116 bytes per known key to find out whom it is for.
const (
	knownRate, knownBurst     = 1000, 4000 // per second and source, from addresses that the configuration names
	strangerRate, strangerCap = 50, 500    // per second and source (IPv6: per /64), from others
	totalRate, totalBurst     = 500, 1000  // per second, from all strangers together
	maxSources                = 4096       // strangers remembered
)

const second = int64(1e9) // times here are nanoseconds of some monotonic clock

// bucket is a token bucket.
type bucket struct {
	tokens float64
	at     int64
}

func (b *bucket) take(now int64, rate, burst float64) bool { return b.takeMany(1, now, rate, burst) }

// takeMany takes so many tokens, or none.
func (b *bucket) takeMany(n float64, now int64, rate, burst float64) bool {
	if b.at == 0 {
		b.tokens = burst
	} else if d := now - b.at; d > 0 {
		b.tokens = min(burst, b.tokens+float64(d)*rate/float64(second))
	}
	b.at = now
	if b.tokens < n {
		return false
	}
	b.tokens -= n
	return true
}

// limiter bounds the work that initiations can cause.
type limiter struct {
	sources map[netip.Addr]*bucket
	total   bucket
	swept   int64
}

func (l *limiter) allow(src netip.Addr, known bool, now int64) bool {
	if l.sources == nil {
		l.sources = make(map[netip.Addr]*bucket)
	}
	rate, burst := float64(knownRate), float64(knownBurst)
	if !known {
		rate, burst = strangerRate, strangerCap
		if src.Is6() {
			p, _ := src.WithZone("").Prefix(64) // 64 is valid
			src = p.Addr()
		}
	}
	b := l.sources[src]
	if b == nil {
		if len(l.sources) >= maxSources && now-l.swept >= second { // not for each packet of a flood
			l.forget(now)
		}
		if len(l.sources) >= maxSources && !known {
			return l.total.take(now, totalRate, totalBurst)
		}
		b = &bucket{}
		l.sources[src] = b
	}
	return b.take(now, rate, burst) && (known || l.total.take(now, totalRate, totalBurst))
}

// forget drops the sources whose buckets have had time to refill.
func (l *limiter) forget(now int64) {
	l.swept = now
	for a, b := range l.sources {
		if now-b.at > 10*second {
			delete(l.sources, a)
		}
	}
}
