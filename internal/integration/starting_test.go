package integration

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
)

// starting is an app that publishes while Caddy starts, and says what the admin API has answered.
type starting struct {
	Admin string `json:"admin"`
}

var answered = make(chan string, 1)

func init() { caddy.RegisterModule(starting{}) }

func (starting) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "test_starting", New: func() caddy.Module { return new(starting) }}
}

func (s *starting) Start() error {
	resp, err := http.Post("http://"+s.Admin+"/broadcast/publish", "text/plain", strings.NewReader("x"))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	answered <- resp.Status + " " + string(body)
	return err
}

func (s *starting) Stop() error { return nil }

// TestPublishWhileStarting: the admin endpoint answers before the configuration runs. A publisher that waits for Caddy to
// come back must not be told that there is no broadcast.
func TestPublishWhileStarting(t *testing.T) {
	addr := caddytest.FreeAddr(t)
	config := `{"admin":{"listen":"` + addr + `"},"logging":{"logs":{"default":{"writer":{"output":"discard"}}}},
		"apps":{"broadcast":{},"test_starting":{"admin":"` + addr + `"}}}`
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	if err := caddy.Load([]byte(config), true); err != nil {
		t.Fatal(err)
	}
	defer caddy.Stop()
	if got := <-answered; !strings.HasPrefix(got, "503 ") || !strings.Contains(got, "no configuration is running") {
		t.Error(got)
	}
}
