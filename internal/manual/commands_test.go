package manual

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// command is a command as a page prints it.
type command struct {
	text   string
	line   int
	inline bool   // in a sentence or a table, not in a block
	want   string // what the page says that it prints, or nothing
}

var (
	// A comment that is JSON says what the command prints.
	printed = regexp.MustCompile(` # ([{\[].*[}\]])$`)
	spans   = regexp.MustCompile("`([^`\n]+)`")
	// `go` is also a word, and `caddy` a file: only what has a subcommand is a command.
	isInline = regexp.MustCompile(`^(?:caddy|curl|docker|go (?:run|test)|redis-cli|ssh|systemctl|xcaddy) \S|tail .*\| caddy `)
	heredoc  = regexp.MustCompile(`<<'?(\w+)'?`)
)

// commands returns all commands of a page.
func commands(text string) (all []command) {
	blocks, prose := parse(text)
	for _, b := range blocks {
		switch b.language {
		case "sh":
			all = append(all, script(b)...)
		case "console":
			all = append(all, console(b)...)
		}
	}
	n := 0
	for line := range strings.Lines(prose) {
		n++
		for _, m := range spans.FindAllStringSubmatch(line, -1) {
			if isInline.MatchString(m[1]) {
				all = append(all, command{text: strings.ReplaceAll(m[1], `\|`, "|"), line: n, inline: true})
			}
		}
	}
	return all
}

// script returns the commands of a block of sh: one in a line, unless it goes on after a backslash, or has a document.
func script(b block) (all []command) {
	text, end, first := "", "", 0
	n := b.line - 1
	for line := range strings.Lines(b.text) {
		n++
		if text == "" {
			first = n
			if s := strings.TrimSpace(line); s == "" || strings.HasPrefix(s, "#") {
				continue
			}
		}
		text += line
		switch {
		case end != "":
			if strings.TrimSpace(line) != end {
				continue
			}
		case heredoc.MatchString(line):
			end = heredoc.FindStringSubmatch(line)[1]
			continue
		case strings.HasSuffix(line, "\\\n"):
			continue
		}
		c := command{text: strings.TrimRight(text, "\n"), line: first}
		if m := printed.FindStringSubmatch(c.text); m != nil {
			c.want = m[1]
		}
		all = append(all, c)
		text, end = "", ""
	}
	return all
}

// console returns the commands of a block of console, which begin with a dollar, with the lines after each, which it prints.
func console(b block) (all []command) {
	n := b.line - 1
	for line := range strings.Lines(b.text) {
		n++
		if text, ok := strings.CutPrefix(line, "$ "); ok {
			all = append(all, command{text: strings.TrimSpace(text), line: n})
		} else if len(all) > 0 {
			all[len(all)-1].want += line
		}
	}
	return all
}

// notRun are programs whose commands are not run on any page, and why.
var notRun = map[string]string{
	"docker":        "tests have no Docker",
	"git clone":     "it needs the network",
	"apt":           "it changes the machine",
	"sudo":          "it changes the machine",
	"npm":           "it needs the network; package internal/npm tests what it installs",
	"pip":           "it needs the network",
	"ssh":           "it needs another machine",
	"systemctl":     "it needs a service",
	"xcaddy build":  "it compiles Caddy for minutes, and needs a release",
	"nats stream":   "the program nats is in no package of Debian; TestScalePermissions has Caddy make such streams",
	"go test ./...": "it is what runs this test",
	"go tool":       "it needs a checkout, and examples/cluster starts this server with other flags",
}

// TestCommands runs each command of README.md and docs/ against a real Caddy, as it is printed. Of the commands of this
// repository that take minutes, it checks that they exist. A command that is neither run nor has a reason in notRun, or in the
// description of its page, fails the test.
func TestCommands(t *testing.T) {
	if testing.Short() {
		t.Skip("once is enough")
	}
	total := 0
	for _, page := range pages(t) {
		all := commands(read(t, page))
		total += len(all)
		if len(all) > 0 && descriptions[page].testedIn == "" {
			t.Run(page, func(t *testing.T) { testPage(t, page, all) })
		}
	}
	if total < 40 {
		t.Errorf("only %d commands were found", total)
	}
}

func testPage(whole *testing.T, page string, all []command) {
	d := descriptions[page]
	var s *site // for all commands, so it ends with the whole page
	unused := maps.Clone(d.notRun)
	for _, c := range all {
		if _, ok := reason(c.text, d.notRun); ok {
			maps.DeleteFunc(unused, func(start, _ string) bool { return strings.HasPrefix(c.text, start) })
			continue
		}
		if _, ok := reason(c.text, notRun); ok {
			continue
		}
		whole.Run(fmt.Sprint("line ", c.line), func(t *testing.T) {
			if ok, err := checkGo(c.text); ok {
				if err != nil {
					t.Errorf("%s: %v", c.text, err)
				}
				return
			}
			if c.inline && usesCaddy.MatchString(c.text) {
				checkUsage(t, c.text)
				return
			}
			if strings.ContainsAny(c.text, "…<") && c.inline {
				return // it stands for many commands
			}
			requirePrograms(t, c.text)
			if s == nil {
				s = newSite(whole, d)
			}
			s.expect(t, c, d)
		})
	}
	for start, why := range unused {
		whole.Errorf("no command begins with %q, which is not run because %s", start, why)
	}
}

// reason returns why a command is not run.
func reason(text string, reasons map[string]string) (why string, ok bool) {
	for start, why := range reasons {
		if strings.HasPrefix(text, start) {
			return why, true
		}
	}
	return "", false
}

var (
	ids    = regexp.MustCompile(`[0-9A-Z]{8}-\d+`)
	counts = regexp.MustCompile(`"subscribers":\d+`)
	space  = regexp.MustCompile(`\s+`)
)

// normal returns what a command prints without what is different each time: IDs, numbers of subscribers, and white space.
func normal(s string) string {
	var v any
	if json.Unmarshal([]byte(s), &v) == nil {
		compact, _ := json.Marshal(v)
		s = string(compact)
	}
	s = counts.ReplaceAllString(ids.ReplaceAllString(s, "ID"), `"subscribers":N`)
	return strings.TrimSpace(space.ReplaceAllString(s, " "))
}

// TestNewCommands: a command that nobody has described is found, whichever form it has.
func TestNewCommands(t *testing.T) {
	const page = "Run `curl localhost:1`, `go` and `caddy`, or `tail -f log \\| caddy broadcast publish`, or:\n\n" +
		"```sh\n# first\na b\n\ncurl -d x \\\n\ty # {\"id\":1}\ncat <<'END'\none\nEND\n```\n\n- x\n\n  ```console\n  $ c d\n  e\n  f\n  $ g\n  ```\n\n" +
		"```caddyfile\ncurl x\n```\n\n```\ncurl y\n```\n"
	got := commands(page)
	want := []command{
		{"a b", 5, false, ""}, {"curl -d x \\\n\ty # {\"id\":1}", 7, false, `{"id":1}`}, {"cat <<'END'\none\nEND", 9, false, ""},
		{"c d", 17, false, "e\nf\n"}, {"g", 20, false, ""}, {"curl y", 28, false, ""}, {"curl localhost:1", 1, true, ""},
		{"tail -f log | caddy broadcast publish", 1, true, ""},
	}
	if !slices.Equal(got, want) {
		t.Errorf("%+v", got)
	}
}
