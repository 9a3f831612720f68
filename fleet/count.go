package fleet

import "fmt"

// Count writes a number of things as people read it: "1 cluster", "2 clusters". What is counted is given in the singular
// and takes an s.
func Count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
