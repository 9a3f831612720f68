package bulletin

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"

	"seaway.dev/seaway/fleet"
)

// Letter is a bulletin, or what changed in it, signed by the cluster that says it. Who carries it can read it and
// cannot change it.
type Letter struct {
	Cluster    string
	Epoch, Rev uint64
	Base       uint64 // a delta's: the Rev it builds on; 0 for a whole bulletin
	Body       []byte // what Encode or EncodeDelta made
	Sig        [ed25519.SignatureSize]byte
}

// Version is how new what a cluster says is.
type Version struct {
	Epoch uint64 `json:"e"`
	Rev   uint64 `json:"r"`
}

// Newer tells whether v is newer than o.
func (v Version) Newer(o Version) bool {
	return v.Epoch > o.Epoch || v.Epoch == o.Epoch && v.Rev > o.Rev
}

// Version returns the version that a reader of the letter has.
func (l *Letter) Version() Version { return Version{l.Epoch, l.Rev} }

// plainLimit is up to which size a delta goes unpacked: packing costs more than it saves on a few hundred bytes.
const plainLimit = 1 << 10

// EncodeDelta writes a delta in its wire form: JSON, packed if it is long.
func EncodeDelta(d *fleet.BulletinDelta) ([]byte, error) {
	plain, err := json.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("bulletin of %s: %w", d.Cluster, err)
	}
	if len(plain) <= plainLimit {
		return plain, nil
	}
	return packed(d.Cluster, plain)
}

// DecodeDelta reads a delta from its wire form, within the limits of a bulletin.
func DecodeDelta(body []byte) (*fleet.BulletinDelta, error) {
	plain := body
	if !bytes.HasPrefix(body, []byte("{")) {
		var err error
		if plain, err = unpacked(body); err != nil {
			return nil, err
		}
	}
	if err := readable(plain); err != nil {
		return nil, err
	}
	d := new(fleet.BulletinDelta)
	if err := json.Unmarshal(plain, d); err != nil {
		return nil, fmt.Errorf("read bulletin's change: %w", err)
	}
	return d, nil
}

// signedBytes is what a signature is over. The first words keep a signature from meaning anything elsewhere.
func (l *Letter) signedBytes() []byte {
	out := append([]byte("seaway bulletin letter 1\x00"), byte(len(l.Cluster)))
	out = append(out, l.Cluster...)
	for _, n := range []uint64{l.Epoch, l.Rev, l.Base} {
		out = binary.BigEndian.AppendUint64(out, n)
	}
	return append(out, l.Body...)
}

// Sign signs a letter.
func (l *Letter) Sign(key ed25519.PrivateKey) { copy(l.Sig[:], ed25519.Sign(key, l.signedBytes())) }

// SignedBy tells whether the holder of a key has signed the letter.
func (l *Letter) SignedBy(key fleet.Key) bool {
	return !key.IsZero() && ed25519.Verify(key[:], l.signedBytes(), l.Sig[:])
}

// Write makes the signed letter of a bulletin, or of a delta if d is not nil.
func Write(b *fleet.Bulletin, d *fleet.BulletinDelta, key ed25519.PrivateKey) (*Letter, error) {
	l := &Letter{Cluster: b.Cluster, Epoch: b.Epoch, Rev: b.Rev}
	var err error
	if d != nil {
		l.Base = d.Base
		l.Body, err = EncodeDelta(d)
	} else {
		l.Body, err = Encode(b)
	}
	if err != nil {
		return nil, err
	}
	l.Sign(key)
	return l, nil
}

// errLetter says that bytes are no letter.
var errLetter = errors.New("not a letter")

// maxName is the longest name of a cluster (api/v1alpha1).
const maxName = 32

// header is a letter's part before its body: name's length, name, epoch, rev, base, signature.
const headerSize = 1 + 3*8 + ed25519.SignatureSize

// MarshalBinary writes a letter for a frame.
func (l *Letter) MarshalBinary() ([]byte, error) {
	if l.Cluster == "" || len(l.Cluster) > maxName || len(l.Body) > MaxSize {
		return nil, fmt.Errorf("letter of %.64q with %d bytes: %w", l.Cluster, len(l.Body), errLetter)
	}
	out := make([]byte, 0, headerSize+len(l.Cluster)+len(l.Body))
	out = append(append(out, byte(len(l.Cluster))), l.Cluster...)
	for _, n := range []uint64{l.Epoch, l.Rev, l.Base} {
		out = binary.BigEndian.AppendUint64(out, n)
	}
	return append(append(out, l.Sig[:]...), l.Body...), nil
}

// UnmarshalBinary reads a letter. It keeps no reference to b.
func (l *Letter) UnmarshalBinary(b []byte) error {
	if len(b) == 0 || b[0] == 0 || b[0] > maxName || len(b) < headerSize+int(b[0]) || len(b) > headerSize+int(b[0])+MaxSize {
		return fmt.Errorf("%d bytes: %w", len(b), errLetter)
	}
	n := int(b[0])
	l.Cluster, b = string(b[1:1+n]), b[1+n:]
	if !isLabel(l.Cluster) {
		return fmt.Errorf("of cluster %.64q: %w", l.Cluster, errLetter)
	}
	for _, to := range []*uint64{&l.Epoch, &l.Rev, &l.Base} {
		*to, b = binary.BigEndian.Uint64(b), b[8:]
	}
	copy(l.Sig[:], b)
	l.Body = bytes.Clone(b[len(l.Sig):])
	if l.Rev == 0 || l.Base >= l.Rev || len(l.Body) == 0 {
		return fmt.Errorf("revision %d on %d: %w", l.Rev, l.Base, errLetter)
	}
	return nil
}
