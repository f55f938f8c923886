package integration

import (
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
)

func TestLimits(t *testing.T) {
	s := caddytest.Start(t, `broadcast {
			max_connections 2
			max_channels 2
		}
		---
		broadcast /ws/* {path.1}
		handle_errors {
			respond "sorry: {err.message}" {err.status_code}
		}`)
	s.Dial("/ws/a", nil)
	refused := func(path string) {
		t.Helper()
		_, resp, err := s.TryDial(path, nil)
		if err == nil || resp == nil || resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" {
			t.Fatalf("over a limit: %v %v", resp, err)
		}
		if body, _ := io.ReadAll(resp.Body); !strings.HasPrefix(string(body), "sorry: too many") {
			t.Errorf("handle_errors did not run: %q", body)
		}
	}
	b := s.Dial("/ws/b", nil)
	refused("/ws/a")
	b.CloseNow()
	s.WaitTotals(func(v caddytest.Totals) bool { return v.Connections == 1 && v.Channels == 1 })
	if err := s.Load("broadcast {\nmax_channels 1\n}\n---\nbroadcast /ws/* {path.1}\nhandle_errors {\nrespond \"sorry: {err.message}\" {err.status_code}\n}"); err != nil {
		t.Fatal(err)
	}
	refused("/ws/b")
	s.Dial("/ws/a", nil)
	s.ExpectMetrics(`refused_total{limit="connections"} 1`, `refused_total{limit="channels"} 1`, `refused_total{limit="memory"} 0`)
}

// ratesAndQuotas is a site where clients are limited one by one, behind a proxy that tells their addresses.
const ratesAndQuotas = `servers {
			trusted_proxies static private_ranges
		}
		---
		broadcast /fast {
			rate 2/m 3
			user {query.user}
		}
		broadcast /few few {
			max_connections 4 per_ip 2
		}`

// TestRates: who is too fast is told, and others are not disturbed.
func TestRates(t *testing.T) {
	s := caddytest.Start(t, ratesAndQuotas)
	t.Run("raw", func(t *testing.T) { testRateRaw(s.In(t)) })
	t.Run("pings", func(t *testing.T) { testRatePings(s.In(t)) })
	t.Run("broadcast.v1", func(t *testing.T) { testRateV1(s.In(t)) })
	t.Run("POST", func(t *testing.T) { testRatePost(s.In(t)) })
}

func testRateRaw(s *caddytest.Server) {
	other, raw := s.Dial("/fast", nil), s.Dial("/fast", nil)
	for range 4 {
		s.Send(raw, "x")
	}
	s.ExpectClose(raw, websocket.StatusPolicyViolation)
	s.Publish("", "the end")
	s.Expect(other, "x", "x", "x", "the end")
}

func testRatePings(s *caddytest.Server) {
	ctx := s.T.Context()
	pings := s.Dial("/fast", nil)
	end := make(chan error, 1)
	go func() {
		_, _, err := pings.Read(ctx)
		end <- err
	}()
	for range 5 { // as a keep-alive would
		if err := pings.Ping(ctx); err != nil {
			s.T.Fatal(err)
		}
	}
	for pings.Ping(ctx) == nil { // for ever
	}
	if err := <-end; websocket.CloseStatus(err) != websocket.StatusPolicyViolation {
		s.T.Errorf("pings without end: %v", err)
	}
}

// testRateV1: of 25 requests, three are granted, and twenty are answered with an error before the connection is closed.
func testRateV1(s *caddytest.Server) {
	ctx := s.T.Context()
	other := s.Dial("/fast", nil)
	v1 := s.Dial("/fast", &websocket.DialOptions{Subprotocols: []string{"broadcast.v1"}})
	v1.Read(ctx)
	for i := range 25 {
		if v1.Write(ctx, websocket.MessageText, []byte(fmt.Sprintf(`{"publish":{"data":"y"},"ref":%d}`, i))) != nil {
			break
		}
	}
	acks, errs := 0, 0
	for {
		_, p, err := v1.Read(ctx)
		if err != nil {
			if websocket.CloseStatus(err) != websocket.StatusPolicyViolation {
				s.T.Errorf("broadcast.v1 is closed with %v", err)
			}
			break
		}
		acks += strings.Count(string(p), `{"ack":`)
		errs += strings.Count(string(p), `"code":"rate","message":"too many requests"`)
	}
	if acks != 3 || errs != 20 {
		s.T.Errorf("broadcast.v1: %d acks and %d errors", acks, errs)
	}
	s.Expect(other, "y", "y", "y")
}

func testRatePost(s *caddytest.Server) {
	post := func(user string) (int, string) {
		resp, err := http.Post("http://"+s.Addr+"/fast?user="+user, "text/plain", strings.NewReader("z"))
		if err != nil {
			s.T.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode, resp.Header.Get("Retry-After")
	}
	for range 3 {
		if status, _ := post("ann"); status != 200 {
			s.T.Errorf("a POST within the burst: %d", status)
		}
	}
	if status, after := post("ann"); status != 429 || after != "30" {
		s.T.Errorf("a POST too many: %d, Retry-After %s", status, after)
	}
	if status, _ := post("ben"); status != 200 {
		s.T.Errorf("another user's POST: %d", status)
	}
}

// TestQuotas: connections are counted by address and in all, through a reload, and until they end.
func TestQuotas(t *testing.T) {
	s := caddytest.Start(t, ratesAndQuotas)
	s.Dial("/fast", nil) // another route's do not count
	var open []*websocket.Conn
	dial := func(ip string, want int) {
		t.Helper()
		c, resp, err := s.TryDial("/few", &websocket.DialOptions{HTTPHeader: http.Header{"X-Forwarded-For": {ip}}})
		if resp == nil || resp.StatusCode != want {
			t.Fatalf("from %s: %v %v, not %d", ip, resp, err, want)
		}
		if c != nil {
			t.Cleanup(func() { c.CloseNow() })
			open = append(open, c)
		} else if !regexp.MustCompile(`^([1-9]|10)$`).MatchString(resp.Header.Get("Retry-After")) {
			t.Errorf("Retry-After: %s", resp.Header.Get("Retry-After"))
		}
	}
	dial("1.1.1.1", 101)
	dial("1.1.1.1", 101)
	dial("1.1.1.1", 503)
	if err := s.Load(ratesAndQuotas + "\nrespond changed"); err != nil {
		t.Fatal(err)
	}
	dial("1.1.1.1", 503)
	dial("2.2.2.2", 101)
	resp, _ := s.Stream("http://"+s.Addr+"/few", "X-Forwarded-For", "3.3.3.3")
	if resp.StatusCode != 200 {
		t.Errorf("a stream: %s", resp.Status)
	}
	dial("4.4.4.4", 503)
	open[0].CloseNow()
	s.WaitTotals(func(v caddytest.Totals) bool { return v.Connections == 4 })
	dial("1.1.1.1", 101)
	dial("2.2.2.2", 503)
}
