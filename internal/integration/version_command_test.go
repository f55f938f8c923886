package integration

import (
	"encoding/json"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
)

// TestVersionCommand: `caddy broadcast version` needs no Caddy that runs. The broker "memory" is one of the tests.
func TestVersionCommand(t *testing.T) {
	run := func(t *testing.T, more ...string) (string, error) {
		cmd := exec.Command(os.Args[0], append([]string{"broadcast", "version"}, more...)...)
		cmd.Env = append(os.Environ(), caddytest.AsCaddy+"=1")
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	t.Run("as text", func(t *testing.T) {
		out, err := run(t)
		want := "go " + runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH + "\nclient 1\nbrokers memory, nats, redis\n"
		if got := alike(out); err != nil || !strings.HasPrefix(got, "caddy-broadcast ") || !strings.HasSuffix(got, want) {
			t.Errorf("%v %s", err, out)
		}
	})
	t.Run("as JSON", func(t *testing.T) {
		out, err := run(t, "--json")
		var v struct {
			Version, Caddy, Go, OS, Arch string
			Client                       int
			Brokers                      []string
		}
		if err != nil || json.Unmarshal([]byte(out), &v) != nil || v.Version == "" || v.Caddy == "" || v.Go != runtime.Version() ||
			v.OS != runtime.GOOS || v.Arch != runtime.GOARCH || v.Client != 1 || !slices.Equal(v.Brokers, []string{"memory", "nats", "redis"}) {
			t.Errorf("%v %s", err, out)
		}
	})
	t.Run("with an argument", func(t *testing.T) {
		if out, err := run(t, "x"); err == nil || !strings.Contains(out, `unknown command "x"`) {
			t.Errorf("%v %s", err, out)
		}
	})
}
