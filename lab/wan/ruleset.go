package wan

import (
	"cmp"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"

	"seaway.dev/seaway/lab/layout"
	"seaway.dev/seaway/lab/netns"
	"seaway.dev/seaway/lab/underlay"
)

// bySpecificity puts paths of single machines before those of whole clusters:
// the first rule that matches decides.
func (t Table) bySpecificity(l layout.Layout) []Path {
	rank := func(p Path) int {
		n := 0
		for _, name := range []string{p.From, p.To} {
			if e, err := resolve(l, name); err == nil && e.machine == nil {
				n++
			}
		}
		return n
	}
	return slices.SortedStableFunc(slices.Values(t.Paths), func(p, q Path) int { return cmp.Compare(rank(p), rank(q)) })
}

// nftRules drop what crosses a cut.
func (t Table) nftRules(l layout.Layout) string {
	var b strings.Builder
	b.WriteString("table inet wan\ndelete table inet wan\n")
	var rules []string
	for _, p := range t.bySpecificity(l) {
		if p.Cut {
			rules = append(rules, nftDrop(l, p)...)
		}
	}
	if len(rules) == 0 {
		return b.String()
	}
	b.WriteString("table inet wan {\n\tchain forward {\n\t\ttype filter hook forward priority filter;\n")
	for _, r := range rules {
		b.WriteString("\t\t" + r + "\n")
	}
	b.WriteString("\t}\n}\n")
	return b.String()
}

func nftDrop(l layout.Layout, p Path) []string {
	from, _ := resolve(l, p.From)
	to, _ := resolve(l, p.To)
	links := fmt.Sprintf("iifname %q oifname %q", from.cluster.Bridge(), to.cluster.Bridge())
	comment := fmt.Sprintf("counter drop comment %q", p.From+" to "+p.To)
	if from.machine == nil && to.machine == nil {
		return []string{links + " " + comment}
	}
	var rules []string
	for _, v6 := range []bool{false, true} {
		family := "ip"
		if v6 {
			family = "ip6"
		}
		r := links
		if from.machine != nil {
			r += fmt.Sprintf(" %s saddr %s", family, address(from, v6))
		}
		if to.machine != nil {
			r += fmt.Sprintf(" %s daddr %s", family, address(to, v6))
		}
		rules = append(rules, r+" "+comment)
	}
	return rules
}

func address(e end, v6 bool) netip.Addr {
	if v6 {
		return e.machine.IPv6
	}
	return e.machine.IP
}

// queueRules send packets to the emulator's queues. nftables could do it too,
// but some kernels are built without its queue statement; xt_NFQUEUE is common.
// If nobody listens, packets pass.
func (t Table) queueRules(l layout.Layout, v6 bool) string {
	var b strings.Builder
	b.WriteString("*mangle\n:FORWARD ACCEPT [0:0]\n")
	for _, p := range t.bySpecificity(l) {
		if p.Queue == 0 {
			continue
		}
		from, _ := resolve(l, p.From)
		to, _ := resolve(l, p.To)
		fmt.Fprintf(&b, "-A FORWARD -i %s -o %s", from.cluster.Bridge(), to.cluster.Bridge())
		if from.machine != nil {
			fmt.Fprintf(&b, " -s %s", address(from, v6))
		}
		if to.machine != nil {
			fmt.Fprintf(&b, " -d %s", address(to, v6))
		}
		fmt.Fprintf(&b, " -j NFQUEUE --queue-num %d --queue-bypass\n", p.Queue)
	}
	b.WriteString("COMMIT\n")
	return b.String()
}

// install puts the table's rules into the WAN router's namespace.
func (t Table) install(router string, l layout.Layout) error {
	return netns.Do(router, func() error {
		if err := underlay.Nft(t.nftRules(l)); err != nil {
			return err
		}
		for _, f := range []struct {
			program string
			v6      bool
		}{{"iptables-legacy-restore", false}, {"ip6tables-legacy-restore", true}} {
			cmd := exec.Command(f.program)
			cmd.Stdin = strings.NewReader(t.queueRules(l, f.v6))
			if out, err := cmd.CombinedOutput(); err != nil {
				return fmt.Errorf("%s: %w: %s", f.program, err, strings.TrimSpace(string(out)))
			}
		}
		return nil
	})
}
