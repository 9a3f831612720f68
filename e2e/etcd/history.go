// Package etcd plays etcd stretched over three clusters on a slice: one member in each, clients that read and write in
// each, and faults of every kind at a member. Every operation is noted with its times, and the whole history must be
// linearizable: as if there were one server and each operation took effect at one moment between its begin and its end.
package etcd

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
)

// operation is one line of a client's log. An operation whose end is unknown may still take effect at any time.
type operation struct {
	put, known bool
	key, value string // of a get: what was read, "-" if nothing
	begin, end time.Time
}

// readLog reads a client's log; the last line may be half.
func readLog(r io.Reader) ([]operation, error) {
	var out []operation
	in := bufio.NewReader(r)
	for {
		line, err := in.ReadString('\n')
		if err == io.EOF {
			return out, nil
		}
		if err != nil {
			return out, err
		}
		f := strings.Fields(line)
		if len(f) != 6 || (f[0] != "put" && f[0] != "get") || (f[5] != "ok" && f[5] != "unknown") {
			return out, fmt.Errorf("client's log: %q: want put|get KEY VALUE BEGIN END ok|unknown", strings.TrimSpace(line))
		}
		begin, err1 := strconv.ParseInt(f[3], 10, 64)
		end, err2 := strconv.ParseInt(f[4], 10, 64)
		if err1 != nil || err2 != nil || end < begin {
			return out, fmt.Errorf("client's log: %q: bad times", strings.TrimSpace(line))
		}
		out = append(out, operation{f[0] == "put", f[5] == "ok", f[1], f[2], time.UnixMicro(begin), time.UnixMicro(end)})
	}
}

// input and output of porcupine's model.
type input struct {
	put        bool
	key, value string
}

// register is the model: one value for each key.
var register = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		byKey := map[string][]porcupine.Operation{}
		for _, o := range history {
			k := o.Input.(input).key
			byKey[k] = append(byKey[k], o)
		}
		var out [][]porcupine.Operation
		for _, l := range byKey {
			out = append(out, l)
		}
		return out
	},
	Init: func() any { return "-" },
	Step: func(state, in, out any) (bool, any) {
		if i := in.(input); i.put {
			return true, i.value
		}
		return out.(string) == state.(string), state
	},
}

// verdict of a check.
type verdict string

const (
	linearizable    verdict = "linearizable"
	notLinearizable verdict = "not linearizable"
	undecided       verdict = "undecided" // the check took too long
)

// check judges a history. Gets without an answer say nothing and are left out. So is a put without an answer whose
// value nobody read: had it taken effect, nobody saw it, and the rest must make sense without it.
func check(history []operation, limit time.Duration) verdict {
	read := map[string]bool{}
	var last time.Time
	for _, o := range history {
		if !o.put && o.known {
			read[o.value] = true
		}
		if o.end.After(last) {
			last = o.end
		}
	}
	var ops []porcupine.Operation
	for i, o := range history {
		if !o.known && (!o.put || !read[o.value]) {
			continue
		}
		end := o.end
		if !o.known {
			end = last.Add(time.Second)
		}
		ops = append(ops, porcupine.Operation{ClientId: i, Input: input{o.put, o.key, o.value}, Output: o.value, Call: o.begin.UnixNano(), Return: end.UnixNano()})
	}
	switch porcupine.CheckOperationsTimeout(register, ops, limit) {
	case porcupine.Ok:
		return linearizable
	case porcupine.Illegal:
		return notLinearizable
	}
	return undecided
}

// writeGap is the longest time without a finished write between two moments.
func writeGap(history []operation, from, to time.Time) time.Duration {
	var ends []time.Time
	for _, o := range history {
		if o.put && o.known && o.end.After(from) && o.end.Before(to) {
			ends = append(ends, o.end)
		}
	}
	slices.SortFunc(ends, time.Time.Compare)
	longest, at := time.Duration(0), from
	for _, e := range append(ends, to) {
		longest, at = max(longest, e.Sub(at)), e
	}
	return longest
}
