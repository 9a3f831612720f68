// Package config reads the lab's configuration file and fills in the defaults.
package config

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

// Defaults that every cluster has unless its entry says otherwise. All clusters
// share the same ranges on purpose: overlapping addresses are the hard case.
const (
	DefaultPodCIDR     = "10.244.0.0/16"
	DefaultServiceCIDR = "10.96.0.0/16"
	HubNumber          = 100
	MaxNodes           = 40
	MaxClusters        = 20
)

// Config is the whole configuration file.
type Config struct {
	Clusters []Cluster `json:"clusters"`
	// IPv6 gives the underlay IPv6 addresses besides the IPv4 ones.
	IPv6 *bool `json:"ipv6,omitempty"`
	// MTU of every underlay link.
	MTU int `json:"mtu,omitempty"`
	// ProxyMode is kube-proxy's mode: nftables or iptables.
	ProxyMode string `json:"proxyMode,omitempty"`
	// DNS runs CoreDNS in every cluster.
	DNS *bool `json:"dns,omitempty"`
	// Metrics runs metrics-server in every cluster.
	Metrics bool `json:"metrics,omitempty"`
}

// Cluster describes one cluster.
type Cluster struct {
	Name string `json:"name"`
	// Nodes is how many worker nodes it has, besides its control-plane machine.
	Nodes int `json:"nodes,omitempty"`
	// Private puts the cluster behind a NAT router: it dials out, nobody dials in.
	Private bool `json:"private,omitempty"`
	// Number picks the underlay network 172.30.NUMBER.0/24.
	Number      int    `json:"number,omitempty"`
	PodCIDR     string `json:"podCIDR,omitempty"`
	ServiceCIDR string `json:"serviceCIDR,omitempty"`
}

// Default is the layout that `up` starts without a file: a hub and members
// c1 … cN, of which the third is private.
func Default(members, nodes int) Config {
	c := Config{Clusters: []Cluster{{Name: "hub", Nodes: 1, Number: HubNumber}}}
	for i := 1; i <= members; i++ {
		c.Clusters = append(c.Clusters, Cluster{Name: fmt.Sprintf("c%d", i), Nodes: nodes, Private: i == 3})
	}
	return c
}

// Load reads a file strictly: an unknown key is an error that names it.
func Load(path string) (Config, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return Config{}, fmt.Errorf("config: %w", err)
	}
	c, err := Parse(b)
	if err != nil {
		return Config{}, fmt.Errorf("config %s: %w", path, err)
	}
	return c, nil
}

// Parse decodes YAML strictly.
func Parse(b []byte) (Config, error) {
	var c Config
	if err := yaml.UnmarshalStrict(b, &c); err != nil {
		return Config{}, errors.New(strings.TrimPrefix(err.Error(), "error unmarshaling JSON: while decoding JSON: json: "))
	}
	return c, nil
}

// Complete fills in what was left out and checks the rest. The error lists
// every fault, not only the first.
func (c *Config) Complete() error {
	if c.IPv6 == nil {
		c.IPv6 = new(true)
	}
	if c.DNS == nil {
		c.DNS = new(true)
	}
	if c.MTU == 0 {
		c.MTU = 1500
	}
	if c.ProxyMode == "" {
		c.ProxyMode = "nftables"
	}
	var errs []error
	if c.MTU < 1280 || c.MTU > 9000 {
		errs = append(errs, fmt.Errorf("mtu %d: must be 1280 to 9000", c.MTU))
	}
	if !slices.Contains([]string{"nftables", "iptables"}, c.ProxyMode) {
		errs = append(errs, fmt.Errorf("proxyMode %q: must be nftables or iptables", c.ProxyMode))
	}
	if n := len(c.Clusters); n == 0 || n > MaxClusters {
		errs = append(errs, fmt.Errorf("clusters: %d of them; must be 1 to %d", n, MaxClusters))
	}
	errs = append(errs, c.completeClusters()...)
	return errors.Join(errs...)
}

