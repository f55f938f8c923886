package integration

import (
	"encoding/json"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"github.com/caddy-broadcast/caddy-broadcast/broker/brokertest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
)

// TestDashboard: the dashboard and the docs ask for metrics that there are, and the docs have all of them. Those of a broker are there only with one, and those
// of the Redis protocol only with it.
func TestDashboard(t *testing.T) {
	metrics := func(s *caddytest.Server) string {
		_, body := s.Do("GET", s.Admin+"/metrics", "")
		return body
	}
	if body := metrics(caddytest.Start(t, `broadcast /ws`)); strings.Contains(body, "_broker") || strings.Contains(body, "_redis") {
		t.Error("there are metrics of a broker, or of Redis, without one")
	}
	nobody := caddytest.FreeAddr(t)
	redis := metrics(caddytest.Start(t, "broadcast {\nredis listen "+caddytest.FreeAddr(t)+"\nredis connect redis://"+nobody+"\n}\n---\nbroadcast /ws"))
	newMemory(t, "a", brokertest.MemoryConfig{})
	s := caddytest.Start(t, onBroker("a", "broadcast /ws"))
	awaitHealth(s, http.StatusNoContent)
	s.Dial("/ws", nil)
	s.Publish("", "x")
	body := metrics(s) + redis
	for _, name := range []string{"../../docs/grafana.json", "../../docs/metrics.md"} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		names := regexp.MustCompile(`caddy_broadcast_\w+`).FindAllString(string(text), -1)
		if len(names) < 10 || name == "../../docs/grafana.json" && !json.Valid(text) {
			t.Errorf("%s has %d metrics", name, len(names))
		}
		for _, n := range names {
			if !regexp.MustCompile(`(?m)^`+n+`[ {]`).MatchString(body) && !strings.Contains(body, "# TYPE "+n+" ") {
				t.Errorf("%s asks for %s", name, n)
			}
		}
		for _, m := range regexp.MustCompile(`(?m)^# TYPE (caddy_broadcast_\w+) `).FindAllStringSubmatch(body, -1) {
			if name == "../../docs/metrics.md" && !slices.Contains(names, m[1]) {
				t.Errorf("%s does not have %s", name, m[1])
			}
		}
	}
}

func TestMetrics(t *testing.T) {
	config := `broadcast /ws {
			max_message 100
		}
		broadcast /read {
			publish off
		}`
	s := caddytest.Start(t, config)
	expect := s.ExpectMetrics
	expect("channels 0", "deliveries_total 0", `closed_total{reason="slow"} 0`, "fanout_seconds_count 0")
	a, b, policy := s.Dial("/ws", nil), s.Dial("/ws", nil), s.Dial("/read", nil)
	s.Stream("http://" + s.Addr + "/ws")
	s.Send(a, "hello")
	s.Expect(b, "hello")
	s.Publish("", "from admin")
	s.Post(s.Addr+"/ws", "text/plain", "posted")
	s.Expect(b, "from admin", "posted")
	expect(`connections{transport="websocket"} 3`, `connections{transport="sse"} 1`, "channels 1", "deliveries_total 12",
		`published_total{source="websocket"} 1`, `published_total{source="admin"} 1`, `published_total{source="post"} 1`, "backlog_bytes 0")
	if err := s.Load(config + "\nrespond changed"); err != nil {
		t.Fatal(err)
	}
	s.Send(policy, "not allowed")
	s.ExpectClose(policy, websocket.StatusPolicyViolation)
	s.Send(a, strings.Repeat("x", 101))
	s.ExpectClose(a, websocket.StatusMessageTooBig)
	b.Close(websocket.StatusNormalClosure, "")
	s.Stream("http://"+s.Addr+"/ws", "Last-Event-ID", "x-1")
	expect(`connections{transport="websocket"} 0`, `connections{transport="sse"} 2`, `closed_total{reason="policy"} 1`, `closed_total{reason="too_big"} 1`,
		`closed_total{reason="client"} 1`, "gaps_total 1", "deliveries_total 12")
}
