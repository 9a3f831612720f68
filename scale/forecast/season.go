package forecast

import "math"

// Season is a period that was found, and how the load deviates from it now. The shape is not kept: it is read from the
// ring, the mean of what was Period, 2 Period, ... bins ago, the newer the weightier, gaps left out.
type Season struct {
	Period      int64 // bins of the ring; 0: none
	Quick, Slow float64
	Known       bool
	bin         int64 // the ring's bin for which shape was made
	shape       []float64
	period      int64
}

const (
	reach  = 16 // bins ahead that a shape covers
	cycles = 10
)

func (s *Season) ready() bool { return s.Period > 0 && s.Known }

// build makes the shape: logarithms of the rate from two bins ago to reach bins ahead.
func (s *Season) build(r *Ring) {
	if s.shape != nil && s.bin == r.Head && s.period == s.Period {
		return
	}
	if s.period != s.Period {
		s.Known = false
	}
	s.bin, s.period = r.Head, s.Period
	if s.shape == nil {
		s.shape = make([]float64, reach+3)
	}
	n := s.Period * cycles
	n = min(n, int64(len(r.Vals))) / s.Period
	var sums, ws [reach + 3]float64
	w := 1.
	for j := int64(1); j <= n; j++ {
		base := r.smooth(r.Head-j*s.Period, 3)
		if math.IsNaN(base) {
			continue
		}
		for k := range s.shape {
			b := r.Head - 2 + int64(k) - j*s.Period
			if v := r.smooth(b, 1); !math.IsNaN(v) {
				// Relative to that cycle's own level, so that cycles of other levels can be averaged.
				sums[k] += w * math.Log((v+0.05)/(base+0.05))
				ws[k] += w
			}
		}
		w *= 0.75
	}
	for k := range s.shape {
		s.shape[k] = math.NaN()
		if ws[k] > 0 {
			s.shape[k] = sums[k] / ws[k]
		}
	}
}

// log is the shape at a Unix time.
func (s *Season) log(r *Ring, t float64) float64 {
	x := t/float64(r.Step) - 0.5 - float64(r.Head-2)
	i := int(math.Floor(x))
	if i < 0 || i+1 >= len(s.shape) {
		i = max(0, min(len(s.shape)-2, i))
		x = math.Max(0, math.Min(float64(len(s.shape)-1), x))
	}
	f := x - float64(i)
	return (1-f)*s.shape[i] + f*s.shape[i+1]
}

// follow moves the deviation of the load from the shape.
func (s *Season) follow(r *Ring, t, dt, rate float64) {
	if s.Period == 0 {
		s.Known = false
		return
	}
	head, known := s.bin, s.Known && s.shape != nil
	var was float64
	if known {
		was = s.log(r, t)
	}
	s.build(r)
	shape := s.log(r, t)
	if math.IsNaN(shape) {
		s.Known = false
		return
	}
	now := math.Log(rate+0.05) - shape
	if !s.Known || !known || math.IsNaN(was) {
		s.Quick, s.Slow, s.Known = now, now, true
		return
	}
	if head != r.Head { // the shape is relative to another bin now
		s.Quick, s.Slow = s.Quick+was-shape, s.Slow+was-shape
	}
	s.Quick += (1 - math.Exp2(-dt/60)) * (now - s.Quick)
	s.Slow += (1 - math.Exp2(-dt/900)) * (now - s.Slow)
}

// ahead is the shape at a later time, and the factors of the deviations.
func (s *Season) ahead(r *Ring, t float64) (shape, quick, slow float64, ok bool) {
	if !s.ready() || s.shape == nil {
		return 0, 0, 0, false
	}
	v := s.log(r, t)
	if math.IsNaN(v) {
		return 0, 0, 0, false
	}
	return math.Exp(v), math.Exp(s.Quick), math.Exp(s.Slow), true
}
