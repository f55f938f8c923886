package socketio_test

import (
	"strings"
	"testing"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
)

// TestElsewhereInNamespace: a client of another namespace goes on at another server too, where its ID is that of its namespace alone.
func TestElsewhereInNamespace(t *testing.T) {
	withNodes(t, 2, func(n *nodes) {
		a, b := n.all[0], n.all[1]
		b.connect("") // it knows of names from here on
		c := a.connect("/chat,")
		name := "/chat," + c.sid
		to := func(x *testNode, event, name string) (id string) {
			m := &hub.Message{Channel: "/chat", Event: event, Data: []byte("1"), Kind: hub.JSON, Emit: &hub.Emit{To: name}}
			if err := x.Publish(m); err != nil {
				t.Fatal(err)
			}
			return m.ID()
		}
		a.command(hub.DoJoin, name, "", "/chat,room")
		offset := to(b, "one", name)
		to(b, "wrong", c.sid)
		b.emit("two", "/chat,room")
		if got := c.next(""); strings.Count(got, "42/chat,[") != 2 || !strings.Contains(got, `"one"`) || !strings.Contains(got, `"two"`) {
			t.Errorf("%q", got)
		}
		d, got := b.back(c, "/chat,", offset)
		if d.sid != c.sid || d.pid != c.pid || strings.Count(got, "42/chat,[") != 1 || !strings.Contains(got, `"two"`) {
			t.Fatalf("%q", got)
		}
		to(a, "three", name)
		to(a, "wrong", c.sid)
		a.command(hub.DoClose, c.sid, "", "")
		a.command(hub.DoLeave, name, "", "/chat,room")
		a.emit("wrong", "/chat,room")
		a.command(hub.DoClose, name, "", "")
		if got := d.next(""); strings.Count(got, "42/chat,[") != 1 || !strings.Contains(got, `"three"`) || !strings.Contains(got, "41/chat") {
			t.Errorf("%q", got)
		}
		if _, got := b.back(c, "/chat,", offset); strings.Contains(got, c.sid) {
			t.Errorf("it goes on though it was disconnected: %q", got)
		}
	})
}
