package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

// get fetches a URL. Exit code 0: every answer was 2xx; 1: one was not.
func get(args []string) int {
	fs := flag.NewFlagSet("get", flag.ExitOnError)
	n := fs.Int("n", 1, "how many times")
	timeout := fs.Duration("timeout", 3*time.Second, "for each time")
	interval := fs.Duration("interval", 0, "pause between two times")
	quiet := fs.Bool("q", false, "do not print the answers")
	keep := fs.Bool("keepalive", false, "use one connection for all")
	url, rest := splitArgs(args)
	_ = fs.Parse(rest)
	if url == "" {
		fmt.Fprintln(os.Stderr, "usage: lab-app get URL [-n N] [-timeout 3s] [-interval 0s] [-q] [-keepalive]")
		return 2
	}
	t := &http.Transport{DisableKeepAlives: !*keep}
	client := &http.Client{Timeout: *timeout, Transport: t}
	out := io.Writer(os.Stdout)
	if *quiet {
		out = io.Discard
	}
	failed := 0
	for i := range *n {
		if i > 0 && *interval > 0 {
			time.Sleep(*interval)
		}
		if err := fetch(client, url, out); err != nil {
			fmt.Println("error:", err)
			failed++
		}
	}
	if *n > 1 {
		fmt.Printf("ok=%d failed=%d\n", *n-failed, failed)
	}
	return min(failed, 1)
}

func fetch(c *http.Client, url string, out io.Writer) error {
	r, err := c.Get(url)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, r.Body)
	if err := errors.Join(err, r.Body.Close()); err != nil {
		return err
	}
	if r.StatusCode/100 != 2 {
		return fmt.Errorf("%s answered %s", url, r.Status)
	}
	return nil
}

// splitArgs takes the first word that is no flag, so that flags may follow it.
func splitArgs(args []string) (first string, rest []string) {
	if len(args) > 0 && len(args[0]) > 0 && args[0][0] != '-' {
		return args[0], args[1:]
	}
	if n := len(args); n > 0 && len(args[n-1]) > 0 && args[n-1][0] != '-' {
		return args[n-1], args[:n-1]
	}
	return "", args
}
