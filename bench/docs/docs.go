// Package docs writes what the benchmarks measure into the pages of docs/.
package docs

import (
	"bytes"
	"fmt"
	"os"
)

// endMark ends the part of a page that a benchmark writes. The line that begins it names the benchmark, so that whoever
// edits the page by hand knows what would overwrite it.
const endMark = "<!-- end of figures -->"

// Write replaces the figures of a page. The text around them is written by hand and stays as it is.
func Write(path, command, figures string) error {
	page, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	beginMark := fmt.Sprintf("<!-- figures: written by %s -->", command)
	before, rest, ok := bytes.Cut(page, []byte(beginMark))
	_, after, ok2 := bytes.Cut(rest, []byte(endMark))
	if !ok || !ok2 {
		return fmt.Errorf("%s has no lines %s and %s", path, beginMark, endMark)
	}
	return os.WriteFile(path, fmt.Appendf(nil, "%s%s\n\n%s\n%s%s", before, beginMark, figures, endMark, after), 0o644)
}

// Met returns "met", or by how much a goal is missed. A page keeps the goals that were missed.
func Met(reached, most float64) string {
	if reached > most && most == 0 {
		return "**missed**" // there is no percentage of nothing
	}
	if reached > most {
		return fmt.Sprintf("**missed by %.0f %%**", (reached/most-1)*100)
	}
	return "met"
}
