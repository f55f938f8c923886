package websocket

import (
	"fmt"
	"testing"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/ratelimit"
)

// TestEmptyArraysAreRequests: a frame without requests counts as one.
func TestEmptyArraysAreRequests(t *testing.T) {
	addr, h := serve(t, func(e *Endpoint) { e.Rate = ratelimit.Limit{PerSecond: 1. / 3600, Burst: 1} })
	p := open(t, addr, "Sec-WebSocket-Protocol: broadcast.v1\r\n")
	p.frame()           // the hello
	const rejected = 20 // before the client is closed
	for range 1 + rejected + 1 {
		p.Write(mask(0x81, "[]"))
	}
	for range rejected {
		p.expect(0x81, `[{"error":{"code":"rate","message":"too many requests"}}]`)
	}
	if first, payload := p.frame(); first != 0x88 || string(payload[:2]) != closeWith(1008) {
		t.Errorf("%x %q", first, payload)
	}
	if got := fmt.Sprint(h.Stats().Rejected[hub.LimitRate.String()]); got != fmt.Sprint(rejected+1) {
		t.Errorf("%s rejected", got)
	}
}