func (c *Config) completeClusters() []error {
	var errs []error
	used, names := map[int]string{}, map[string]bool{}
	for _, cl := range c.Clusters {
		if cl.Number != 0 {
			used[cl.Number] = cl.Name
		}
	}
	next := 1
	for i := range c.Clusters {
		cl := &c.Clusters[i]
		if names[cl.Name] {
			errs = append(errs, fmt.Errorf("cluster %q: the name is used twice", cl.Name))
		}
		names[cl.Name] = true
		if cl.Number == 0 {
			for used[next] != "" {
				next++
			}
			cl.Number = next
			used[next] = cl.Name
		} else if used[cl.Number] != cl.Name {
			errs = append(errs, fmt.Errorf("cluster %q: number %d is also %s's", cl.Name, cl.Number, used[cl.Number]))
		}
		for _, err := range cl.complete() {
			errs = append(errs, fmt.Errorf("cluster %q: %w", cl.Name, err))
		}
	}
	return errs
}

// The name becomes part of interface names, which the kernel cuts at 15 bytes.
var nameRule = regexp.MustCompile(`^[a-z][a-z0-9]{0,7}$`)

var reserved = []string{"all", "router", "root", "wan"}

func (cl *Cluster) complete() []error {
	var errs []error
	if !nameRule.MatchString(cl.Name) {
		errs = append(errs, errors.New("the name must be 1 to 8 of a-z and 0-9 and begin with a letter"))
	}
	if slices.Contains(reserved, cl.Name) {
		errs = append(errs, fmt.Errorf("the name is reserved (so are %s)", strings.Join(reserved, ", ")))
	}
	if cl.Nodes == 0 {
		cl.Nodes = 1
	}
	if cl.Nodes < 1 || cl.Nodes > MaxNodes {
		errs = append(errs, fmt.Errorf("nodes: %d; must be 1 to %d", cl.Nodes, MaxNodes))
	}
	if cl.Number < 1 || cl.Number > 254 {
		errs = append(errs, fmt.Errorf("number %d: must be 1 to 254", cl.Number))
	}
	if cl.PodCIDR == "" {
		cl.PodCIDR = DefaultPodCIDR
	}
	if cl.ServiceCIDR == "" {
		cl.ServiceCIDR = DefaultServiceCIDR
	}
	pods, err := checkCIDR("podCIDR", cl.PodCIDR, 18)
	errs = append(errs, err...)
	services, err := checkCIDR("serviceCIDR", cl.ServiceCIDR, 24)
	errs = append(errs, err...)
	if pods.IsValid() && services.IsValid() && pods.Overlaps(services) {
		errs = append(errs, fmt.Errorf("podCIDR %s and serviceCIDR %s overlap", pods, services))
	}
	return errs
}

var underlay = []netip.Prefix{netip.MustParsePrefix("172.30.0.0/16"), netip.MustParsePrefix("192.168.0.0/16")}

func checkCIDR(key, value string, maxBits int) (netip.Prefix, []error) {
	p, err := netip.ParsePrefix(value)
	if err != nil || !p.Addr().Is4() {
		return netip.Prefix{}, []error{fmt.Errorf("%s %q: write an IPv4 network such as 10.244.0.0/16", key, value)}
	}
	var errs []error
	if p.Masked() != p {
		errs = append(errs, fmt.Errorf("%s %s: has host bits set; did you mean %s?", key, value, p.Masked()))
	}
	if p.Bits() < 8 || p.Bits() > maxBits {
		errs = append(errs, fmt.Errorf("%s %s: the mask must be /8 to /%d", key, value, maxBits))
	}
	for _, u := range underlay {
		if p.Overlaps(u) {
			errs = append(errs, fmt.Errorf("%s %s: overlaps %s, which the lab's own links use", key, value, u))
		}
	}
	return p, errs
}

// Keep drops every cluster that is not named.
func (c *Config) Keep(names []string) error {
	var known []string
	for _, cl := range c.Clusters {
		known = append(known, cl.Name)
	}
	for _, n := range names {
		if !slices.Contains(known, n) {
			return fmt.Errorf("--only: no cluster %q in the configuration (there are %s)", n, strings.Join(known, ", "))
		}
	}
	c.Clusters = slices.DeleteFunc(c.Clusters, func(cl Cluster) bool { return !slices.Contains(names, cl.Name) })
	return nil
}

// SetPrivate puts exactly these clusters behind a NAT.
func (c *Config) SetPrivate(names []string) error {
	left := slices.Clone(names)
	for i := range c.Clusters {
		cl := &c.Clusters[i]
		cl.Private = slices.Contains(names, cl.Name)
		left = slices.DeleteFunc(left, func(n string) bool { return n == cl.Name || n == "" })
	}
	if len(left) > 0 {
		return fmt.Errorf("--private: no cluster %s in the layout", strings.Join(left, ", "))
	}
	return nil
}
