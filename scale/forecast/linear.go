package forecast

import "math"

// Linear is ridge regression, learnt bin by bin (recursive least squares with forgetting): the change of the log rate
// over the next ahead bins from its changes of late and from what changed a period ago.
type Linear struct {
	P    [features][features]float64
	Beta [features]float64
	N    float64
	x    [features]float64 // of the newest bin
}

const (
	features = 7
	ahead    = 3 // coarse bins: a quarter of an hour
)

func (l *Linear) ready() bool { return l.N > 100 }

func (l *Linear) features(r *Ring, b, period int64) (x [features]float64, ok bool) {
	lg := func(b int64) float64 { return math.Log(r.at(b) + 0.05) }
	x[0] = 0.1
	for i := int64(0); i < 3; i++ {
		x[1+i] = lg(b-i) - lg(b-i-1)
	}
	x[4] = lg(b) - lg(b-12)
	if period > 0 {
		x[5] = math.Log(r.smooth(b-period+ahead, 1)+0.05) - math.Log(r.smooth(b-period, 1)+0.05)
		x[6] = math.Log(r.smooth(b-2*period+ahead, 1)+0.05) - math.Log(r.smooth(b-2*period, 1)+0.05)
	}
	for i, v := range x {
		if math.IsNaN(v) {
			if i < 5 {
				return x, false
			}
			x[i] = 0
		}
		x[i] = math.Max(-1, math.Min(1, x[i]))
	}
	return x, true
}

func (l *Linear) learn(r *Ring, period int64) {
	if l.N == 0 {
		for i := range l.P {
			l.P[i][i] = 10 // 1/ridge
		}
	}
	x, ok := l.features(r, r.Head-ahead, period)
	y := math.Log(r.at(r.Head)+0.05) - math.Log(r.at(r.Head-ahead)+0.05)
	if ok && !math.IsNaN(y) {
		l.update(x, math.Max(-1, math.Min(1, y)))
	}
	if x, ok = l.features(r, r.Head, period); ok {
		l.x = x
	} else {
		l.x = [features]float64{}
	}
}

func (l *Linear) update(x [features]float64, y float64) {
	const forget = 0.9995
	l.N++
	var px [features]float64
	den, say := forget, 0.
	for i := range x {
		for j := range x {
			px[i] += l.P[i][j] * x[j]
		}
	}
	for i := range x {
		den += x[i] * px[i]
		say += l.Beta[i] * x[i]
	}
	for i := range x {
		l.Beta[i] += px[i] / den * (y - say)
		for j := range x {
			l.P[i][j] = (l.P[i][j] - px[i]*px[j]/den) / forget
		}
		l.P[i][i] = math.Min(l.P[i][i], 10)
	}
}

// say is the rate in s seconds, given the level now.
func (l *Linear) say(s, level float64) float64 {
	sum := 0.
	for i, x := range l.x {
		sum += l.Beta[i] * x
	}
	return level * math.Exp(math.Max(-1, math.Min(1, sum))*math.Min(s/(300*ahead), 2))
}
