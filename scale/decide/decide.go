// Package decide finds the cheapest way through the next while: how many pods should be ready at each step of a horizon,
// given what pods and nodes cost, what each count is expected to cost in bad requests, what changing costs, and how
// soon more can be had. The answer is exact (dynamic programming), and only its beginning is acted upon: a few seconds
// later the question is asked again with newer facts.
package decide

import "math"

// Problem is one question. Counts are Low..Low+len(Stage[i])-1 at every step.
type Problem struct {
	Low   int
	Stage [][]float64 // [step][count-Low]: what it costs to have that many ready during the step
	Limit []int       // [step]: the most that can be ready by then, whatever is ordered now
	Now   int         // pods wanted now
	Up    float64     // cost of each pod that is added: it is paid for while it starts, and while it ends
	Down  float64     // cost of each pod that is taken away
	Once  float64     // cost of any change at all
}

// Path is the answer: pods at each step, and what all of it costs.
type Path struct {
	Pods []int
	Cost float64
}

// Solve finds the cheapest path. It takes time in proportion to steps times counts.
func Solve(p Problem) Path {
	steps := len(p.Stage)
	if steps == 0 {
		return Path{}
	}
	n := len(p.Stage[0])
	from := make([]int32, steps*n)
	cost, next := make([]float64, n), make([]float64, n)
	for i := range cost {
		cost[i] = math.Inf(1)
	}
	start := max(0, min(n-1, p.Now-p.Low))
	cost[start] = 0
	for s := range steps {
		spread(cost, next, from[s*n:(s+1)*n], p)
		limit := max(p.Limit[s]-p.Low, 0)
		for i := range next {
			if i > limit {
				next[i] = math.Inf(1)
			} else {
				next[i] += p.Stage[s][i]
			}
		}
		cost, next = next, cost
	}
	best := 0
	for i, c := range cost {
		if c < cost[best] {
			best = i
		}
	}
	path := Path{Pods: make([]int, steps), Cost: cost[best]}
	for s := steps - 1; s >= 0; s-- {
		path.Pods[s] = best + p.Low
		best = int(from[s*n+best])
	}
	return path
}

// spread takes every count one step on: to stay is free, any change costs Once and its size.
func spread(cost, next []float64, from []int32, p Problem) {
	best, at := math.Inf(1), 0 // of cost[j] - Up j over j < i
	for i := range cost {
		next[i], from[i] = cost[i], int32(i)
		if c := best + p.Up*float64(i) + p.Once; c < next[i] {
			next[i], from[i] = c, int32(at)
		}
		if c := cost[i] - p.Up*float64(i); c < best {
			best, at = c, i
		}
	}
	best = math.Inf(1) // of cost[j] + Down j over j > i
	for i := len(cost) - 1; i >= 0; i-- {
		if c := best - p.Down*float64(i) + p.Once; c < next[i] {
			next[i], from[i] = c, int32(at)
		}
		if c := cost[i] + p.Down*float64(i); c < best {
			best, at = c, i
		}
	}
}

// Keep is the ski-rental rule for scaling down: what was wanted lately is kept until having kept it has cost as much
// as getting it anew would. It never pays more than twice what knowing the future would.
type Keep struct {
	Times []int64 // Unix seconds
	Wants []int
}

// Hold notes what is wanted now and answers the most that was wanted within the last window seconds.
func (k *Keep) Hold(now int64, want int, window int64) int {
	// A queue of falling maxima: whoever is older and smaller can never matter again.
	for len(k.Wants) > 0 && k.Wants[len(k.Wants)-1] <= want {
		k.Wants, k.Times = k.Wants[:len(k.Wants)-1], k.Times[:len(k.Times)-1]
	}
	k.Wants, k.Times = append(k.Wants, want), append(k.Times, now)
	i := 0
	for i < len(k.Times)-1 && (k.Times[i] < now-window || k.Times[i] > now) {
		i++
	}
	if i > 0 {
		k.Wants, k.Times = append([]int(nil), k.Wants[i:]...), append([]int64(nil), k.Times[i:]...)
	}
	return k.Wants[0]
}
