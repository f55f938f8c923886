package survey

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
)

// TestChange: every node changes what its connections are subscribed to, who does not answer is named and does it when it is back,
// and if the log cannot be reached nothing has changed.
func TestChange(t *testing.T) {
	memory, all := start(t, 3)
	change := func(by int, x hub.Change, done, reached int, missing ...string) {
		t.Helper()
		v, err := all[by].Change(t.Context(), x)
		if err != nil || v.Done != done || v.Failed != 0 || v.Nodes != reached || !slices.Equal(v.Missing, missing) || v.Missing == nil {
			t.Errorf("%+v: %+v, %v", x, v, err)
		}
	}
	subscribers := func(m *member, channel string) int { return m.hub.Subscribers(channel) }
	anns := hub.Change{Do: hub.DoJoin, User: "ann", Channel: "room"}
	all[0].connect(t, 2, "ann", "x")
	all[1].connect(t, 1, "ann", "x")
	id := all[2].connect(t, 1, "ben", "x")[0]
	change(2, anns, 3, 3)
	change(0, hub.Change{Do: hub.DoJoin, Connection: id, Channel: "room"}, 1, 1)
	change(0, hub.Change{Do: hub.DoJoin, Connection: "000000.c1", Channel: "room"}, 0, 0, "000000")
	if n := fmt.Sprint(subscribers(all[0], "room"), subscribers(all[1], "room"), subscribers(all[2], "room")); n != "2 1 1" {
		t.Error(n)
	}
	anns.Do = hub.DoLeave
	change(1, anns, 3, 3)
	change(1, anns, 0, 3)

	for _, x := range []hub.Change{{}, {Do: hub.DoJoin, User: "ann"}, {Do: hub.DoJoin, User: "ann\x00", Channel: "room"}, {Do: hub.DoJoin, Connection: "x", Channel: "room"}} {
		if _, err := all[0].Change(t.Context(), x); !errors.As(err, new(*InvalidError)) {
			t.Errorf("%+v: %v", x, err)
		}
	}

	all[1].silent = true
	all[1].broker.Disconnect()
	anns.Do = hub.DoJoin
	change(0, anns, 2, 2, "b")
	all[1].broker.Reconnect()
	for subscribers(all[1], "room") == 0 { // it does it when it is back
		all[1].hub.Kick(hub.Filter{User: "nobody"}, hub.ReasonPolicy, "") // waits for the loops
	}

	memory.Stop()
	anns.Do = hub.DoLeave
	if v, err := all[0].Change(t.Context(), anns); err == nil || v.Done != 0 || subscribers(all[0], "room") != 2 {
		t.Errorf("%+v, %v", v, err)
	}
}
