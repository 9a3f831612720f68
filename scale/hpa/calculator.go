package hpa

import "math"

// tolerances are how far the ratio of usage to target may stray from 1 before anything is done.
type tolerances struct{ up, down float64 }

func (t tolerances) within(ratio float64) bool { return 1-t.down <= ratio && ratio <= 1+t.up }

// milli is a quantity in thousandths, as the metrics APIs carry it: rounded up.
func milli(v float64) int64 { return int64(math.Ceil(v*1000 - 1e-6)) }

// tally is the pods sorted by what is known of them. Pods are taken to request the same.
type tally struct {
	ready    int   // count as ready
	measured int   // have a metric that counts
	usage    int64 // sum over those, in thousandths
	request  int64 // of each pod, in thousandths of a core
	unready  int   // set aside: pending, or not ready as far as their metric goes
	missing  int   // run, and have no metric
}

// utilisation is the replica calculator for a resource metric with a target in percent of the request.
func (t tally) utilisation(current int, target int64, tol tolerances) int {
	ratio := func(usage int64, pods int) float64 {
		total := t.request * int64(pods)
		if total == 0 {
			return math.NaN()
		}
		return float64(usage*100/total) / float64(target) // whole percents, as the controller has it
	}
	return t.replicas(current, tol, ratio, t.request*max(100, target)/100)
}

// average is the replica calculator for a pods metric with a target average value.
func (t tally) average(current int, target int64, tol tolerances) int {
	ratio := func(usage int64, pods int) float64 {
		if pods == 0 {
			return math.NaN()
		}
		return float64(usage/int64(pods)) / float64(target)
	}
	return t.replicas(current, tol, ratio, target)
}

// replicas is what both have in common. ratio compares a sum over some pods with the target; full is what a pod
// without metrics counts when the others say to scale down.
func (t tally) replicas(current int, tol tolerances, ratio func(usage int64, pods int) float64, full int64) int {
	first := ratio(t.usage, t.measured)
	if t.measured == 0 || math.IsNaN(first) {
		return current
	}
	upUnready := t.unready > 0 && first > 1
	if !upUnready && t.missing == 0 {
		if tol.within(first) {
			return current
		}
		return ceil(first * float64(t.ready))
	}
	usage, pods := t.usage, t.measured
	if t.missing > 0 && first != 1 {
		pods += t.missing // scaling up they count as idle, scaling down as fully busy
		if first < 1 {
			usage += full * int64(t.missing)
		}
	}
	if upUnready {
		pods += t.unready
	}
	second := ratio(usage, pods)
	if tol.within(second) || (first < 1 && second > 1) || (first > 1 && second < 1) {
		return current
	}
	want := ceil(second * float64(pods))
	if (second < 1 && want > current) || (second > 1 && want < current) {
		return current
	}
	return want
}

// external is the replica calculator for an external metric with a target average value.
func external(current int, usage, target int64, tol tolerances) int {
	if current > 0 && tol.within(float64(usage)/(float64(target)*float64(current))) {
		return current
	}
	return ceil(float64(usage) / float64(target))
}

func ceil(v float64) int { return int(min(math.Ceil(v), math.MaxInt32)) }
