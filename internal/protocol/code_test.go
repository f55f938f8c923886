package protocol

import (
	"testing"

	"github.com/caddy-broadcast/caddy-broadcast/internal/frame"
	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
)

// TestCodes: each reason is told by its code, each code that a client can be closed with has its reason, and its name is that
// in metrics and events, which do not tell apart what breaks the protocol.
func TestCodes(t *testing.T) {
	for _, c := range []struct {
		why  hub.Reason
		code frame.Code
		back hub.Reason
		name string
	}{
		{hub.ReasonClient, 1000, hub.ReasonClient, "client"},
		{hub.ReasonSlow, 1013, hub.ReasonSlow, "slow"},
		{hub.ReasonMemory, 1013, hub.ReasonSlow, "memory"},
		{hub.ReasonPolicy, 1008, hub.ReasonPolicy, "policy"},
		{hub.ReasonTooBig, 1009, hub.ReasonTooBig, "too_big"},
		{hub.ReasonProtocol, 1002, hub.ReasonProtocol, "protocol"},
		{hub.ReasonUnsupported, 1003, hub.ReasonUnsupported, "protocol"},
		{hub.ReasonInvalid, 1007, hub.ReasonInvalid, "protocol"},
		{hub.ReasonRestart, 1012, hub.ReasonRestart, "restart"},
		{hub.ReasonExpired, 4401, hub.ReasonExpired, "expired"},
	} {
		if got := CloseCode(c.why); got != c.code {
			t.Errorf("%v has the code %d, want %d", c.why, got, c.code)
		}
		if got := Reason(c.code); got != c.back {
			t.Errorf("%d is for %v, want %v", c.code, got, c.back)
		}
		if got := c.why.String(); got != c.name {
			t.Errorf("reason %d is named %q, want %q", c.why, got, c.name)
		}
	}
	h := hub.New(hub.Config{})
	defer h.Close(hub.ReasonRestart, "", 0, 0)
	if n := len(h.Stats().Closed); n != len(codes)-2 { // two names fewer, as three reasons have one
		t.Errorf("%d reasons have a name, and %d a code", n+2, len(codes))
	}
}
