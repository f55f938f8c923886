package doctor_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/doctor"
)

// TestDocs: docs/doctor.md lists all checks, Caddy takes its Caddyfile, and an nginx with its lines has nothing wrong.
func TestDocs(t *testing.T) {
	p, err := os.ReadFile("../../docs/doctor.md")
	if err != nil {
		t.Fatal(err)
	}
	var got, want []string
	for _, m := range regexp.MustCompile("(?m)^\\| (`[^`-][^`]*` \\| .*) \\|$").FindAllStringSubmatch(strings.SplitN(string(p), "## Checks", 2)[1], -1) {
		got = append(got, m[1])
	}
	for _, c := range doctor.Checks {
		want = append(want, "`"+c.Name+"` | "+c.About)
	}
	if !slices.Equal(got, want) {
		t.Errorf("docs/doctor.md lists\n%s\nand not\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	block := func(language string) string {
		_, text, _ := strings.Cut(string(p), "\n```"+language+"\n")
		text, _, _ = strings.Cut(text, "```")
		return text
	}
	if _, err := caddytest.Adapt(block("caddyfile")); err != nil {
		t.Error(err)
	}
	port := caddytest.FreePort(t)
	caddytest.Start(t, "respond 404\n}\nhttp://:"+port+" {\nbind 127.0.0.1\nbroadcast /ws")
	addr := startNginx(t, "127.0.0.1:"+port).serve(block("nginx"))
	r := run(t, options(t, "http://"+addr+"/ws"))
	healthy(t, r)
	finding(t, r, "websocket", doctor.OK, "it opens")
	finding(t, r, "event stream", doctor.OK, "it opens")
}
