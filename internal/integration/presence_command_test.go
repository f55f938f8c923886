package integration

import (
	"strings"
	"testing"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
)

// TestPresenceCommand: `caddy broadcast presence` lists the members of a channel, and fails where there can be none.
func TestPresenceCommand(t *testing.T) {
	s := startPresence(t)
	c := commandLine{s.Server}
	s.dial("/mute")
	for channel, want := range map[string]string{"room": "through a route with the option presence", "other": "has no subscribers"} {
		if out, good := c.run(t, "", "presence", channel); good || !strings.Contains(out, want) {
			t.Errorf("%s: %v %q", channel, good, out)
		}
	}
	ann := s.dial("/room?me=ann&name=A%1B")
	s.until(ann, 1)
	s.dial("/patient?me=bob")
	s.until(ann, 2)
	s.dial("/patient")
	s.until(ann, 3)
	const annA = `{"name":"A\u001b","tags":[{"a":1}]}`
	for _, row := range []struct {
		name, want string
		args       []string
	}{
		{"as a table", "USER DATA\nann " + annA + "\nbob \nmembers: 3, without a user: 1\n", []string{"presence", "room"}},
		{"as JSON", `{"channel":"room","count":3,"members":[{"user":"ann","data":` + annA + `},{"user":"bob"}]}` + "\n", []string{"presence", "room", "--json"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			if out, good := c.run(t, "", row.args...); !good || out != row.want {
				t.Errorf("%q: %v %q", row.args, good, out)
			}
		})
	}
	// Somebody whose connection has just ended is present, though the channel has no subscribers.
	alone := s.dial("/away?me=eve")
	s.until(alone, 1)
	alone.CloseNow()
	s.WaitTotals(func(v caddytest.Totals) bool { return v.Connections == 4 })
	if out, good := c.run(t, "", "presence", "away"); !good || out != "USER DATA\neve \nmembers: 1, without a user: 0\n" {
		t.Errorf("%v %q", good, out)
	}
}
