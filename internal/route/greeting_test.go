package route

import (
	"testing"

	"github.com/caddyserver/caddy/v2"
)

// TestEscapeJSON: JSON stays as it is, with the placeholders in it.
func TestEscapeJSON(t *testing.T) {
	repl := caddy.NewEmptyReplacer()
	repl.Set("user.id", "ann")
	for text, want := range map[string]string{
		"hello {user.id}{none}":                 "hello ann",
		`{"hello": "world"}`:                    `{"hello": "world"}`,
		`{"a":{"b":[{}, { "c":"{user.id}" }]}}`: `{"a":{"b":[{}, { "c":"ann" }]}}`,
		"{\n\t\"a\": \"{none}\"\n}":             "{\n\t\"a\": \"\"\n}",
		`\{"hello": "{user.id}"}`:               `{"hello": "ann"}`, // escaped by hand
		`[1]`:                                   `[1]`,
		`{`:                                     `{`,
	} {
		if got := repl.ReplaceAll(escapeJSON(text), ""); got != want {
			t.Errorf("%s: got %s, want %s", text, got, want)
		}
	}
}
