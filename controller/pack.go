package controller

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"

	"seaway.dev/seaway/slice/addr"
)

func writeLedger(l *addr.Ledger) ([]byte, error) {
	plain, err := l.MarshalBinary()
	if err != nil {
		return nil, fmt.Errorf("write address ledger: %w", err)
	}
	return pack(plain)
}

func readLedger(packed []byte, l *addr.Ledger) error {
	plain, err := unpack(packed)
	if err != nil {
		return fmt.Errorf("read address ledger: %w", err)
	}
	return l.UnmarshalBinary(plain)
}

// maxUnpacked is the most that anything of our own may unpack to: 1 MiB of ConfigMap packs about a tenth of that.
const maxUnpacked = 32 << 20

func pack(plain []byte) ([]byte, error) {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if _, err := z.Write(plain); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

func unpack(packed []byte) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	plain, err := io.ReadAll(io.LimitReader(z, maxUnpacked+1))
	if err == nil && len(plain) > maxUnpacked {
		err = fmt.Errorf("more than %d bytes unpacked", maxUnpacked)
	}
	return plain, err
}
