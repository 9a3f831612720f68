package controller

import (
	"testing"
	"time"

	"seaway.dev/seaway/bulletin"
)

func TestDoubt(t *testing.T) {
	began := time.Unix(1000, 0)
	d := doubt{began: began, clusters: []string{"c2", "c3"}}
	two := map[string]bulletin.Version{"c2": {}}
	all := map[string]bulletin.Version{"c2": {}, "c3": {}, "c1": {}}
	for name, c := range map[string]struct {
		doubt        doubt
		age          time.Duration
		heard        map[string]bulletin.Version
		met          bool
		held, unsure bool
	}{
		"nothing remembered":          {doubt: doubt{began: began}},
		"at the beginning":            {doubt: d, held: true, unsure: true},
		"heard of one":                {doubt: d, age: time.Second, heard: two, met: true, held: true, unsure: true},
		"heard of all, so soon":       {doubt: d, age: time.Second, heard: all, met: true, unsure: true},
		"heard of all":                {doubt: d, age: settleLeast, heard: all, met: true},
		"of all by the hub alone":     {doubt: d, age: settleLeast, heard: all, held: true, unsure: true},
		"own changes wait no longer":  {doubt: d, age: settleFirst, heard: two, met: true, unsure: true},
		"one is away":                 {doubt: d, age: settleLast - 1, heard: two, met: true, unsure: true},
		"and is waited for no longer": {doubt: d, age: settleLast, heard: two, met: true},
		"no carrier ever came":        {doubt: d, age: settleLast},
	} {
		held, unsure := c.doubt.at(began.Add(c.age), c.heard, c.met)
		if held != c.held || unsure != c.unsure {
			t.Errorf("%s: held %v, unsure %v; want %v, %v", name, held, unsure, c.held, c.unsure)
		}
	}
}
