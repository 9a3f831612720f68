package tunnel

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"path/filepath"
	"regexp"
	"strings"

	"seaway.dev/seaway/fleet"
	"seaway.dev/seaway/slice/plan"
)

// ErrInvalid is what is wrong with a value that the process was given; nothing of it was applied.
var ErrInvalid = errors.New("invalid")

var sliceName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

// keyName is what fleet.KeyName makes: it becomes a file's name.
var keyName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(@[1-9][0-9]{0,18})?$`)

// decode reads a plan.Tunnel and checks all of it. Fields that it does not know are passed over: the process outlives
// upgrades of the agent, whose plan must go on to be applied by an older tunnel. What a new field asks for must
// therefore be something that an older tunnel may leave out.
func decode(data []byte) (plan.Tunnel, error) {
	var t plan.Tunnel
	var said struct{ Port *uint16 } // always written: a value without it is something else, not an empty plan
	d := json.NewDecoder(bytes.NewReader(data))
	if err := d.Decode(&t); err != nil {
		return t, fmt.Errorf("%w: tunnel: %w", ErrInvalid, err)
	}
	if err := json.Unmarshal(data[:d.InputOffset()], &said); err != nil || said.Port == nil {
		return t, fmt.Errorf("%w: tunnel: the port is missing: give \"port\", 0 for a free one", ErrInvalid)
	}
	if _, err := d.Token(); err != io.EOF {
		return t, fmt.Errorf("%w: tunnel: more data after the value", ErrInvalid)
	}
	return t, validate(t)
}

// validate finds everything wrong with t.
func validate(t plan.Tunnel) error {
	var errs []error
	seen := map[string]bool{}
	links := map[string]string{}
	for _, d := range t.Devices {
		for _, err := range deviceErrors(d) {
			errs = append(errs, fmt.Errorf("device %q: %w", d.Slice, err))
		}
		if seen[d.Name()] {
			errs = append(errs, fmt.Errorf("device %q: is there twice", d.Slice))
		}
		at := d.NetNS + " " + d.Link
		if s, taken := links[at]; taken && s != d.Slice {
			errs = append(errs, fmt.Errorf("device %q: link %s in namespace %q is another device's", d.Slice, d.Link, d.NetNS))
		}
		links[at], seen[d.Name()] = d.Slice, true
	}
	keys := map[fleet.Key]bool{}
	for _, tg := range t.Relay {
		if err := targetError(tg); err != nil {
			errs = append(errs, fmt.Errorf("relay to %q: %w", tg.ID, err))
		}
		if keys[tg.Key] {
			errs = append(errs, fmt.Errorf("relay to %q: key %s is there twice", tg.ID, tg.Key))
		}
		keys[tg.Key] = true
	}
	for _, g := range t.Gateways {
		if !g.Endpoint.IsValid() || g.Relay == "" {
			errs = append(errs, fmt.Errorf("gateway %q: want an endpoint and a name, got %s", g.Relay, g.Endpoint))
		}
	}
	ids := map[string]bool{}
	for _, n := range t.Neighbors {
		for _, err := range neighborErrors(n) {
			errs = append(errs, fmt.Errorf("neighbor %q: %w", n.ID, err))
		}
		if ids[n.ID] {
			errs = append(errs, fmt.Errorf("neighbor %q: is there twice", n.ID))
		}
		ids[n.ID] = true
	}
	if len(errs) > 0 {
		return fmt.Errorf("%w: %w", ErrInvalid, errors.Join(errs...))
	}
	return nil
}

func deviceErrors(d plan.Device) (errs []error) {
	bad := func(format string, a ...any) { errs = append(errs, fmt.Errorf(format, a...)) }
	if !sliceName.MatchString(d.Slice) {
		bad("slice: want a DNS label")
	}
	if d.NetNS != "" && (!filepath.IsAbs(d.NetNS) || filepath.Clean(d.NetNS) != d.NetNS) {
		bad("netns %q: want a clean absolute path", d.NetNS)
	}
	if d.Link == "" || len(d.Link) > 15 || d.Link == "." || d.Link == ".." || strings.ContainsAny(d.Link, "/:% \t\n\x00") {
		bad("link %q: want 1 to 15 characters without /, :, %% or space", d.Link)
	}
	if d.MTU < 576 || d.MTU > 65000 {
		bad("mtu %d: want 576 to 65000", d.MTU)
	}
	for _, a := range d.Addrs {
		if !a.IsValid() || a.Addr().Is4In6() {
			bad("address %s: want address/bits", a)
		}
	}
	keys := map[fleet.Key]bool{}
	owner := map[netip.Prefix]string{}
	for _, p := range d.Peers {
		for _, err := range peerErrors(p) {
			bad("peer %q: %w", p.ID, err)
		}
		if keys[p.Key] {
			bad("peer %q: key %s is there twice", p.ID, p.Key)
		}
		keys[p.Key] = true
		for _, a := range p.Allowed {
			if o, ok := owner[a]; ok {
				bad("peer %q: %s is peer %q's already", p.ID, a, o)
			}
			owner[a] = p.ID
		}
	}
	return errs
}

func peerErrors(p plan.Peer) (errs []error) {
	bad := func(format string, a ...any) { errs = append(errs, fmt.Errorf(format, a...)) }
	if p.ID == "" {
		bad("has no id")
	}
	if p.Key.IsZero() {
		bad("has no key")
	}
	if p.Keepalive < 0 || p.Keepalive > 65535 {
		bad("keepalive %d: want 0 to 65535 seconds", p.Keepalive)
	}
	for _, a := range p.Allowed {
		if !a.IsValid() || a != a.Masked() || a.Addr().Is4In6() {
			bad("allowed %s: want a prefix without host bits", a)
		}
	}
	for _, w := range p.Paths {
		if err := endpointError(w.Endpoint); err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

func neighborErrors(n plan.Neighbor) (errs []error) {
	if n.ID == "" {
		errs = append(errs, errors.New("has no id"))
	}
	if n.Key.IsZero() {
		errs = append(errs, errors.New("has no key"))
	}
	for _, e := range n.Endpoints {
		if err := endpointError(e); err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

func targetError(t plan.Target) error {
	switch {
	case t.Key.IsZero():
		return errors.New("has no key")
	case len(t.Endpoints) > 0 && !t.Management.IsZero():
		return errors.New("has both endpoints and a management key")
	}
	for _, e := range t.Endpoints {
		if err := endpointError(e); err != nil {
			return err
		}
	}
	return nil
}

func endpointError(e netip.AddrPort) error {
	a := e.Addr()
	if !e.IsValid() || e.Port() == 0 || a.IsUnspecified() || a.IsMulticast() || a.Is4In6() || a.Zone() != "" {
		return fmt.Errorf("endpoint %s: want a unicast address without zone, and a port", e)
	}
	return nil
}
