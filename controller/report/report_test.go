package report_test

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"seaway.dev/seaway/controller/report"
	"seaway.dev/seaway/fleet"
)

func good() fleet.Report {
	return fleet.Report{Version: 1, Node: "n1", Port: 51871, Addrs: []netip.Addr{netip.MustParseAddr("198.51.100.1")},
		Keys:        map[string]fleet.Key{"pay": {1}},
		Attachments: []fleet.Attachment{{PodUID: "b"}, {PodUID: "a", Attached: true, Since: time.Unix(1, 0).UTC()}}}
}

func TestParse(t *testing.T) {
	b, _ := json.Marshal(good())
	text := string(b)
	if rep, err := report.Parse(b); err != nil || !reflect.DeepEqual(*rep, good()) {
		t.Errorf("got %+v, %v", rep, err)
	}
	for name, tc := range map[string]struct{ text, want string }{
		"two":            {text + text, "follows"},
		"newer":          {strings.Replace(text, `"version":1`, `"version":2`, 1), "upgrade"},
		"nobody":         {strings.Replace(text, `"n1"`, `""`, 1), "name"},
		"loopback":       {strings.Replace(text, "198.51.100.1", "127.0.0.1", 1), "nobody can reach"},
		"empty key":      {strings.Replace(text, fleet.Key{1}.String(), fleet.Key{}.String(), 1), "empty key"},
		"private key":    {strings.Replace(text, fleet.Key{1}.String(), "AAAA", 1), "public key"},
		"long message":   {strings.Replace(text, `"podUID":"b"`, `"podUID":"b","message":"`+strings.Repeat("x", 5000)+`"`, 1), "too long"},
		"far too long":   {strings.Repeat(" ", report.MaxSize+1), "limit"},
		"not JSON":       {"x", "invalid"},
		"cut":            {text[:len(text)/2], "EOF"},
		"impossible MTU": {strings.Replace(text, `"node"`, `"mtu":-1,"node"`, 1), "MTU"},
	} {
		if _, err := report.Parse([]byte(tc.text)); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: error %v, want %q", name, err, tc.want)
		}
	}
}

func TestLeanReportsThatSayTheSameAreEqual(t *testing.T) {
	a, b := good(), good()
	b.Attachments[0], b.Attachments[1] = b.Attachments[1], b.Attachments[0]
	b.Attachments[0].Since, b.Attachments[1].Took = time.Now(), 7
	b.IntentRev, b.Peers, b.Problems = 9, []fleet.PeerState{{RxBytes: 1}}, []fleet.Problem{{Reason: "X"}}
	if !reflect.DeepEqual(report.Lean(&a), report.Lean(&b)) {
		t.Errorf("%+v\n%+v", report.Lean(&a), report.Lean(&b))
	}
	b.Attachments[0].Attached = false
	if reflect.DeepEqual(report.Lean(&a), report.Lean(&b)) {
		t.Error("a lost link does not show")
	}
}

func FuzzReport(f *testing.F) {
	b, _ := json.Marshal(good())
	f.Add(b)
	f.Add([]byte(`{"version":1,"node":"n1"} {}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		rep, err := report.Parse(b)
		if err != nil {
			return
		}
		if rep.Node == "" || rep.Version != 1 {
			t.Fatalf("took %+v", rep)
		}
		again, err := json.Marshal(report.Lean(rep))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := report.Parse(again); err != nil {
			t.Fatalf("what was believed is not believed the second time: %v", err)
		}
	})
}
