package controller

import (
	"time"

	"seaway.dev/seaway/bulletin"
)

// A replica that begins to lead knows of the other clusters what the one before it wrote down, up to memoryPace ago or,
// after a power cut, much longer. What has come to be since stands in the letters that carriers hold and in what nodes
// were told. Until it has heard of everybody again, it takes nothing away:
//
//	             heard of all again           not within settleFirst          not within settleLast
//	imports      made anew                    made anew of what is known      .
//	names        what is not there is denied  in doubt: nodes keep what they  what is not there is denied
//	                                          know and deny nothing

const (
	settleLeast = 2 * time.Second  // carriers come back in this time, and what they bring is newer than the hub's mailboxes
	settleFirst = 3 * time.Second  // own changes wait this long at most
	settleLast  = 30 * time.Second // a cluster that is away for good is not waited for
	doubtPace   = 500 * time.Millisecond
)

// doubt is how a leader's knowledge began. The zero doubt is that of one who remembers nothing.
type doubt struct {
	began    time.Time
	clusters []string // others that are remembered
}

// at tells whether others' exports are still to be waited for (held), and whether names that are not known may exist
// (unsure). heard is what was heard since the beginning; met, whether a carrier of this cluster came.
func (d doubt) at(now time.Time, heard map[string]bulletin.Version, met bool) (held, unsure bool) {
	age := now.Sub(d.began)
	if len(d.clusters) == 0 || age >= settleLast {
		return false, false
	}
	all := met
	for _, name := range d.clusters {
		_, ok := heard[name]
		all = all && ok
	}
	if all && age >= settleLeast {
		return false, false
	}
	return !all && age < settleFirst, true
}
