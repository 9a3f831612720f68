// Package decide holds the rule for scaling down, which the pilot and the learner's twins share.
package decide

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
