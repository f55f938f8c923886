package cluster

import (
	"strings"
	"testing"
)

// testConflate: conflate keys come with the messages through the broker. A client that keeps up gets every message, on any node, and
// one that resumes gets the newest of each key, and each message without one: on a node that has had them live, and on one that reads
// them from the broker.
func testConflate(t *testing.T, s *single) {
	const channel = "conflated"
	first := send(t, s.nodes[0], channel, "first", "")
	live := join(t, s.nodes[:2], channel)
	for i, text := range []string{"row:1 a", "row:2 b", " c", "row:1 d", "row:3 e", "row:3 f", " g", "row:1 h"} {
		key, text, _ := strings.Cut(text, " ")
		query := ""
		if key != "" {
			query = "?conflate=" + key
		}
		send(t, s.nodes[i%3], channel+query, text, "")
		live.expect(t, text) // so that their order is this one
	}
	back := func(texts ...string) {
		t.Helper()
		for _, n := range s.nodes {
			for _, kind := range []string{v1, stream} {
				c := open(t, n, kind, first, channel)
				c.expect(t, texts...)
				c.close()
			}
		}
	}
	back("b", "c", "f", "g", "h")
	// What a node has read, and what comes afterwards, replace each other too.
	send(t, s.nodes[0], channel+"?conflate=row:2", "i", "")
	send(t, s.nodes[1], channel, "end", "")
	live.expect(t, "i", "end")
	back("c", "f", "g", "h", "i", "end")
}
