package lab

import (
	"context"
	"sync"
	"time"

	"seaway.dev/seaway/lab/layout"
	"seaway.dev/seaway/lab/machine"
	"seaway.dev/seaway/lab/state"
)

// Status of the lab, as `seaway-lab status -o json` prints it.
type Status struct {
	Phase    state.Phase     `json:"phase"`
	Started  time.Time       `json:"started"`
	State    string          `json:"state"`
	Healthy  bool            `json:"healthy"`
	Clusters []ClusterStatus `json:"clusters"`
}

// ClusterStatus is one cluster's part.
type ClusterStatus struct {
	Name        string          `json:"name"`
	Private     bool            `json:"private"`
	API         bool            `json:"api"`
	NodesReady  int             `json:"nodesReady"`
	Nodes       int             `json:"nodes"`
	PodCIDR     string          `json:"podCIDR"`
	ServiceCIDR string          `json:"serviceCIDR"`
	DNSIP       string          `json:"dnsIP"`
	LAN         string          `json:"lan"`
	WAN         string          `json:"wan"`
	WAN6        string          `json:"wan6"`
	Outside     string          `json:"outside,omitempty"`
	Server      string          `json:"server"`
	Kubeconfig  string          `json:"kubeconfig"`
	Machines    []MachineStatus `json:"machines"`
	Cost        *Cost           `json:"cost,omitempty"`
}

// MachineStatus is one machine's part. Ready is only said of nodes.
type MachineStatus struct {
	Name    string        `json:"name"`
	Role    layout.Role   `json:"role"`
	State   machine.State `json:"state"`
	Cable   bool          `json:"cable"`
	Ready   *bool         `json:"ready,omitempty"`
	IP      string        `json:"ip"`
	IPv6    string        `json:"ipv6"`
	PodCIDR string        `json:"podCIDR,omitempty"`
	PID     int           `json:"pid,omitempty"`
	Logs    string        `json:"logs"`
}

// Status asks all clusters at once; one that does not answer costs two seconds.
func (l Lab) Status(ctx context.Context) (Status, error) {
	rec, err := l.Dir.Load()
	if err != nil {
		return Status{}, err
	}
	s := Status{Phase: rec.Phase, Started: rec.Started, State: string(l.Dir), Clusters: make([]ClusterStatus, len(rec.Layout.Clusters))}
	var wg sync.WaitGroup
	for i, c := range rec.Layout.Clusters {
		wg.Go(func() { s.Clusters[i] = l.clusterStatus(ctx, rec, c) })
	}
	wg.Wait()
	s.Healthy = rec.Phase == state.Up
	for _, c := range s.Clusters {
		s.Healthy = s.Healthy && c.API && c.NodesReady == c.Nodes
		for _, m := range c.Machines {
			s.Healthy = s.Healthy && m.State == machine.Running && m.Cable
		}
	}
	return s, nil
}

func (l Lab) clusterStatus(ctx context.Context, rec state.Lab, c layout.Cluster) ClusterStatus {
	s := ClusterStatus{Name: c.Name, Private: c.Private, Nodes: len(c.Nodes()), PodCIDR: c.PodCIDR.String(), ServiceCIDR: c.ServiceCIDR.String(),
		DNSIP: c.DNSIP.String(), LAN: c.LAN.String(), WAN: c.WAN.String(), WAN6: c.WAN6.String(), Server: c.Server(), Kubeconfig: l.Dir.Kubeconfig(c.Name)}
	if c.Private {
		s.Outside = c.Outside.String()
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	var ready map[string]bool
	if cl, err := l.Cluster(c); err == nil {
		ready, err = cl.Nodes(ctx)
		s.API = err == nil
	}
	for _, p := range c.Machines {
		m, err := machine.Find(l.Dir, rec, p.Name)
		if err != nil {
			continue // the layout lists it, so it is there
		}
		ms := MachineStatus{Name: p.Name, Role: p.Role, State: m.State(), Cable: m.Connected(), IP: p.IP.String(), IPv6: p.IPv6.String(), Logs: m.LogDir()}
		if ms.State != machine.Off {
			ms.PID = m.Process().PID
		}
		if p.Role == layout.Node {
			r := ready[p.Name]
			ms.Ready, ms.PodCIDR = &r, p.PodCIDR.String()
			if r {
				s.NodesReady++
			}
		}
		s.Machines = append(s.Machines, ms)
	}
	return s
}
