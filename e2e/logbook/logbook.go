// Package logbook is a folder of logs that pods of the lab write and the story reads while they do: machines of the lab
// share this machine's /tmp, so a log outlives the power of the machine that wrote it.
package logbook

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Folder of logs, on this machine and, by a hostPath, in pods.
type Folder struct {
	Path  string
	marks map[string]int64 // file → how much of it was read
}

// New makes an empty folder that any user may write in: pods write as whom they like.
func New(name string) (*Folder, error) {
	dir, err := os.MkdirTemp("", "seaway-"+name+"-")
	if err != nil {
		return nil, err
	}
	return &Folder{Path: dir, marks: map[string]int64{}}, os.Chmod(dir, 0o777)
}

// Remove removes the folder.
func (f *Folder) Remove() error { return os.RemoveAll(f.Path) }

// More returns what was added to each log since it was last called, whole lines only: by the log's name without .log.
func (f *Folder) More() (map[string]string, error) {
	files, err := filepath.Glob(filepath.Join(f.Path, "*.log"))
	if err != nil {
		return nil, err
	}
	slices.Sort(files)
	out := map[string]string{}
	for _, name := range files {
		lines, err := wholeLines(name, f.marks[name])
		if err != nil {
			return nil, err
		}
		f.marks[name] += int64(len(lines))
		if lines != "" {
			out[strings.TrimSuffix(filepath.Base(name), ".log")] = lines
		}
	}
	return out, nil
}

// Empty throws away what is in the logs. Whoever writes them appends, and goes on at the beginning.
func (f *Folder) Empty() error {
	for name := range f.marks {
		if err := os.Truncate(name, 0); err != nil {
			return err
		}
		f.marks[name] = 0
	}
	return nil
}

// wholeLines reads from an offset to the end of the last whole line.
func wholeLines(name string, from int64) (string, error) {
	file, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer file.Close()
	fi, err := file.Stat()
	if err != nil || fi.Size() <= from {
		return "", err
	}
	buf := make([]byte, fi.Size()-from)
	n, err := file.ReadAt(buf, from)
	if n < len(buf) {
		return "", err
	}
	return string(buf[:strings.LastIndexByte(string(buf), '\n')+1]), nil
}
