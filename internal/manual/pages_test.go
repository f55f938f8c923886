package manual

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// root is the repository.
const root = "../.."

// description says what a page needs, so that its commands can be run.
type description struct {
	// The package whose tests run all code of the page. If it is set, nothing of the page is run here.
	testedIn string
	// Directives of the site, and global options. They take the place of those of newSite.
	site, global string
	// What is done before the first command: it may connect clients, and returns what is replaced in the commands, in pairs.
	prepare func(s *site) (replace []string)
	// What commands print, by how they begin: regular expressions, in place of what the page says.
	prints map[string]string
	// Commands that are not run, by how they begin, and why.
	notRun map[string]string
}

// descriptions are those of the pages that need one, by their path in the repository.
var descriptions = make(map[string]description)

// describe is called by the files of pages, at the start of the program.
func describe(page string, d description) bool {
	descriptions[page] = d
	return true
}

// TestDescriptions: each description is of a page, and the package that tests a page itself names it.
func TestDescriptions(t *testing.T) {
	for page, d := range descriptions {
		read(t, page)
		if d.testedIn == "" {
			continue
		}
		code, err := source("./" + d.testedIn)
		if err != nil {
			t.Error(err)
		} else if !strings.Contains(code, strings.TrimPrefix(page, "docs/")) {
			t.Errorf("%s does not name %s", d.testedIn, page)
		}
	}
}

// block is a block of code.
type block struct {
	language string
	line     int // of its first line
	text     string
}

// pages returns the paths of all pages: README.md, and those in docs.
func pages(t *testing.T) []string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil || len(all) < 10 {
		t.Fatal(all, err)
	}
	names := []string{"README.md"}
	for _, path := range all {
		names = append(names, "docs/"+filepath.Base(path))
	}
	return names
}

func read(t *testing.T, page string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, page))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// parse returns the blocks of a page, and the page without them, with empty lines in their place.
func parse(text string) (blocks []block, prose string) {
	var rest strings.Builder
	var open *block
	indent := ""
	n := 0
	for line := range strings.Lines(text) {
		n++
		trimmed := strings.TrimSpace(line)
		switch {
		case open != nil && trimmed == "```":
			if open.language == "" {
				open.language = guess(open.text)
			}
			blocks, open = append(blocks, *open), nil
		case open != nil:
			open.text += strings.TrimPrefix(line, indent)
		case strings.HasPrefix(trimmed, "```"):
			open = &block{language: trimmed[3:], line: n + 1}
			indent, _, _ = strings.Cut(line, "`")
		default:
			rest.WriteString(line)
			continue
		}
		rest.WriteString("\n")
	}
	return blocks, rest.String()
}

// guess returns the language of a block that does not name it, if it begins as one that is tested.
func guess(text string) string {
	first, _, _ := strings.Cut(text, "\n")
	switch {
	case strings.HasPrefix(text, "$ "):
		return "console"
	case startsWithProgram.MatchString(text):
		return "sh"
	case strings.HasSuffix(first, "{"):
		return "caddyfile"
	case regexp.MustCompile(`^\S+ {2,}\S`).MatchString(first):
		return "text" // columns, which a command prints
	}
	return ""
}

// TestLanguages: each block of code has a language, because that decides how it is tested. A shell's commands are in blocks
// of sh, or, together with what they print, of console.
func TestLanguages(t *testing.T) {
	known := strings.Fields("caddyfile conf console go html js json promql python redis sh text yaml " +
		"dockerfile haproxy ini jsx nginx php ruby ts tsx")
	for _, page := range pages(t) {
		blocks, _ := parse(read(t, page))
		for _, b := range blocks {
			if !slices.Contains(known, b.language) {
				t.Errorf("%s:%d: the block has the language %q", page, b.line-1, b.language)
			}
			if b.language == "text" && startsWithProgram.MatchString(b.text) {
				t.Errorf("%s:%d: a command is in a block of text: %.60q", page, b.line, b.text)
			}
		}
	}
}

// programs are those whose commands the pages have.
const programs = "apt|apt-get|caddy|curl|docker|git|go|nats|node|npm|npx|php|pip|python3|redis-cli|sh|ssh|sudo|systemctl|tail|ulimit|wget|xcaddy"

var startsWithProgram = regexp.MustCompile(`^(?:\$ )?(?:` + programs + `) `)
