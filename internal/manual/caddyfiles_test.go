package manual

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
)

// around is what stands around a part of a Caddyfile, by its first word.
var around = []struct{ first, before, after string }{
	{"broadcast|broadcast_response|forward_auth|handle|header|log|reverse_proxy|basic_auth|encode", "example.com {\n", "\n}\n"},
	{"history|broker|redis|coalesce|max_memory", "{\n\tbroadcast {\n", "\n\t}\n}\n"},
	{"expires|join|publish|socketio|user|presence|origins|rate", "example.com {\n\tbroadcast /ws {\n", "\n\t}\n}\n"},
}

// whole returns a Caddyfile that has a part which a page prints.
func whole(text string) string {
	text = strings.ReplaceAll(text, "$2a$14$...", "$2a$14$Zkx19XLiW6VYouLHR5NmfOFU0z2GTNmpkT/5qqR7hx4IjWJPDhjvG")
	// A sentence has one directive without its block.
	for _, a := range around {
		if regexp.MustCompile(`^(?:` + a.first + `)(?:\s|$)`).MatchString(text) {
			return a.before + text + a.after
		}
	}
	return text
}

// check has Caddy take a Caddyfile, as `caddy validate` does.
func check(config string) error {
	adapted, err := caddytest.Adapt(config)
	if err != nil {
		return err
	}
	var cfg caddy.Config
	if err := json.Unmarshal(adapted, &cfg); err != nil {
		return err
	}
	return caddy.Validate(&cfg)
}

// setSecrets sets the environment variables that the pages' Caddyfiles have.
func setSecrets(t *testing.T) {
	for _, name := range []string{"NATS_PASSWORD", "REDIS_PASSWORD", "QUEUE_PASSWORD", "SENTINEL_PASSWORD"} {
		t.Setenv(name, "secret")
	}
}

// TestCaddyfiles: Caddy takes each Caddyfile of README.md and docs/, and each part of one.
func TestCaddyfiles(t *testing.T) {
	setSecrets(t)
	caddytest.OwnData(t)
	total := 0
	for _, page := range pages(t) {
		blocks, _ := parse(read(t, page))
		for _, b := range blocks {
			if b.language != "caddyfile" || descriptions[page].testedIn != "" {
				continue
			}
			total++
			t.Run(fmt.Sprintf("%s:%d", page, b.line), func(t *testing.T) {
				if err := check(whole(b.text)); err != nil {
					t.Errorf("%v\n%s", err, b.text)
				}
			})
		}
	}
	if total < 25 {
		t.Errorf("only %d Caddyfiles were found", total)
	}
}

var (
	// The options of a block: the first word of each line inside, and for redis the second.
	optionLines = regexp.MustCompile(`(?m)^(?:\t+|//\t    )(redis \w+|\w+)`)
	optionRows  = regexp.MustCompile("(?m)^\\| (`[^|]*) \\|")
	optionNames = regexp.MustCompile("`(redis \\w+|\\w+)")
)

func optionsOf(text string) map[string]bool {
	all := make(map[string]bool)
	for _, m := range optionLines.FindAllStringSubmatch(text, -1) {
		all[m[1]] = true
	}
	return all
}

// TestOptions: docs/caddyfile.md has the options of the directive and of the global option that caddyfile.go parses, each in the
// summary and in the table.
func TestOptions(t *testing.T) {
	code, page := read(t, "caddyfile.go"), read(t, "docs/caddyfile.md")
	between := func(text, start, end string) string {
		_, text, ok := strings.Cut(text, start)
		text, _, found := strings.Cut(text, end)
		if !ok || !found {
			t.Fatalf("there is nothing between %q and %q", start, end)
		}
		return text
	}
	for name, c := range map[string]struct{ code, summary, section string }{
		"directive": {
			between(code, "//\tbroadcast [<matcher>]", "//\t}"),
			between(page, "```text\nbroadcast [<matcher>]", "\n}"),
			between(page, "\n## Options\n", "\n## "),
		},
		"global": {
			between(code, "//\tbroadcast {", "//\t}"),
			between(page, "```text\n{\n\tbroadcast {", "\n\t}"),
			between(page, "\n## Global options\n", "\n## "),
		},
	} {
		t.Run(name, func(t *testing.T) {
			parsed, summary, table := optionsOf(c.code), optionsOf(c.summary), make(map[string]bool)
			for _, row := range optionRows.FindAllStringSubmatch(c.section, -1) {
				for _, m := range optionNames.FindAllStringSubmatch(row[1], -1) {
					table[m[1]] = true
				}
			}
			if len(parsed) < 10 {
				t.Fatal(parsed)
			}
			for where, got := range map[string]map[string]bool{"summary": summary, "table": table} {
				for option := range parsed {
					if !got[option] {
						t.Errorf("the %s lacks %s", where, option)
					}
				}
				for option := range got {
					if !parsed[option] {
						t.Errorf("the %s has %s, which is not parsed", where, option)
					}
				}
			}
		})
	}
}
