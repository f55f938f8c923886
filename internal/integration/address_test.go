package integration

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"testing"

	"github.com/coder/websocket"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
)

// TestIPv6Prefix: whoever has a network of IPv6 addresses is one client.
func TestIPv6Prefix(t *testing.T) {
	s := caddytest.Start(t, `servers {
			trusted_proxies static private_ranges
		}
		---
		broadcast /few few {
			max_connections 100 per_ip 1
			rate 1/h
		}
		broadcast /wide wide {
			max_connections 100 per_ip 1
			ipv6_prefix 48
		}
		broadcast /narrow narrow {
			max_connections 100 per_ip 1
			ipv6_prefix 128
		}`)
	from := func(ip string) http.Header { return http.Header{"X-Forwarded-For": {ip}} }
	dial := func(path, ip string, want int) {
		t.Helper()
		c, resp, err := s.TryDial(path, &websocket.DialOptions{HTTPHeader: from(ip)})
		if resp == nil || resp.StatusCode != want {
			t.Errorf("%s from %s: %v %v, not %d", path, ip, resp, err, want)
		}
		if c != nil {
			t.Cleanup(func() { c.CloseNow() })
		}
	}
	post := func(ip string, want int) {
		t.Helper()
		if status, body := s.Post(s.Addr+"/few", "text/plain", "x", "X-Forwarded-For", ip); status != want {
			t.Errorf("POST from %s: %d %s, not %d", ip, status, body, want)
		}
	}
	dial("/few", "2001:db8::1", 101)
	post("2001:db8::1", 200)
	for range 20 {
		ip := fmt.Sprintf("2001:db8::%x:%x", rand.Uint32N(1<<16), rand.Uint32N(1<<16))
		dial("/few", ip, 503)
		post(ip, 429)
	}
	dial("/few", "2001:db8:0:1::1", 101)
	post("2001:db8:0:1::1", 200)
	dial("/few", "192.0.2.1", 101)
	post("192.0.2.1", 200)
	dial("/few", "192.0.2.2", 101)
	dial("/few", "::ffff:192.0.2.1", 503)
	post("::ffff:192.0.2.1", 429)

	dial("/wide", "2001:db8:0:1::1", 101)
	dial("/wide", "2001:db8:0:2::1", 503)
	dial("/wide", "2001:db8:1::1", 101)
	dial("/narrow", "2001:db8::1", 101)
	dial("/narrow", "2001:db8::2", 101)
	dial("/narrow", "2001:db8::2", 503)
}
