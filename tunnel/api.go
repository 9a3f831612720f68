package tunnel

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"seaway.dev/seaway/datapath/relay"
	"seaway.dev/seaway/fleet"
	"seaway.dev/seaway/slice/plan"
)

// Status is what the process tells of itself.
type Status struct {
	Driver   string               `json:"driver"` // "userspace" or "kernel"
	Port     uint16               `json:"port"`   // the UDP port, 0 before one is open
	Started  time.Time            `json:"started"`
	Keys     map[string]fleet.Key `json:"keys"` // fleet.KeyName → public key, for all slices that have one
	Devices  []DeviceStatus       `json:"devices,omitempty"`
	Relay    relay.Counters       `json:"relay"`
	Reach    []fleet.Reach        `json:"reach,omitempty"` // what was measured of other nodes
	Problems []fleet.Problem      `json:"problems,omitempty"`
}

// DeviceStatus is the state of one slice's device.
type DeviceStatus struct {
	Slice      string            `json:"slice"`
	Generation uint64            `json:"generation,omitempty"` // of its key
	Key        fleet.Key         `json:"key"`                  // public
	Peers      []fleet.PeerState `json:"peers"`
}

// Result is what became of a value that was accepted.
type Result struct {
	Changes  int             `json:"changes"`            // 0: it was so already
	Problems []fleet.Problem `json:"problems,omitempty"` // what could not be done yet; it is tried again
}

type keyReply struct {
	Key fleet.Key `json:"key"`
}

type errorReply struct {
	Error string `json:"error"`
}

const maxBody = 32 << 20 // bytes: 10,000 peers on each of several slices

func (s *server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /v1/tunnel", func(w http.ResponseWriter, r *http.Request) {
		data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		if err != nil {
			reply(w, nil, fmt.Errorf("%w: read the body: %w", ErrInvalid, err))
			return
		}
		t, err := decode(data)
		if err != nil {
			reply(w, nil, err)
			return
		}
		res, err := s.put(t, data)
		reply(w, res, err)
	})
	mux.HandleFunc("GET /v1/tunnel", func(w http.ResponseWriter, _ *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		reply(w, s.want, nil)
	})
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) {
		st, err := s.status()
		reply(w, st, err)
	})
	mux.HandleFunc("GET /v1/reach", s.getReach)
	mux.HandleFunc("PUT /v1/keys/{slice}", s.onSlice(func(slice string) (any, error) {
		key, err := s.ensureKey(slice)
		return keyReply{key}, err
	}))
	mux.HandleFunc("DELETE /v1/keys/{slice}", s.onSlice(func(slice string) (any, error) {
		return struct{}{}, s.removeKey(slice)
	}))
	mux.HandleFunc("POST /v1/purge", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, struct{}{}, s.purge())
	})
	return mux
}

func (s *server) onSlice(f func(slice string) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		slice := r.PathValue("slice")
		if !keyName.MatchString(slice) {
			reply(w, nil, fmt.Errorf("%w: slice %.80q: want a DNS label, and @ and a generation if that is not the first", ErrInvalid, slice))
			return
		}
		v, err := f(slice)
		reply(w, v, err)
	}
}

func reply(w http.ResponseWriter, v any, err error) {
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		code := http.StatusInternalServerError
		if errors.Is(err, ErrInvalid) {
			code = http.StatusBadRequest
		}
		w.WriteHeader(code)
		v = errorReply{err.Error()}
	}
	_ = json.NewEncoder(w).Encode(v) // the client went away
}

// Client talks to a tunnel process.
type Client struct{ http *http.Client }

// NewClient returns a client for the process at a unix socket.
func NewClient(socket string) *Client {
	return &Client{&http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		MaxIdleConns: 1, IdleConnTimeout: 30 * time.Second,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		}}}}
}

// Put makes the process what t says. An error that is ErrInvalid means that t was refused as a whole; Result.Problems
// lists what is accepted but could not be done yet, such as a device whose namespace is missing.
func (c *Client) Put(ctx context.Context, t plan.Tunnel) (Result, error) {
	var r Result
	err := c.call(ctx, http.MethodPut, "/v1/tunnel", t, &r)
	return r, err
}

// Status asks how everything does.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var st Status
	err := c.call(ctx, http.MethodGet, "/v1/status", nil, &st)
	return st, err
}

// EnsureKey returns the public key of this node on a slice, or of the generation that a [fleet.KeyName] says, making
// the pair if there is none.
func (c *Client) EnsureKey(ctx context.Context, slice string) (fleet.Key, error) {
	var k keyReply
	err := c.call(ctx, http.MethodPut, "/v1/keys/"+slice, nil, &k)
	return k.Key, err
}

// RemoveKey deletes this node's key pair of a slice, which must have no device any more.
func (c *Client) RemoveKey(ctx context.Context, slice string) error {
	return c.call(ctx, http.MethodDelete, "/v1/keys/"+slice, nil, nil)
}

// Purge removes all devices, links, keys and files.
func (c *Client) Purge(ctx context.Context) error {
	return c.call(ctx, http.MethodPost, "/v1/purge", nil, nil)
}

func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("tunnel: %w", err)
		}
		body = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://tunnel"+path, body)
	if err != nil {
		return fmt.Errorf("tunnel: %w", err)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("tunnel process: %w; is its pod running on this node?", err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		var e errorReply
		if json.NewDecoder(io.LimitReader(res.Body, 1<<20)).Decode(&e) != nil || e.Error == "" {
			e.Error = res.Status
		}
		if res.StatusCode == http.StatusBadRequest {
			return fmt.Errorf("tunnel process: %w: %s", ErrInvalid, strings.TrimPrefix(e.Error, ErrInvalid.Error()+": "))
		}
		return fmt.Errorf("tunnel process: %s", e.Error)
	}
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(res.Body).Decode(out); err != nil {
		return fmt.Errorf("tunnel process: read its answer: %w", err)
	}
	return nil
}
