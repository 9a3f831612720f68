package lab

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"seaway.dev/seaway/lab/cgroup"
)

// Cost of a cluster's machines, pods included.
type Cost struct {
	// PSS is memory in MiB, with shared pages shared out.
	PSS float64 `json:"pssMiB"`
	// CPU in percent of one core, over the time it was watched.
	CPU       float64 `json:"cpuPercent"`
	Processes int     `json:"processes"`
}

// The kernel counts processor time in these.
const ticksPerSecond = 100

// AddCost watches all machines for a while and adds what they cost.
func (s *Status) AddCost(ctx context.Context, watch time.Duration) error {
	before := map[int]uint64{}
	for _, c := range s.Clusters {
		for _, m := range c.Machines {
			for _, pid := range cgroup.Procs(m.Name) {
				before[pid] = cpuTicks(pid)
			}
		}
	}
	start := time.Now()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(watch):
	}
	elapsed := time.Since(start).Seconds()
	for i := range s.Clusters {
		c := Cost{}
		var ticks uint64
		for _, m := range s.Clusters[i].Machines {
			for _, pid := range cgroup.Procs(m.Name) {
				c.Processes++
				c.PSS += pss(pid) / 1024
				if now := cpuTicks(pid); now > before[pid] {
					ticks += now - before[pid]
				}
			}
		}
		c.CPU = float64(ticks) * 100 / ticksPerSecond / elapsed
		s.Clusters[i].Cost = &c
	}
	return nil
}

func cpuTicks(pid int) uint64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(f) < 13 {
		return 0
	}
	user, _ := strconv.ParseUint(f[11], 10, 64)
	system, _ := strconv.ParseUint(f[12], 10, 64)
	return user + system
}

// pss in KiB.
func pss(pid int) float64 {
	f, err := os.Open(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if rest, ok := strings.CutPrefix(s.Text(), "Pss:"); ok {
			v, _ := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			return v
		}
	}
	return 0
}
