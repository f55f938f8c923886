package cluster

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/caddy-broadcast/caddy-broadcast/internal/natstest"
)

// A server that has lost what it had acknowledged gives positions to new messages that others had. All nodes see one new
// epoch, and their clients a gap.
func testRolledBack(t *testing.T, s *single) {
	_, js := s.nats.JetStream(t)
	all := join(t, s.nodes, "rolled")
	two := open(t, s.nodes[2], v1, "", "rolled", "second")
	send(t, s.nodes[0], "rolled", "kept", "")
	s.server.Kill()
	rollBack := s.nats.Snapshot()
	s.server.Run()
	texts, _ := insistAll(t, s.nodes, "rolled", "lost", 10)
	all.expect(t, append([]string{"kept"}, texts...)...)
	two.expect(t, append([]string{"kept"}, texts...)...)
	before, entries := s.nodes[0].epoch(), epochEntries(t, js)
	s.server.Kill()
	rollBack()
	s.server.Run()
	now := s.expectEpoch(t, before)
	all.expectGap(t, "rolled")
	two.expectGap(t, "rolled", "second")
	if n := epochEntries(t, js) - entries; n != 1 {
		t.Errorf("%d entries begin an epoch", n)
	}
	id := send(t, s.nodes[1], "rolled", "after", "")
	if !strings.HasPrefix(id, now+"-") {
		t.Errorf("the ID is %s in the epoch %s", id, now)
	}
	old := all[0].lastID
	all.expect(t, "after")
	for _, kind := range []string{v1, stream} {
		open(t, s.nodes[0], kind, old, "rolled").expectGap(t, "rolled")
	}
}

// The same for a stream that is deleted: the nodes make another one.
func testDeleted(t *testing.T, s *single) {
	_, js := s.nats.JetStream(t)
	all := join(t, s.nodes, "deleted")
	send(t, s.nodes[0], "deleted", "1", "")
	all.expect(t, "1")
	before := s.nodes[0].epoch()
	if err := js.DeleteStream("BROADCAST"); err != nil {
		t.Fatal(err)
	}
	s.expectEpoch(t, before)
	all.expectGap(t, "deleted")
	send(t, s.nodes[2], "deleted", "2", "")
	all.expect(t, "2")
}

// One key on three nodes at the same moment is one message, and another message with it is refused everywhere.
func testKeys(t *testing.T, s *single) {
	all := join(t, s.nodes, "keys")
	for i := range rounds(50, 1000) {
		key, text := fmt.Sprint("key ", i), fmt.Sprint("text ", i)
		answers := make([]answer, len(s.nodes))
		var posting sync.WaitGroup
		for k, n := range s.nodes {
			posting.Go(func() {
				var err error
				if answers[k], err = post(t.Context(), n.Addr, "keys", text, key); err != nil {
					t.Error(err)
				}
			})
		}
		posting.Wait()
		for _, a := range answers {
			if a.status != http.StatusOK || a.id != answers[0].id {
				t.Fatalf("%+v", answers)
			}
		}
		mustNot(t, s.nodes[i%3], "keys", "other", key, http.StatusUnprocessableEntity)
		all.expect(t, text)
		if all[0].lastID != answers[0].id {
			t.Fatalf("it came at %s, and the publishers were told %s", all[0].lastID, answers[0].id)
		}
	}
}

// TestStartWithoutServer: a node starts before its broker, and serves everything else.
func TestStartWithoutServer(t *testing.T) {
	t.Parallel()
	server := natstest.Start(t, "")
	server.Kill()
	n := newNode(t, "early", broker(one, server.URL()))
	n.run(t)
	if status, body := n.Do("GET", n.Addr+"/other", ""); status != http.StatusOK || body != "served" {
		t.Errorf("%d %s", status, body)
	}
	if got := mustNot(t, n, "early", "no", "", http.StatusServiceUnavailable); got.retryAfter == "" {
		t.Errorf("%+v", got)
	}
	if status, body := n.Do("GET", n.Admin+"/broadcast/health", ""); status != http.StatusServiceUnavailable {
		t.Errorf("it is healthy: %s", body)
	}
	_, err := connect(t.Context(), n.Addr, v1, "", "early")
	if code := refused(0); !errors.As(err, &code) || code != http.StatusServiceUnavailable {
		t.Errorf("a WebSocket: %v", err)
	}
	if c, err := connect(t.Context(), n.Addr, stream, "", "early"); err != nil {
		t.Error("an event stream:", err) // after a 503 it would not come back
	} else {
		c.close()
	}
	server.Run()
	n.waitUp()
	all := join(t, []*node{n}, "early")
	send(t, n, "early", "1", "")
	all.expect(t, "1")
	if status, body := n.Do("GET", n.Admin+"/broadcast/health", ""); status != http.StatusNoContent {
		t.Errorf("it is not healthy: %s", body)
	}
}

// metric returns the sum of a metric's series.
func (n *node) metric(name string) (sum float64) {
	n.T.Helper()
	_, body := n.Do("GET", n.Admin+"/metrics", "")
	for line := range strings.Lines(body) {
		if rest, ok := strings.CutPrefix(line, "caddy_broadcast_"+name); ok && (rest[0] == '{' || rest[0] == ' ') {
			var v float64
			fmt.Sscan(rest[strings.LastIndexByte(rest, ' ')+1:], &v)
			sum += v
		}
	}
	return sum
}
