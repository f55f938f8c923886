package integration

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
)

// TestCommandsByUnixSocket: the commands reach an admin API on a unix socket.
func TestCommandsByUnixSocket(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows")
	}
	dir, err := os.MkdirTemp("", "cb") // t.TempDir is too long for a socket's name
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	socket := "unix/" + filepath.Join(dir, "admin")
	cfg, err := caddytest.Adapt("{\nadmin " + socket + "|0600\npersist_config off\n}\nhttp://" + caddytest.FreeAddr(t) + " {\nbroadcast /ws\n}")
	if err != nil {
		t.Fatal(err)
	}
	if err := caddy.Load(cfg, true); err != nil {
		t.Fatal(err)
	}
	defer caddy.Stop()
	for _, address := range []string{socket, socket + "|0600"} {
		for _, args := range [][]string{{"publish", "x"}, {"publish", "--lines"}, {"channels"}} {
			cmd := exec.Command(os.Args[0], append(append([]string{"broadcast"}, args...), "--address", address)...)
			cmd.Env = append(os.Environ(), caddytest.AsCaddy+"=1")
			cmd.Stdin = strings.NewReader("one\ntwo\n")
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%s %q: %v\n%s", address, args, err, out)
			}
		}
	}
}
