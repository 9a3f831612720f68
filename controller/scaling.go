package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"seaway.dev/seaway/controller/roster"
	"seaway.dev/seaway/fleet"
)

const (
	scalingPace  = time.Second            // between two looks at what the autoscaler says
	scalingRare  = 10 * time.Second       // the same, while it says nothing
	scalingRest  = 200 * time.Millisecond // between two writes of what others say
	scalingStale = 30 * time.Second       // what has not changed for so long is no longer told: its writer beats more often
	maxSaid      = 256 << 10              // bytes of what the autoscaler says
)

// scaling passes words between this cluster's autoscaler and the others' by two ConfigMaps: the autoscaler needs no slice,
// and the controller no Autoscaler kind.
type scaling struct {
	l *leader

	mu    sync.Mutex
	heard map[string][]fleet.Scaling // nil: the autoscaler says nothing, and needs to hear nothing
	wake  chan struct{}

	version string // of what was said last, and since when it has not changed
	since   time.Time
	wrote   string // what others say, as it was written down last
}

func newScaling(l *leader) *scaling { return &scaling{l: l, wake: make(chan struct{}, 1)} }

// run looks at what the autoscaler says, and writes down what others say, until ctx ends.
func (s *scaling) run(ctx context.Context) error {
	look := time.NewTimer(0)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-look.C:
			spoken, err := s.look(ctx, time.Now())
			if err != nil && ctx.Err() == nil {
				s.l.log.Warn("cannot read what the autoscaler says", "err", err)
			}
			if spoken {
				look.Reset(scalingPace)
			} else {
				look.Reset(scalingRare)
			}
		case <-s.wake:
			if err := s.write(ctx); err != nil && ctx.Err() == nil {
				s.l.log.Warn("what other clusters' autoscalers say is not written down", "err", err)
			}
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(scalingRest):
			}
		}
	}
}

// look puts on the board what the autoscaler says, and tells whether it says anything.
func (s *scaling) look(ctx context.Context, now time.Time) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var cm corev1.ConfigMap
	if err := s.l.client.Get(ctx, client.ObjectKey{Namespace: s.l.cfg.Namespace, Name: fleet.ScalingSaid}, &cm); err != nil {
		if client.IgnoreNotFound(err) == nil {
			s.l.board.say(nil)
		}
		return false, client.IgnoreNotFound(err)
	}
	if cm.ResourceVersion != s.version {
		s.version, s.since = cm.ResourceVersion, now
	}
	if now.Sub(s.since) > scalingStale {
		s.l.board.say(nil)
		return false, nil
	}
	words, err := said(cm.Data[fleet.ScalingKey])
	s.l.board.say(words)
	return len(words) > 0, err
}

// said reads what the autoscaler says.
func said(text string) ([]fleet.Scaling, error) {
	if len(text) > maxSaid {
		return nil, fmt.Errorf("configmap %s: %d bytes, limit %d", fleet.ScalingSaid, len(text), maxSaid)
	}
	var words []fleet.Scaling
	if err := json.Unmarshal([]byte(text), &words); err != nil {
		return nil, fmt.Errorf("configmap %s: %w", fleet.ScalingSaid, err)
	}
	return words, nil
}

// offer says what others say now.
func (s *scaling) offer(r *roster.Roster) {
	heard := r.Scaling()
	s.mu.Lock()
	wanted := heard != nil || s.heard != nil
	s.heard = heard
	s.mu.Unlock()
	if !wanted {
		return
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// write writes down what others say, unless that was written last.
func (s *scaling) write(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	s.mu.Lock()
	heard := fleet.Heard{Cluster: s.l.cfg.Cluster, Words: s.heard}
	s.mu.Unlock()
	text, err := json.Marshal(heard)
	if err != nil || string(text) == s.wrote {
		return err
	}
	err = putConfigMap(ctx, s.l.client, &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.l.cfg.Namespace, Name: fleet.ScalingHeard},
		Data:       map[string]string{fleet.ScalingKey: string(text)},
	})
	if err == nil {
		s.wrote = string(text)
	}
	return err
}
