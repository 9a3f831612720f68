package bulletin

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"seaway.dev/seaway/fleet"
)

// Frames are what carriers of bulletins say to each other on a connection: a kind, the payload's length in four
// bytes, the payload.
//
//	H  Hello   first, once, by both sides
//	V  Have    what the writer has; an empty one is a sign of life
//	W  Want    whose letters the writer wants to be sent as they come, besides those of the reader's own cluster
//	L  Letter

// Hello is who speaks.
type Hello struct {
	Version int    `json:"version"` // fleet.WireVersion of the writer
	Cluster string `json:"cluster"`
	Node    string `json:"node,omitempty"` // a carrier's; none of a controller
}

// Have is what the writer has of some clusters, or of all.
type Have struct {
	All  bool               `json:"all,omitempty"` // what is not listed, the writer has not
	Ask  bool               `json:"ask,omitempty"` // of those listed the reader is to send what is newer at once
	Have map[string]Version `json:"have,omitempty"`
}

// Want lists clusters.
type Want struct {
	Clusters []string `json:"clusters"`
}

const (
	kindHello  = 'H'
	kindHave   = 'V'
	kindWant   = 'W'
	kindLetter = 'L'
)

// Limits of a frame's payload.
const (
	maxSpeech = 256 << 10 // of all but letters
	maxListed = 4096      // clusters in one frame
)

// ErrGarbage says that bytes are no frame.
var ErrGarbage = errors.New("garbage")

// AppendFrame appends a *Hello, *Have, *Want or *Letter as a frame.
func AppendFrame(to []byte, say any) ([]byte, error) {
	var kind byte
	var payload []byte
	var err error
	switch v := say.(type) {
	case *Letter:
		kind = kindLetter
		payload, err = v.MarshalBinary()
	case *Hello:
		kind = kindHello
		payload, err = json.Marshal(v)
	case *Have:
		kind = kindHave
		payload, err = json.Marshal(v)
	case *Want:
		kind = kindWant
		payload, err = json.Marshal(v)
	default:
		err = fmt.Errorf("%T is no frame", say)
	}
	if err != nil {
		return to, err
	}
	to = binary.BigEndian.AppendUint32(append(to, kind), uint32(len(payload)))
	return append(to, payload...), nil
}

// ReadFrame reads one frame: a *Hello, *Have, *Want or *Letter, or nil for a kind that a newer Seaway may have. The
// error wraps [ErrGarbage] if what was read is no frame; then nothing after it can be read either.
func ReadFrame(r io.Reader) (any, error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	kind, size := head[0], int64(binary.BigEndian.Uint32(head[1:]))
	limit := int64(maxSpeech)
	if kind == kindLetter {
		limit = headerSize + maxName + MaxSize
	}
	if size > limit || kind < 'A' || kind > 'Z' {
		return nil, fmt.Errorf("%w: a frame of kind %q with %d bytes", ErrGarbage, kind, size)
	}
	payload := make([]byte, size)
	if _, err := io.ReadFull(r, payload); err != nil {
		return nil, err
	}
	return parseFrame(kind, payload)
}

func parseFrame(kind byte, payload []byte) (any, error) {
	var say any
	var err error
	switch kind {
	case kindLetter:
		l := new(Letter)
		say, err = l, l.UnmarshalBinary(payload)
	case kindHello:
		h := new(Hello)
		say, err = h, json.Unmarshal(payload, h)
		if err == nil && (h.Version < 1 || len(h.Cluster) > maxName || !isLabel(h.Cluster) || h.Node != "" && !isSubdomain(h.Node)) {
			err = fmt.Errorf("a hello of %.64q", h.Cluster)
		}
	case kindHave:
		h := new(Have)
		say, err = h, json.Unmarshal(payload, h)
		if err == nil && len(h.Have) > maxListed {
			err = fmt.Errorf("a list of %d clusters", len(h.Have))
		}
	case kindWant:
		w := new(Want)
		say, err = w, json.Unmarshal(payload, w)
		if err == nil && len(w.Clusters) > maxListed {
			err = fmt.Errorf("a list of %d clusters", len(w.Clusters))
		}
	default:
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrGarbage, err)
	}
	return say, nil
}

// NewHello says who speaks.
func NewHello(cluster, node string) *Hello {
	return &Hello{Version: fleet.WireVersion, Cluster: cluster, Node: node}
}
