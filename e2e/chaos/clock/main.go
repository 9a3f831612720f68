// Clock makes what `go build -overlay` needs for a seaway whose wall clock can be stepped while it runs: SIGUSR1 puts it
// a minute forward, SIGUSR2 a minute back. Machines that share a kernel share its clock, so that a fault of one machine's
// clock can be played in its programs only. Nothing else differs from the product, and no product is built so.
//
//	go run ./e2e/chaos/clock -out DIR && go build -overlay DIR/overlay.json ./cmd/seaway
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// minute is how far a signal moves the clock, in seconds.
const minute = 60

// The line of time.Now that asks the kernel, what comes after it, and what steps the clock.
const (
	asks  = "\tsec, nsec, mono := runtimeNow()\n"
	steps = "\nvar step int64\n\n// Step moves the wall clock by seconds.\nfunc Step(seconds int64) { step += seconds }\n"
)

// hook is added to the program, and by mark one sees that a program has it: it is also said when the clock is stepped.
const (
	hook = `package main

import (
	"os"
	"os/signal"
	"syscall"
	"time"
)

var mark = "` + mark + `"

func init() {
	heard := make(chan os.Signal, 8)
	signal.Notify(heard, syscall.SIGUSR1, syscall.SIGUSR2)
	go func() {
		for s := range heard {
			if s == syscall.SIGUSR1 {
				time.Step(%[1]d)
			} else {
				time.Step(-%[1]d)
			}
			println(mark)
		}
	}()
}
`
	mark = "the wall clock of this program can be stepped"
)

func main() {
	out := flag.String("out", "", "directory to write to")
	flag.Parse()
	if err := write(*out); err != nil {
		fmt.Fprintln(os.Stderr, "clock:", err)
		os.Exit(1)
	}
}

func write(out string) error {
	if out == "" {
		return fmt.Errorf("-out is missing: name a directory outside of the tree")
	}
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return fmt.Errorf("go env GOROOT: %w", err)
	}
	source := filepath.Join(string(bytes.TrimSpace(root)), "src", "time", "time.go")
	b, err := os.ReadFile(source)
	if err != nil {
		return err
	}
	if b, err = patch(b); err != nil {
		return fmt.Errorf("%s: %w", source, err)
	}
	program, err := filepath.Abs("cmd/seaway/clock_steps.go")
	if err != nil {
		return err
	}
	if out, err = filepath.Abs(out); err != nil {
		return err
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {
		source: filepath.Join(out, "time.go"), program: filepath.Join(out, "hook.go")}})
	if err != nil {
		return err
	}
	for name, text := range map[string][]byte{"time.go": b, "hook.go": fmt.Appendf(nil, hook, minute), "overlay.json": overlay} {
		if err := keep(filepath.Join(out, name), text); err != nil {
			return err
		}
	}
	return nil
}

// patch has time.Now add what the clock was stepped by.
func patch(source []byte) ([]byte, error) {
	if n := bytes.Count(source, []byte("func Now() Time {\n"+asks)); n != 1 {
		return nil, fmt.Errorf("time.Now of this Go looks different: look at it, and mend e2e/chaos/clock")
	}
	source = bytes.Replace(source, []byte("func Now() Time {\n"+asks), []byte("func Now() Time {\n"+asks+"\tsec += step\n"), 1)
	return append(source, steps...), nil
}

// keep writes a file unless it is the same already, so that nothing is built again for its new date.
func keep(path string, text []byte) error {
	if b, err := os.ReadFile(path); err == nil && bytes.Equal(b, text) {
		return nil
	}
	return os.WriteFile(path, text, 0o644)
}
