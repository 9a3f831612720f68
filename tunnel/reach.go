package tunnel

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"seaway.dev/seaway/fleet"
)

// ReachReply is what this node has measured of all others that it probes, sorted by node. Rev changes with it.
type ReachReply struct {
	Rev   uint64        `json:"rev"`
	Reach []fleet.Reach `json:"reach"`
}

// reachWait is how long a request waits for news before it is answered with what there is.
const reachWait = 20 * time.Second

// getReach answers at once if the caller knows another revision than the newest, else as soon as there is news. A
// revision from before a restart of this process is another one.
func (s *server) getReach(w http.ResponseWriter, r *http.Request) {
	var after uint64
	if text := r.URL.Query().Get("after"); text != "" {
		var err error
		if after, err = strconv.ParseUint(text, 10, 64); err != nil {
			reply(w, nil, fmt.Errorf("%w: after %.40q: want the number of a revision", ErrInvalid, text))
			return
		}
	}
	late := time.NewTimer(reachWait)
	defer late.Stop()
	for {
		rev, reach, news := s.sw.Reach()
		if rev != after {
			reply(w, ReachReply{rev, reach}, nil)
			return
		}
		select {
		case <-news:
		case <-late.C:
			reply(w, ReachReply{rev, reach}, nil)
			return
		case <-r.Context().Done():
			return
		}
	}
}

// Reach asks what the node has measured of the others. It waits for a revision other than after, for some 20 s at
// most; then it returns the same once more. 0 is never a revision.
func (c *Client) Reach(ctx context.Context, after uint64) (ReachReply, error) {
	var r ReachReply
	err := c.call(ctx, http.MethodGet, "/v1/reach?after="+strconv.FormatUint(after, 10), nil, &r)
	return r, err
}
