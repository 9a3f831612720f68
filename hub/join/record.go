package join

import (
	"encoding/json"

	corev1 "k8s.io/api/core/v1"
)

// Record is the hub's view of a token's ConfigMap.
type Record struct{ *corev1.ConfigMap }

// Claimed returns the claim's text, "" if nobody has claimed yet.
func (r Record) Claimed() string { return r.Data[keyClaim] }

// Answered tells whether the hub has said yes or no.
func (r Record) Answered() bool { return r.Data[keyAnswer] != "" || r.Data[keyRefusal] != "" }

// Refused tells whether the hub has said no. Then the claim counts no more, and the next may be written in its place.
func (r Record) Refused() bool { return r.Data[keyRefusal] != "" }

// Fetched tells whether the member has said that it has the answer.
func (r Record) Fetched() bool { return r.Data[keyFetched] != "" }

// Answer writes the sealed grant into the record.
func (r Record) Answer(sealed string) { r.Data[keyAnswer] = sealed }

// Refuse writes a refusal into the record.
func (r Record) Refuse(no Refusal) error {
	b, err := json.Marshal(no)
	if err != nil {
		return err
	}
	r.Data[keyRefusal] = string(b)
	return nil
}
