package integration

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	fences     = regexp.MustCompile("(?ms)^\\s*```.*?^\\s*```$")
	codeBlocks = regexp.MustCompile(fences.String() + "|`[^`\n]*`")
	headings   = regexp.MustCompile("(?m)^#+ (.*)$")
	linked     = regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`)
	links      = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	hasScheme  = regexp.MustCompile(`^[a-z]+:`)
	notInSlugs = regexp.MustCompile(`[^\p{L}\p{N}_ -]`)
)

// anchors returns those of a page's headings, by GitHub's rule.
func anchors(text string) (all []string) {
	text = fences.ReplaceAllString(text, "")
	for _, m := range headings.FindAllStringSubmatch(text, -1) {
		heading := linked.ReplaceAllString(m[1], "$1")
		all = append(all, strings.ReplaceAll(notInSlugs.ReplaceAllString(strings.ToLower(heading), ""), " ", "-"))
	}
	return all
}

// TestLinks: each relative link of each page leads to a file that exists, and to a heading of it.
func TestLinks(t *testing.T) {
	read := func(path string) string {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	n := 0
	err := filepath.WalkDir("../..", func(page string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name := d.Name(); d.IsDir() && (name == "node_modules" || len(name) > 2 && name[0] == '.') {
			return filepath.SkipDir
		}
		if d.IsDir() || filepath.Ext(page) != ".md" {
			return nil
		}
		for _, m := range links.FindAllStringSubmatch(codeBlocks.ReplaceAllString(read(page), ""), -1) {
			if hasScheme.MatchString(m[1]) {
				continue
			}
			n++
			path, anchor, _ := strings.Cut(m[1], "#")
			target := page
			if path != "" {
				target = filepath.Join(filepath.Dir(page), path)
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s links to %s: %v", page, m[1], err)
			} else if anchor != "" && filepath.Ext(target) == ".md" && !slices.Contains(anchors(read(target)), anchor) {
				t.Errorf("%s links to %s, which has no such heading", page, m[1])
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if n < 50 {
		t.Errorf("only %d links were found", n)
	}
}
