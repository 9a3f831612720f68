package controller

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"seaway.dev/seaway/controller/roster"
	"seaway.dev/seaway/fleet"
)

// How often the status is written: soon after something changed, seldom for counters alone.
const (
	statusPace  = 2 * time.Second
	statusSlow  = time.Minute
	statusKey   = "status" // in the ConfigMap's data
	maxStatus   = 900 << 10
	maxProblem  = 200
	silentAfter = 30 * time.Second // a node without a report for this long after the leader began is a problem
)

// statusBoard gathers what people should see of this cluster and writes it into a ConfigMap, for the CLI and console.
type statusBoard struct {
	l    *leader
	wake chan struct{}

	mu       sync.Mutex
	facts    *roster.Facts
	roster   *roster.Roster
	problems []fleet.Problem // of the addresses
	link     fleet.HubState
	hubErr   error
	bad      map[string]error     // cluster → why its bulletin cannot be read
	heard    map[string]heardAt   // cluster → its bulletin's number and when that changed
	since    map[string]time.Time // problem → when it was first seen
	began    time.Time
}

type heardAt struct {
	epoch, rev uint64
	at         time.Time
}

func newStatusBoard(l *leader) *statusBoard {
	return &statusBoard{
		l: l, wake: make(chan struct{}, 1), bad: map[string]error{}, heard: map[string]heardAt{},
		since: map[string]time.Time{}, began: time.Now(),
	}
}

func (s *statusBoard) touch() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// offer says what is known now.
func (s *statusBoard) offer(f *roster.Facts, r *roster.Roster, problems []fleet.Problem) {
	s.mu.Lock()
	s.facts, s.roster, s.problems = f, r, problems
	for name, b := range f.Bulletins {
		if h := s.heard[name]; h.epoch != b.Epoch || h.rev != b.Rev {
			s.heard[name] = heardAt{b.Epoch, b.Rev, time.Now()}
		}
	}
	s.mu.Unlock()
	s.l.streams.forget(f.Nodes)
	s.touch()
}

// hub says how the link to the hub stands.
func (s *statusBoard) hub(connected bool, err error) {
	s.mu.Lock()
	if s.link.Connected != connected || s.link.Since.IsZero() {
		s.link.Since = time.Now()
	}
	s.link.Connected, s.link.Error, s.hubErr = connected, "", err
	if err != nil {
		s.link.Error = err.Error()
	}
	s.mu.Unlock()
	s.touch()
}

// refused says that a cluster's bulletin cannot be read; nil that it can.
func (s *statusBoard) refused(cluster string, err error) {
	s.mu.Lock()
	if err == nil {
		delete(s.bad, cluster)
	} else {
		s.bad[cluster] = err
	}
	s.mu.Unlock()
	if err != nil {
		s.touch()
	}
}

// run writes the status until ctx ends.
func (s *statusBoard) run(ctx context.Context) error {
	var wrote fleet.Status
	slow := time.NewTicker(statusSlow)
	defer slow.Stop()
	for {
		whole := false
		select {
		case <-ctx.Done():
			return nil
		case <-s.wake:
		case <-slow.C:
			whole = true // counters, too
		}
		st := s.compose(time.Now())
		if st == nil {
			continue
		}
		s.count(st)
		if !whole && reflect.DeepEqual(settled(*st), settled(wrote)) {
			continue
		}
		if err := s.write(ctx, st); err != nil {
			if ctx.Err() == nil {
				s.l.log.Warn("status not written", "err", err)
			}
		} else {
			wrote = *st
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(statusPace):
		}
	}
}

// settled is a status without what changes all the time.
func settled(st fleet.Status) fleet.Status {
	st.Written = time.Time{}
	st.Nodes = slices.Clone(st.Nodes)
	for i := range st.Nodes {
		n := &st.Nodes[i]
		n.Heard = time.Time{}
		n.Peers = slices.Clone(n.Peers)
		for j := range n.Peers {
			p := &n.Peers[j]
			p.RxBytes, p.TxBytes, p.Handshake, p.RTT, p.Loss, p.Why = 0, 0, time.Time{}, 0, 0, ""
		}
	}
	st.Members = slices.Clone(st.Members)
	for i := range st.Members {
		st.Members[i].Heard = time.Time{}
	}
	return st
}

func (s *statusBoard) write(ctx context.Context, st *fleet.Status) error {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	text, err := statusText(*st)
	if err != nil {
		return err
	}
	return putConfigMap(ctx, s.l.client, &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.l.cfg.Namespace, Name: StatusMap},
		Data:       map[string]string{statusKey: text},
	})
}

