package chaos

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// Book keeps the figures of a series in a file, written after each run, so that a crash loses nothing and that a series
// goes on where an earlier one ended. All its runs are of one commit: figures of two are no series.
type Book struct {
	path    string
	Commit  string   `json:"commit"`
	Reports []Report `json:"reports"`
}

// OpenBook reads a book, or begins one if there is no such file. A book of another commit is an error.
func OpenBook(path, commit string) (*Book, error) {
	b := &Book{path: path, Commit: commit}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(data) == 0 {
		return b, nil
	}
	if err != nil {
		return nil, fmt.Errorf("figures of earlier runs: %w", err)
	}
	if err := json.Unmarshal(data, b); err != nil {
		return nil, fmt.Errorf("figures of earlier runs: %s: %w: name another file", path, err)
	}
	if b.Commit != commit {
		return nil, fmt.Errorf("%s has runs of commit %q, and this is %q: name another file", path, b.Commit, commit)
	}
	return b, nil
}

// Of returns what there is of a fault.
func (b *Book) Of(fault string) Report {
	for _, r := range b.Reports {
		if r.Fault == fault {
			return r
		}
	}
	return Report{}
}

// Put writes what there now is of a fault.
func (b *Book) Put(r Report) error {
	if i := slices.IndexFunc(b.Reports, func(o Report) bool { return o.Fault == r.Fault }); i >= 0 {
		b.Reports[i] = r
	} else {
		b.Reports = append(b.Reports, r)
	}
	data, err := json.Marshal(b)
	if err != nil {
		return fmt.Errorf("keep figures: %w", err)
	}
	// A name of its own beside it: whoever reads meanwhile finds the old figures or the new ones, whole.
	part := filepath.Join(filepath.Dir(b.path), "."+filepath.Base(b.path)+".part")
	if err := os.WriteFile(part, append(data, '\n'), 0o644); err != nil {
		return fmt.Errorf("keep figures: %w", err)
	}
	if err := os.Rename(part, b.path); err != nil {
		return fmt.Errorf("keep figures: %w", err)
	}
	return nil
}
