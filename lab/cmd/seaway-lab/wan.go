package main

import (
	"encoding/json"
	"fmt"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"seaway.dev/seaway/lab/state"
	"seaway.dev/seaway/lab/wan"
)

func wanCommand(o *options) *cobra.Command {
	c := &cobra.Command{
		Use: "wan", Short: "Make the network between clusters slow, lossy or broken",
		Long: `A and B are clusters or machines, or "all" for every other cluster. What is set
holds for each direction of the path unless --one-way is given, which means from A
to B only: a delay of 10ms makes a round trip of 20ms.`,
		Example: `  seaway-lab wan set c1 c2 --delay 20ms --jitter 2ms
  seaway-lab wan set c1 c2 --loss 1%            # added to what is set already
  seaway-lab wan set hub all --rate 50mbit
  seaway-lab wan cut c1 c3 ; seaway-lab wan heal c1 c3
  seaway-lab wan cut c1 c2 --one-way            # c2 still gets through to c1
  seaway-lab wan show
  seaway-lab wan clear`,
	}
	c.AddCommand(wanSetCommand(o), wanShowCommand(o), wanClearCommand(o), wanCaptureCommand(o),
		wanCutCommand(o, "cut", "Lose everything between A and B, silently", true, "blackhole"),
		wanCutCommand(o, "heal", "Undo a cut; delay and the like stay as they are set", false))
	return c
}

// changeWAN loads the table, changes it and makes it real.
func (o *options) changeWAN(cmd *cobra.Command, change func(*wan.Table, state.Lab) error) error {
	l, rec, err := o.load()
	if err != nil {
		return err
	}
	unlock, err := l.Dir.Lock("seaway-lab wan " + cmd.Name())
	if err != nil {
		return err
	}
	defer unlock()
	t, err := wan.Load(l.Dir)
	if err != nil {
		return err
	}
	if err := change(&t, rec); err != nil {
		return err
	}
	return wan.Apply(cmd.Context(), l.Dir, rec.Layout, t)
}

func wanSetCommand(o *options) *cobra.Command {
	var oneWay bool
	var delay, jitter time.Duration
	var loss, rate, reorder string
	c := &cobra.Command{
		Use: "set A B", Short: "Set delay, jitter, loss, rate or reordering", Args: cobra.ExactArgs(2),
		Long:    "Only what is given changes; 0 takes a setting back.",
		Example: "  seaway-lab wan set c1 c2 --delay 10ms --jitter 2ms --loss 1% --rate 100mbit --reorder 1%\n  seaway-lab wan set c1 c2 --loss 0",
	}
	c.RunE = func(cmd *cobra.Command, args []string) error {
		set := func(p *wan.Path) error {
			var err error
			if cmd.Flags().Changed("delay") {
				p.Delay = delay
			}
			if cmd.Flags().Changed("jitter") {
				p.Jitter = jitter
			}
			if cmd.Flags().Changed("loss") {
				p.Loss, err = wan.ParseShare(loss)
			}
			if cmd.Flags().Changed("reorder") && err == nil {
				p.Reorder, err = wan.ParseShare(reorder)
			}
			if cmd.Flags().Changed("rate") && err == nil {
				p.Rate, err = wan.ParseRate(rate)
			}
			return err
		}
		if err := set(&wan.Path{}); err != nil {
			return err
		}
		return o.changeWAN(cmd, func(t *wan.Table, rec state.Lab) error {
			pairs, err := wan.Pairs(rec.Layout, args[0], args[1], oneWay)
			if err != nil {
				return err
			}
			return t.Update(pairs, func(p *wan.Path) { _ = set(p) })
		})
	}
	c.Flags().DurationVar(&delay, "delay", 0, "added to every packet, each way")
	c.Flags().DurationVar(&jitter, "jitter", 0, "the delay varies by plus or minus this")
	c.Flags().StringVar(&loss, "loss", "", "share of packets lost, e.g. 1%")
	c.Flags().StringVar(&rate, "rate", "", "bandwidth, e.g. 100mbit")
	c.Flags().StringVar(&reorder, "reorder", "", "share of packets that overtake the delayed ones, e.g. 1%")
	c.Flags().BoolVar(&oneWay, "one-way", false, "only from A to B")
	c.MarkFlagsOneRequired("delay", "jitter", "loss", "rate", "reorder")
	return c
}

func wanCutCommand(o *options, name, short string, cut bool, aliases ...string) *cobra.Command {
	var oneWay bool
	c := &cobra.Command{
		Use: name + " A B", Short: short, Aliases: aliases, Args: cobra.ExactArgs(2),
		Example: fmt.Sprintf("  seaway-lab wan %[1]s c1 c2\n  seaway-lab wan %[1]s c1 all\n  seaway-lab wan %[1]s c1n1 c2 --one-way", name),
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.changeWAN(cmd, func(t *wan.Table, rec state.Lab) error {
				pairs, err := wan.Pairs(rec.Layout, args[0], args[1], oneWay)
				if err != nil {
					return err
				}
				return t.Update(pairs, func(p *wan.Path) { p.Cut = cut })
			})
		},
	}
	c.Flags().BoolVar(&oneWay, "one-way", false, "only from A to B")
	return c
}

func wanClearCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use: "clear [A B]", Short: "Make the WAN perfect again: all of it, or between A and B",
		Args: cobra.MatchAll(cobra.MaximumNArgs(2), func(_ *cobra.Command, args []string) error {
			if len(args) == 1 {
				return fmt.Errorf("clear takes two ends or none; for everything around %s write: wan clear %s all", args[0], args[0])
			}
			return nil
		}),
		Example: "  seaway-lab wan clear\n  seaway-lab wan clear c1 c2",
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.changeWAN(cmd, func(t *wan.Table, rec state.Lab) error {
				if len(args) == 0 {
					*t = wan.Table{}
					return nil
				}
				pairs, err := wan.Pairs(rec.Layout, args[0], args[1], false)
				if err != nil {
					return err
				}
				return t.Update(pairs, func(p *wan.Path) { p.Cut, p.Quality = false, wan.Quality{} })
			})
		},
	}
}

// wanPath is a path as `wan show -o json` prints it.
type wanPath struct {
	From    string     `json:"from"`
	To      string     `json:"to"`
	Cut     bool       `json:"cut"`
	Delay   string     `json:"delay"`
	Jitter  string     `json:"jitter"`
	Loss    string     `json:"loss"`
	Rate    string     `json:"rate"`
	Reorder string     `json:"reorder"`
	Stats   *wan.Stats `json:"stats,omitempty"`
}

func wanShowCommand(o *options) *cobra.Command {
	var output string
	c := &cobra.Command{
		Use: "show", Short: "Show what is set, and what has crossed", Args: cobra.NoArgs,
		Example: "  seaway-lab wan show\n  seaway-lab wan show -o json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, _, err := o.load()
			if err != nil {
				return err
			}
			t, err := wan.Load(l.Dir)
			if err != nil {
				return err
			}
			stats := wan.Statistics(l.Dir)
			paths := []wanPath{}
			for _, p := range t.Paths {
				row := wanPath{p.From, p.To, p.Cut, p.Delay.String(), p.Jitter.String(), wan.FormatShare(p.Loss), wan.FormatRate(p.Rate), wan.FormatShare(p.Reorder), nil}
				if s, ok := stats[p.Queue]; ok && p.Queue != 0 {
					row.Stats = &s
				}
				paths = append(paths, row)
			}
			if output == "json" {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(paths)
			}
			printPaths(cmd, paths)
			return nil
		},
	}
	outputFlag(c, &output)
	return c
}

func printPaths(cmd *cobra.Command, paths []wanPath) {
	if len(paths) == 0 {
		fmt.Fprintln(cmd.OutOrStdout(), "the WAN is perfect: nothing is set")
		return
	}
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "FROM\tTO\tCUT\tDELAY\tJITTER\tLOSS\tRATE\tREORDER\tPACKETS\tLOST\tOVERFLOW")
	for _, p := range paths {
		s := wan.Stats{}
		if p.Stats != nil {
			s = *p.Stats
		}
		fmt.Fprintf(w, "%s\t%s\t%v\t%s\t%s\t%s\t%s\t%s\t%d\t%d\t%d\n", p.From, p.To, p.Cut, p.Delay, p.Jitter, p.Loss, p.Rate, p.Reorder, s.Packets, s.Lost, s.Overflow)
	}
	_ = w.Flush()
}

func outputFlag(c *cobra.Command, output *string) {
	c.Flags().StringVarP(output, "output", "o", "text", "text or json")
	c.PreRunE = func(*cobra.Command, []string) error {
		if *output != "text" && *output != "json" {
			return fmt.Errorf("--output %s: write text or json", *output)
		}
		return nil
	}
}

func wanCaptureCommand(o *options) *cobra.Command {
	var file string
	var duration time.Duration
	c := &cobra.Command{
		Use: "capture", Short: "Record every packet that enters the WAN router from a cluster", Args: cobra.NoArgs,
		Long:    "Writes a pcap file (Ethernet) until the time is over or the command is interrupted. Packets are seen as they leave their cluster, before loss and delay.",
		Example: "  seaway-lab wan capture -o wan.pcap --for 5s",
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, rec, err := o.load()
			if err != nil {
				return err
			}
			n, err := wan.Capture(cmd.Context(), rec.Layout, file, duration)
			fmt.Fprintf(os.Stderr, "%d packets in %s\n", n, file)
			return err
		},
	}
	c.Flags().StringVarP(&file, "output", "o", "", "pcap file to write")
	c.Flags().DurationVar(&duration, "for", 0, "how long; until interrupted if not given")
	_ = c.MarkFlagRequired("output")
	return c
}

func emulatorCommand(o *options) *cobra.Command {
	var worker bool
	c := &cobra.Command{Use: wan.EmulatorCommand, Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return wan.Emulate(cmd.Context(), state.Dir(o.state), worker)
		}}
	c.Flags().BoolVar(&worker, "worker", false, "")
	return c
}
