package integration

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
)

// TestNodePublishes: the line of docs/publishing.md for Node publishes by the admin API.
func TestNodePublishes(t *testing.T) {
	node, err := exec.LookPath("node")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skip("no Node is installed: apt-get install nodejs")
	}
	line := regexp.MustCompile(`(?m)^await fetch\(.*broadcast/publish.*$`).FindString(page(t, "publishing.md"))
	if line == "" {
		t.Fatal("docs/publishing.md has no line for Node")
	}
	s := caddytest.Start(t, "broadcast /ws news")
	c := s.Dial("/ws", nil)
	script := strings.ReplaceAll(line, "localhost:2019", s.Admin)
	script = "const r = " + script + "; console.log(r.status, await r.text())"
	out, err := exec.Command(node, "--input-type=module", "-e", script).CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), `200 {"id":`) {
		t.Fatalf("%v: %s", err, out)
	}
	s.Expect(c, "hello")
}
