package main

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"seaway.dev/seaway/e2e/wire"
)

func TestStepsAreToldAndTimed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b strings.Builder
		tell := &teller{out: &b, start: time.Now()}
		tell.chapter("One")
		if err := tell.step("wait", func() (string, error) { time.Sleep(25 * time.Second); return "rested", nil }); err != nil {
			t.Fatal(err)
		}
		if err := tell.step("break", func() (string, error) { return "", errors.New("glass") }); err == nil || err.Error() != "break: glass" {
			t.Errorf("%v", err)
		}
		tell.table()
		for _, want := range []string{"… wait (10 s)", "… wait (20 s)", "✓ wait", "25.0 s  rested", "✗ break", "all together"} {
			if !strings.Contains(b.String(), want) {
				t.Errorf("no %q in\n%s", want, b.String())
			}
		}
		if strings.Contains(b.String(), "\x1b") {
			t.Error("control codes without a terminal")
		}
	})
}

func TestTheCaptureIsJudged(t *testing.T) {
	good := []wire.Flow{{From: "c1", To: "c2", Protocol: "udp", Port: 51871, Packets: 3}}
	if err := onlySealed(good); err != nil {
		t.Error(err)
	}
	for what, bad := range map[string][]wire.Flow{
		"nothing":      nil,
		"other port":   append(good[:1:1], wire.Flow{Protocol: "udp", Port: 53, Packets: 1}),
		"tcp":          append(good[:1:1], wire.Flow{Protocol: "tcp", Port: 51871, Packets: 1}),
		"readable udp": {{Protocol: "udp", Port: 51871, Packets: 1, Readable: 1}},
	} {
		if onlySealed(bad) == nil {
			t.Errorf("%s was taken for sealed", what)
		}
	}
}

func TestAnswersAreRead(t *testing.T) {
	a := "proto=http cluster=c1 pod=web-1 local=[::ffff:10.77.0.1]:8080 remote=10.77.1.2:40000\n"
	if field(a, "cluster") != "c1" || hostOf(field(a, "remote")) != "10.77.1.2" {
		t.Error(field(a, "cluster"), hostOf(field(a, "remote")))
	}
}
