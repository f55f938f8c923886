package integration

import (
	"fmt"
	"testing"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
)

// TestJoinPosition: a client that joins a channel from an old position, and has newer messages of others, is told the position after
// what it has missed. It would resume from an older one otherwise, and get messages twice.
func TestJoinPosition(t *testing.T) {
	s := v1Test{caddytest.Start(t, "broadcast {\nhistory 100\n}\n---\nbroadcast /ws news {\njoin room:*\n}"), make(map[string]int)}
	c := s.dial("/ws")
	s.talk(c, "", v1Hello("id0", false))
	s.Publish("channel=room:7", "missed")
	s.Publish("channel=news", "seen")
	s.talk(c, "", `[{"id":"id1","channel":"news","data":"seen"}]`)
	s.talk(c, fmt.Sprintf(`{"join":{"channel":"room:7","last_id":"%s"},"ref":1}`, s.idOf(0)),
		`[{"ack":{"ref":1,"channel":"room:7","id":"id0","resumed":true}},{"id":"id2","channel":"room:7","data":"missed"},`+
			`{"subscribed":{"channel":"room:7","id":"id1"}}]`)
	s.Publish("channel=news", "next")
	s.talk(c, "", `[{"id":"id3","channel":"news","data":"next"}]`)

	// Nothing is repeated if the last message is the newest one.
	s.Publish("channel=room:8", "newest")
	s.talk(c, fmt.Sprintf(`{"join":{"channel":"room:8","last_id":"%s"},"ref":2}`, s.idOf(3)),
		`[{"ack":{"ref":2,"channel":"room:8","id":"id3","resumed":true}},{"id":"id4","channel":"room:8","data":"newest"}]`)
}