// statusText cuts the longest lists if the status would not fit.
func statusText(st fleet.Status) (string, error) {
	for {
		text, err := json.Marshal(st)
		if err != nil {
			return "", fmt.Errorf("write status: %w", err)
		}
		if len(text) <= maxStatus {
			return string(text), nil
		}
		st.Truncated = true
		longest := 0
		for _, n := range st.Nodes {
			longest = max(longest, len(n.Peers), len(n.Pods))
		}
		if longest == 0 {
			st.Nodes = st.Nodes[:len(st.Nodes)/2]
			if len(st.Nodes) == 0 {
				return "", fmt.Errorf("write status: more than %d bytes", maxStatus)
			}
			continue
		}
		st.Nodes = slices.Clone(st.Nodes)
		for i := range st.Nodes {
			n := &st.Nodes[i]
			n.Peers = n.Peers[:min(len(n.Peers), longest/2)]
			n.Pods = n.Pods[:min(len(n.Pods), longest/2)]
		}
	}
}

// compose puts the status together; nil while nothing is known.
func (s *statusBoard) compose(now time.Time) *fleet.Status {
	nodes := s.l.streams.snapshot()
	s.mu.Lock()
	defer s.mu.Unlock()
	st := &fleet.Status{
		Version: fleet.WireVersion, Cluster: s.l.cfg.Cluster, Leader: s.l.cfg.Pod, Written: now.UTC(), Hub: s.link,
	}
	if s.roster != nil {
		st.Nodes = s.nodes(nodes)
		st.Slices = s.slices()
		st.Members = s.members()
		s.l.carry.members(st.Members, nodes)
		st.Purged = purged(s.facts, s.l.clear.Load())
	}
	st.Problems = s.allProblems(nodes, now)
	return st
}

// purged says how far leaving has come, as nodes; "" if nobody leaves. The last node is not counted before the
// cluster's own objects are clear, too: whoever waits for all may uninstall the controller then.
func purged(f *roster.Facts, clear bool) string {
	if !f.Leaving {
		return ""
	}
	n := 0
	for name := range f.Nodes {
		if rep := f.Reports[name]; rep == nil || rep.Purged {
			n++ // a node that has never reported has nothing of ours
		}
	}
	if !clear && n == len(f.Nodes) {
		n = max(n-1, 0)
	}
	return fmt.Sprintf("%d/%d", n, len(f.Nodes))
}

func (s *statusBoard) nodes(live map[string]nodeStream) []fleet.NodeState {
	var out []fleet.NodeState
	gateways := s.roster.Gateways()
	for name := range s.facts.Nodes {
		n := fleet.NodeState{Name: name, Gateway: slices.Contains(gateways, name), Slices: s.roster.Hosts(name)}
		if st, ok := live[name]; ok {
			n.Connected, n.Heard = st.open > 0, st.heard.UTC()
			if rep := st.report; rep != nil {
				n.Applied = st.told != nil && rep.IntentRev == st.told.Rev
				n.Driver, n.Addrs, n.Port, n.MTU, n.Purged = rep.Driver, rep.Addrs, rep.Port, rep.MTU, rep.Purged
				n.Pods = slices.SortedFunc(slices.Values(rep.Attachments), func(a, b fleet.Attachment) int {
					return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Pod, b.Pod))
				})
				n.Peers = slices.SortedFunc(slices.Values(rep.Peers), func(a, b fleet.PeerState) int {
					return cmp.Or(strings.Compare(a.Slice, b.Slice), strings.Compare(a.Peer, b.Peer))
				})
			}
		}
		out = append(out, n)
	}
	slices.SortFunc(out, func(a, b fleet.NodeState) int { return strings.Compare(a.Name, b.Name) })
	return out
}

func (s *statusBoard) slices() []fleet.SliceState {
	var out []fleet.SliceState
	others, _ := s.roster.Others()
	for _, sl := range s.roster.Slices() {
		st := fleet.SliceState{Name: sl.Name, Prefixes: sl.Prefixes, Blocks: s.roster.Blocks(sl.Name), Namespaces: sl.Namespaces}
		for _, p := range s.roster.Local() {
			if p.Slice == sl.Name {
				st.Pods++
				if s.roster.Attached(p.Namespace, p.Name) {
					st.Attached++
				}
			}
		}
		for _, b := range others {
			for _, p := range b.Pods {
				if p.Slice == sl.Name {
					st.Remote++
				}
			}
		}
		for _, svc := range s.facts.Services {
			if svc.Slice == sl.Name {
				st.Services++
			}
		}
		for i := range s.facts.Slices {
			if w := &s.facts.Slices[i]; w.Name == sl.Name {
				st.Rules = w.Rules(sl.Namespaces)
			}
		}
		st.Leased, st.Resting = s.l.ledgers.usage(sl.Name)
		out = append(out, st)
	}
	return out
}

func (s *statusBoard) members() []fleet.MemberState {
	var out []fleet.MemberState
	others, lies := s.roster.Others()
	for _, m := range s.facts.Members {
		if m.Name == s.facts.Cluster {
			continue
		}
		st := fleet.MemberState{Name: m.Name, Private: m.Private, Refused: lies[m.Name].Count}
		if b := others[m.Name]; b != nil {
			st.Epoch, st.Rev, st.Heard = b.Epoch, b.Rev, s.heard[m.Name].at.UTC()
			st.Nodes, st.Pods, st.Exports = len(b.Nodes), len(b.Pods), len(b.Exports)
		}
		out = append(out, st)
	}
	return out
}
