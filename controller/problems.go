package controller

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"seaway.dev/seaway/fleet"
)

// allProblems gathers what a person must act on, with the time since when each is known. The board's lock is held.
func (s *statusBoard) allProblems(live map[string]nodeStream, now time.Time) []fleet.Problem {
	var out []fleet.Problem
	add := func(reason, where, message, next string) {
		out = append(out, fleet.Problem{Reason: reason, Where: where, Message: message, Next: next})
	}
	out = append(out, s.problems...)
	if s.roster != nil {
		out = append(out, s.roster.Problems()...)
	}
	if p := s.l.mailbox.trouble(); p != nil {
		out = append(out, *p)
	}
	out = append(out, s.l.carry.problems(now)...)
	s.hubProblem(add)
	if src := s.l.credential.Load(); src != nil {
		if p := src.Problem(); p != nil && p.Reason != "HubUnreachable" { // which hubProblem says
			out = append(out, *p)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.bad)) {
		add("BulletinRefused", "cluster "+name, s.bad[name].Error(),
			"what it said before still counts; look at the controller's log in cluster "+name)
	}
	if s.facts != nil {
		for _, name := range slices.Sorted(maps.Keys(s.facts.Nodes)) {
			st, known := live[name]
			if (!known || st.open == 0) && now.Sub(s.began) > silentAfter && now.Sub(st.heard) > silentAfter {
				add("NodeSilent", "node "+name, "its agent has no stream to the controller: the node keeps its last intent",
					"look at `kubectl -n seaway-system get pods -o wide --field-selector spec.nodeName="+name+"`")
			}
			if st.report != nil {
				for _, p := range st.report.Problems {
					if p.Where == "" {
						p.Where = "node " + name
					}
					out = append(out, p)
				}
			}
		}
	}
	if len(out) > maxProblem {
		out = out[:maxProblem]
	}
	s.date(out, now)
	slices.SortFunc(out, func(a, b fleet.Problem) int {
		return cmp.Or(strings.Compare(a.Reason, b.Reason), strings.Compare(a.Where, b.Where), strings.Compare(a.Message, b.Message))
	})
	return out
}

func (s *statusBoard) hubProblem(add func(reason, where, message, next string)) {
	switch err := s.hubErr; {
	case err == nil:
	case apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) || apierrors.IsNotFound(err):
		add("HubRefuses", "hub", fmt.Sprintf("the hub does not let this cluster in: %v", err),
			"see whether the cluster is still in the fleet (`seaway status` at the hub); if it is not, join again with a new token (`seaway token create --rejoin` if its name is still listed)")
	default:
		add("HubUnreachable", "hub", fmt.Sprintf("no link to the hub: %v", err),
			"traffic, names and policies go on as last known; new intent waits. See whether this cluster can reach the hub's API server")
	}
}

// date gives each problem the time at which it was first seen, and forgets those that are gone.
func (s *statusBoard) date(problems []fleet.Problem, now time.Time) {
	seen := map[string]bool{}
	for i := range problems {
		p := &problems[i]
		id := p.Reason + " " + p.Where
		seen[id] = true
		if p.Since.IsZero() {
			if s.since[id].IsZero() {
				s.since[id] = now.UTC().Truncate(time.Second)
			}
			p.Since = s.since[id]
		}
	}
	maps.DeleteFunc(s.since, func(id string, _ time.Time) bool { return !seen[id] })
}

// count shows the status as metrics.
func (s *statusBoard) count(st *fleet.Status) {
	m := s.l.meters
	m.nodes.Set(float64(s.l.streams.connected()))
	m.pods.Reset()
	m.addresses.Reset()
	for _, sl := range st.Slices {
		m.pods.WithLabelValues(sl.Name, "true").Set(float64(sl.Attached))
		m.pods.WithLabelValues(sl.Name, "false").Set(float64(sl.Pods - sl.Attached))
		m.addresses.WithLabelValues(sl.Name, "held").Set(float64(sl.Leased))
		m.addresses.WithLabelValues(sl.Name, "resting").Set(float64(sl.Resting))
	}
	m.lies.Reset()
	for _, other := range st.Members {
		m.lies.WithLabelValues(other.Name).Set(float64(other.Refused))
	}
	m.problems.Reset()
	for _, p := range st.Problems {
		m.problems.WithLabelValues(p.Reason).Inc()
	}
}
