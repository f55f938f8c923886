package recipes

import (
	"fmt"
	"os"
	"strings"

	"github.com/coder/websocket"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/natstest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/redistest"
)

func testSeveralSites(r *recipe) {
	// The same password with the least work, because the race detector makes that of the page's hash take half a minute.
	s := serve(r, r.get("caddyfile", 0, "$2a$14$Zkx19XLiW6VYouLHR5NmfOFU0z2GTNmpkT/5qqR7hx4IjWJPDhjvG", "$2a$04$B7t9hZwKZ/PPRlKlCq4sder2ZY2BB4NvR/dToWvSLFCsu3hI.5SNC"))
	blog, shop := s.follow(r.get("sh", 1)), s.follow(r.get("sh", 2))
	blog.wait("retry:")
	shop.wait("retry:")
	office := s.follow("curl -u ann:hiccup -N -H 'Accept: text/event-stream' https://office.example.com/ws")
	office.wait("retry:")
	s.expect(r.get("sh", 0), `{"id":"`)
	s.expect("curl -d comment https://blog.example.com/ws", `{"id":"`)
	shop.wait("data: 42")
	office.wait("data: comment")
	if out := blog.wait("data: comment"); strings.Contains(out, "42") {
		r.Errorf("the blog got %s", out)
	}
	if out := office.wait("data: 42"); strings.Index(out, "data: 42") > strings.Index(out, "data: comment") {
		r.Errorf("the office got %s", out)
	}
	// Not over HTTP/2, where this curl fails if it gets the response before it has sent the request.
	s.expect("curl -i --http1.1 -d 1 https://shop.example.com/ws", " 403", "publishing is off")
	s.expect("curl -i --http1.1 -d 1 https://office.example.com/ws", " 401")
	if _, resp, err := s.visit("127.0.0.1", "wss://shop.example.com/ws", "Origin", "https://blog.example.com"); err == nil || resp == nil || resp.StatusCode != 403 {
		r.Errorf("a page of the blog at the shop: %v, %v", resp, err)
	}

	if err := caddytest.Load(s.localize(r.get("caddyfile", 1))); err != nil {
		r.Fatal(err)
	}
	a, b := s.mustVisit("127.0.0.1", "wss://a.customers.example.com/ws"), s.mustVisit("127.0.0.1", "wss://b.customers.example.com/ws")
	s.Send(a, "of a")
	s.Expect(a, "of a")
	s.Send(b, "of b")
	s.Expect(b, "of b")
	c := s.mustVisit("127.0.0.1", "wss://a.customers.example.com/ws", "Sec-WebSocket-Protocol", "broadcast.v1")
	for i, want := range []string{`"hello":`, `"ack":{"ref":1`, `"code":"forbidden"`} {
		if i > 0 {
			s.Send(c, fmt.Sprintf(`[{"join":{"channel":"%s.customers.example.com:room:1"},"ref":%d}]`, string(" ab"[i]), i))
		}
		if _, p, err := c.Read(r.Context()); err != nil || !strings.Contains(string(p), want) {
			r.Errorf("%s instead of %s, %v", p, want, err)
		}
	}
}

func testStaging(r *recipe) {
	production, staging := r.get("caddyfile", 0), r.get("caddyfile", 1)
	redis := redistest.Start(r)
	onRedis := strings.NewReplacer("redis://localhost:6379", "redis://127.0.0.1:"+redis.Port)
	r.Run("Redis", func() { runStaging(r, onRedis.Replace(production), onRedis.Replace(staging)) })

	nats := natstest.Start(r, "")
	broker := strings.Replace(r.get("caddyfile", 2), "nats://localhost:4222", nats.URL(), 1)
	_, after, _ := strings.Cut(staging, "broker redis redis://localhost:6379 {\n\t\t\tprefix staging\n\t\t}\n")
	before, _, _ := strings.Cut(staging, "\t\tbroker redis")
	production = strings.Replace(production, "broker redis redis://localhost:6379", "broker nats "+nats.URL()+" {\nreplicas 1\n}", 1)
	r.Run("NATS", func() { runStaging(r, production, before+broker+after) })
}

// runStaging runs both configurations of staging next to production.
func runStaging(r *recipe, production, staging string) {
	r.Helper()
	s, test := newSite(r), newSite(r)
	backend := caddytest.FreePort(r)
	staging = strings.NewReplacer("localhost:2029", test.Admin, "/var/lib/caddy-staging", r.TempDir(), "example.com:8081", "example.com:"+backend, "\tpersist_config off\n", "").Replace(staging)
	caddytest.StartProcess(r, os.Args[0], test.write("Caddyfile", test.localize(staging)), "127.0.0.1:"+backend)
	test.WaitRunning()
	caddytest.Run(r, s.localize(strings.Replace(production, "localhost:8081", "127.0.0.1:"+backend, 1)))
	commands := strings.ReplaceAll(r.get("sh", 0), "localhost:2029", test.Admin)

	real, trial := s.mustVisit("127.0.0.1", "wss://example.com/ws"), s.mustVisit("127.0.0.1", "wss://staging.example.com/ws")
	out := s.run(commands)
	if strings.Count(out, "for staging") != 1 {
		r.Errorf("the commands print\n%s", out)
	}
	s.Publish("channel=news", "for all")
	for c, want := range map[*websocket.Conn]string{real: "for all", trial: "for staging"} {
		if _, p, err := c.Read(r.Context()); err != nil || string(p) != want {
			r.Errorf("%q instead of %q, %v", p, want, err)
		}
	}
	if status, body := s.Do("GET", test.Admin+"/broadcast", ""); status != 200 || !strings.Contains(body, `"nodes":1,`) {
		r.Error(fmt.Sprint("the nodes of staging: ", status, body))
	}
}
