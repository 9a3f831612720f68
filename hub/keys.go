package hub

import (
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"seaway.dev/seaway/api/v1alpha1"
	"seaway.dev/seaway/fleet"
)

// stuckAfter is how long a change of keys waits for nodes that have not published a key of the one before. Then the
// next begins without them: they keep what they share with the others until they are heard of.
const stuckAfter = 10 * time.Minute

// rotate is the state that a slice's keys should be in: of a newer generation if that was asked for or is due. It counts
// how far the nodes are, as their clusters say, and names some of those that are behind.
func rotate(sl *v1alpha1.Slice, on []member, now time.Time) (*v1alpha1.SliceKeys, []string) {
	asked := wish(sl)
	if sl.Status.Keys == nil && asked == "" && period(sl, 0) == 0 {
		return nil, nil
	}
	k := v1alpha1.SliceKeys{}
	if sl.Status.Keys != nil {
		k = *sl.Status.Keys.DeepCopy()
	}
	if k.Since == nil {
		k.Since = &metav1.Time{Time: now.Truncate(time.Second)}
	}
	behind := progress(&k, sl.Name, on)
	free := k.New == k.Nodes || now.Sub(k.Since.Time) >= stuckAfter
	due := period(sl, k.Generation) > 0 && now.Sub(k.Since.Time) >= period(sl, k.Generation)
	if free && (asked != "" && asked != k.Asked || due) {
		k.Generation++
		k.Since, k.Asked = &metav1.Time{Time: now.Truncate(time.Second)}, asked
		behind = progress(&k, sl.Name, on)
	}
	return &k, behind
}

// wish is what asks for a change, as far as the status can keep it.
func wish(sl *v1alpha1.Slice) string {
	text := sl.Annotations[v1alpha1.RotateAnnotation]
	return text[:min(len(text), 256)]
}

// progress counts the slice's nodes.
func progress(k *v1alpha1.SliceKeys, slice string, on []member) (behind []string) {
	k.Nodes, k.New, k.Done = 0, 0, 0
	for _, m := range on {
		if m.bulletin == nil {
			continue
		}
		for _, n := range m.bulletin.Nodes {
			gens := n.Generations(slice)
			if len(gens) == 0 {
				continue
			}
			k.Nodes++
			current := slices.Contains(gens, uint64(k.Generation))
			if current {
				k.New++
			}
			if current && len(gens) == 1 {
				k.Done++
			} else {
				behind = append(behind, n.Cluster+"/"+n.Name)
			}
		}
	}
	return behind
}

// period is how long the keys of one generation last: what people want, less up to a tenth that depends on slice and
// generation alone. 0: they last until somebody asks.
func period(sl *v1alpha1.Slice, generation int64) time.Duration {
	h := fnv.New32a()
	fmt.Fprintf(h, "%s %d", sl.Name, generation)
	whole, err := time.ParseDuration(sl.Spec.KeyRotation)
	if err != nil || whole < time.Minute { // empty; anything else the API server refuses
		return 0
	}
	return whole - time.Duration(float64(whole)/10*float64(h.Sum32())/(1<<32))
}

// changing is the condition of a slice whose keys are being changed.
func changing(k *v1alpha1.SliceKeys, behind []string) *fleet.Problem {
	if k == nil || k.Done == k.Nodes {
		return nil
	}
	return &fleet.Problem{Reason: v1alpha1.SliceKeysChanging,
		Message: fmt.Sprintf("keys of generation %d since %s: %s of %d have one, %d no older one any more; not done: %s", k.Generation,
			k.Since.UTC().Format(time.RFC3339), fleet.Count(int(k.New), "node"), k.Nodes, k.Done, strings.Join(behind[:min(3, len(behind))], ", ")),
		Next: "nothing if it passes: old keys are kept until all nodes have moved; if it stays, look at the agents of the nodes that are named"}
}

// again says when a slice's keys are to be looked at without anything having changed; 0: never.
func again(sl *v1alpha1.Slice, k *v1alpha1.SliceKeys, now time.Time) time.Duration {
	switch {
	case k == nil || k.Since == nil:
		return 0
	case wish(sl) != "" && wish(sl) != k.Asked:
		return max(time.Second, k.Since.Add(stuckAfter).Sub(now))
	case period(sl, k.Generation) > 0:
		return max(time.Second, k.Since.Add(period(sl, k.Generation)).Sub(now))
	}
	return 0
}

// audit tells of a change of keys when it begins and when all nodes are done, in the log and as events of the slice.
func (s *sliceLoop) audit(before, now *v1alpha1.Slice) {
	k, old := now.Status.Keys, before.Status.Keys
	if k == nil {
		return
	}
	if old == nil {
		old = &v1alpha1.SliceKeys{Generation: k.Generation, Nodes: k.Nodes, Done: k.Done}
		if k.Asked != "" {
			old.Generation = 0
		}
	}
	tell := func(reason, text string) {
		s.log.Info("keys", "slice", now.Name, "reason", reason, "generation", k.Generation, "nodes", k.Nodes, "new", k.New, "done", k.Done)
		announce(s.events, "Slice", now, corev1.EventTypeNormal, reason, text)
	}
	if k.Generation > old.Generation {
		why := "on schedule"
		if k.Asked != old.Asked {
			why = "asked for at " + k.Asked
		}
		tell("KeysChanging", fmt.Sprintf("the nodes' keys are changed to generation %d (%s): %s", k.Generation, why, fleet.Count(int(k.Nodes), "node")))
	}
	if k.Done == k.Nodes && (old.Done != old.Nodes || k.Generation > old.Generation) && k.Generation > 0 {
		tell("KeysChanged", fmt.Sprintf("%s of %d have keys of generation %d and no older ones, %s after the change began",
			fleet.Count(int(k.Done), "node"), k.Nodes, k.Generation, s.heard.now().Sub(k.Since.Time).Round(time.Second)))
	}
}
