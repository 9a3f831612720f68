// Package machine switches the lab's machines on and off. A machine is a set of
// namespaces (net, mount, uts, ipc, pid) around a PID 1 of ours; its disk is a
// folder of the lab's state that outlives a power cycle.
package machine

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"seaway.dev/seaway/lab/cgroup"
	"seaway.dev/seaway/lab/layout"
	"seaway.dev/seaway/lab/netns"
	"seaway.dev/seaway/lab/pki"
	"seaway.dev/seaway/lab/state"
	"seaway.dev/seaway/lab/underlay"
)

// InitCommand is the hidden command that is PID 1 of a machine.
const InitCommand = "machine-init"

// Spec is all that PID 1 has to know.
type Spec struct {
	Machine layout.Machine `json:"machine"`
	Cluster layout.Cluster `json:"cluster"`
	Layout  layout.Layout  `json:"layout"`
	Dir     string         `json:"dir"`
	PKI     string         `json:"pki"`
	Bin     string         `json:"bin"`
}

// Machine that can be switched on and off.
type Machine struct {
	dir  state.Dir
	lab  state.Lab
	plan layout.Machine
	cl   layout.Cluster
}

// State of a machine.
type State string

// The states.
const (
	Running State = "running"
	Paused  State = "paused"
	Off     State = "off"
)

// Find a machine of a lab.
func Find(dir state.Dir, lab state.Lab, name string) (Machine, error) {
	m, c, err := lab.Layout.Machine(name)
	return Machine{dir: dir, lab: lab, plan: m, cl: c}, err
}

// All machines of a lab.
func All(dir state.Dir, lab state.Lab) []Machine {
	var ms []Machine
	for _, c := range lab.Layout.Clusters {
		for _, m := range c.Machines {
			ms = append(ms, Machine{dir: dir, lab: lab, plan: m, cl: c})
		}
	}
	return ms
}

// Plan is what the layout says of it.
func (m Machine) Plan() layout.Machine { return m.plan }

// Cluster that it belongs to.
func (m Machine) Cluster() layout.Cluster { return m.cl }

// Dir is its place on the host's disk.
func (m Machine) Dir() string { return m.dir.MachineDir(m.plan.Name) }

// LogDir holds its daemons' logs.
func (m Machine) LogDir() string { return filepath.Join(m.Dir(), "log") }

func (m Machine) record() string { return filepath.Join("machines", m.plan.Name, "process.json") }

// Process is its PID 1; zero if it was never switched on.
func (m Machine) Process() state.Process {
	var p state.Process
	_ = m.dir.Read(m.record(), &p)
	return p
}

// State says whether it runs.
func (m Machine) State() State {
	switch {
	case !m.Process().Alive():
		return Off
	case cgroup.Frozen(m.plan.Name):
		return Paused
	default:
		return Running
	}
}

// Connected says whether its cable is plugged in.
func (m Machine) Connected() bool { return underlay.Connected(m.plan, m.cl) }

// Start switches it on.
func (m Machine) Start() error {
	if m.State() != Off {
		return fmt.Errorf("%s is running already", m.plan.Name)
	}
	for _, d := range []string{"log", "disk/var", "disk/etc", "disk/etc.work", "disk/opt", "disk/opt.work"} {
		if err := os.MkdirAll(filepath.Join(m.Dir(), d), 0o755); err != nil {
			return err
		}
	}
	spec := Spec{Machine: m.plan, Cluster: m.cl, Layout: m.lab.Layout, Dir: m.Dir(), PKI: filepath.Join(m.Dir(), "pki"), Bin: m.lab.Bin}
	if err := pki.Deal(m.dir.Path("clusters", m.cl.Name, "pki"), spec.PKI, m.plan); err != nil {
		return fmt.Errorf("keys of %s: %w", m.plan.Name, err)
	}
	specFile := filepath.Join("machines", m.plan.Name, "spec.json")
	if err := m.dir.Write(specFile, spec); err != nil {
		return err
	}
	if err := underlay.Plug(m.plan, m.cl, m.lab.Layout); err != nil {
		return fmt.Errorf("network of %s: %w", m.plan.Name, err)
	}
	if err := m.spawn(m.dir.Path(specFile)); err != nil {
		return fmt.Errorf("start %s: %w", m.plan.Name, err)
	}
	return nil
}

// spawn starts PID 1 in the namespace that Plug made.
func (m Machine) spawn(spec string) error {
	log, err := os.OpenFile(filepath.Join(m.LogDir(), "init.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(state.Self, InitCommand, spec)
	cmd.Dir, cmd.Stdout, cmd.Stderr = "/", log, log
	cmd.Env = []string{"PATH=/run/lab/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true,
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC | syscall.CLONE_NEWPID}
	return m.dir.Spawn(cmd, m.record(), func() error { return netns.Do(underlay.NetnsOf(m.plan.Name), cmd.Start) })
}

// Kill is a power cut: everything in it is gone at once, the disk stays. Its processes take a second to die on a busy host, and
// those that do close their connections: so the network goes first.
func (m Machine) Kill() error {
	if err := m.SetCable(false); err != nil {
		return err
	}
	if err := m.PowerOff(); err != nil {
		return err
	}
	return underlay.Unplug(m.plan, m.cl)
}

// PowerOff ends its processes if there are any, and no more.
func (m Machine) PowerOff() error {
	p := m.Process()
	// A frozen process takes no signal, not even this one.
	if err := p.Signal(unix.SIGKILL); err != nil {
		return err
	}
	if err := cgroup.Freeze(m.plan.Name, false); err != nil {
		return err
	}
	if err := p.Kill(15 * time.Second); err != nil {
		return fmt.Errorf("switch off %s: %w", m.plan.Name, err)
	}
	return nil
}

// SetPaused stops or continues all its processes.
func (m Machine) SetPaused(paused bool) error {
	if m.State() == Off {
		return m.offError()
	}
	return cgroup.Freeze(m.plan.Name, paused)
}

// SetCable pulls its network cable or plugs it in.
func (m Machine) SetCable(plugged bool) error {
	if m.State() == Off {
		return m.offError()
	}
	return underlay.SetCable(m.plan, m.cl, plugged)
}

func (m Machine) offError() error {
	return fmt.Errorf("%s is switched off; switch it on with `seaway-lab machine start %s`", m.plan.Name, m.plan.Name)
}

// Command runs a program inside the machine.
func (m Machine) Command(ctx context.Context, argv ...string) (*exec.Cmd, error) {
	switch m.State() {
	case Off:
		return nil, m.offError()
	case Paused:
		return nil, fmt.Errorf("%s is paused; continue it with `seaway-lab machine resume %s`", m.plan.Name, m.plan.Name)
	}
	args := append([]string{"-t", fmt.Sprint(m.Process().PID), "-n", "-m", "-u", "-i", "-p", "--"}, argv...)
	cmd := exec.CommandContext(ctx, "nsenter", args...)
	cmd.Env = append(os.Environ(), "PATH=/run/lab/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	return cmd, nil
}

// Reboot is a power cut and a power-on.
func (m Machine) Reboot() error {
	if err := m.Kill(); err != nil {
		return err
	}
	return m.Start()
}
