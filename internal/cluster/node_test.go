package cluster

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/caddy-broadcast/caddy-broadcast/internal/servertest"
)

// rounds is few, or many with HOP in the environment.
func rounds(few, many int) int {
	if os.Getenv("HOP") != "" {
		return many
	}
	return few
}

// A node is killed while publishers wait for its answers. They repeat their messages at other nodes. Each message that one
// of them has an ack for reaches everybody once, at the position of the ack, and so do those that the node had stored
// without telling. A client of the node goes on at another one.
func testNodeKilled(t *testing.T, s *single) {
	a, b := s.nodes[0], s.nodes[1]
	victim := newNode(t, "victim", s.options("", s.server.Addr()))
	stayed := audience{open(t, a, v1, "", "victim"), open(t, b, stream, "", "victim"), open(t, b, raw, "", "victim")}
	lastID := stayed[0].lastID
	unanswered := 0
	for round := range rounds(6, 200) {
		victim.run(t)
		victim.waitUp()
		moved := &follower{client: open(t, victim, v1, lastID, "victim")}
		acks := startPublishing(t, []*node{victim, a, b}, "victim", fmt.Sprint("round ", round))
		for len(moved.had) < acks.total/4 && moved.take(t) {
		}
		victim.kill()
		for moved.take(t) { // what was on its way
		}
		acks.publishing.Wait()
		moved.client = open(t, a, v1, moved.lastID, "victim")
		for len(moved.had) < acks.total && moved.take(t) {
		}
		lastID = moved.lastID
		moved.close()
		for _, c := range stayed {
			c.expectSame(t, moved.had)
		}
		for text, id := range acks.ids {
			if !slices.Contains(moved.had, id+" "+text) {
				t.Fatalf("%q with the ID %s did not come", text, id)
			}
		}
		unanswered += acks.unanswered
	}
	t.Logf("%d publishes were without an answer, and repeated", unanswered)
}

// follower is a client that moves, and what it has had: IDs and texts.
type follower struct {
	*client
	had []string
}

// take reads one thing, which must not be a gap. It is false when the connection has ended.
func (f *follower) take(t *testing.T) bool {
	t.Helper()
	e, err := f.tryRead(t)
	if err != nil {
		return false
	}
	if e.Gap != nil {
		t.Fatalf("a gap: %+v", e)
	}
	if e.ID != "" {
		f.had = append(f.had, e.ID+" "+f.text(e))
	}
	return true
}

// expectSame reads the messages that a follower has had.
func (c *client) expectSame(t *testing.T, had []string) {
	t.Helper()
	for i, want := range had {
		e := c.read(t)
		id, text, _ := strings.Cut(want, " ")
		if c.kind != raw && e.ID != id || c.text(e) != text {
			t.Fatalf("%s got %s %q as %d, and the one that moved got %q", c.kind, e.ID, c.text(e), i, want)
		}
	}
}

// acks is what some publishers are told.
type acks struct {
	publishing sync.WaitGroup
	total      int // messages

	mu         sync.Mutex
	ids        map[string]string // by text
	unanswered int
}

// startPublishing has several publishers send messages to the first node, and to the others when it does not answer.
func startPublishing(t *testing.T, nodes []*node, channel, text string) *acks {
	const publishers, each = 4, 15
	a := &acks{total: publishers * each, ids: map[string]string{}}
	for p := range publishers {
		a.publishing.Go(func() {
			for i := range each {
				text := fmt.Sprint(text, " ", p, " ", i)
				id, told, err := insist(t.Context(), nodes, channel, text)
				if err != nil {
					t.Error(err)
					return
				}
				a.mu.Lock()
				a.ids[text] = id
				a.unanswered += told[0]
				a.mu.Unlock()
			}
		})
	}
	return a
}

// A node that is cut off from its broker keeps its clients for partition_timeout. Then it sends them away, and they resume at
// another node.
func testNodeCutOff(t *testing.T, s *single) {
	proxy := servertest.NewProxy(t, s.server.Addr(), nil)
	n := startNodes(t, 1, func(int) string { return "partition_timeout 2s\n" + s.options("", proxy.Addr()) })[0]
	all := join(t, []*node{n}, "cutoff")
	send(t, n, "cutoff", "1", "")
	all.expect(t, "1")
	begun := time.Now()
	proxy.Refuse()
	texts, _ := insistAll(t, s.nodes, "cutoff", "elsewhere", 5)
	for _, c := range all {
		c.expectClose(t, websocket.StatusTryAgainLater)
	}
	if stayed := time.Since(begun); stayed < 2*time.Second {
		t.Errorf("they were sent away after %v", stayed)
	}
	for _, kind := range []string{v1, raw} {
		_, err := connect(t.Context(), n.Addr, kind, "", "cutoff")
		if code := refused(0); !errors.As(err, &code) || code != http.StatusServiceUnavailable {
			t.Errorf("another one: %v", err)
		}
	}
	if got := mustNot(t, n, "cutoff", "no", "", http.StatusServiceUnavailable); got.retryAfter == "" {
		t.Errorf("%+v", got)
	}
	for _, c := range all {
		if c.kind != raw {
			open(t, s.nodes[1], c.kind, c.lastID, "cutoff").expect(t, texts...)
		}
	}
	proxy.Accept()
	n.waitUp()
	open(t, n, v1, all[0].lastID, "cutoff").expect(t, texts...)
}

// A node that is paused for so long that the server has thrown it out gets everything that it has missed. A client that
// cannot take all of that at once is sent away as a slow one, and resumes.
func testNodePaused(t *testing.T, s *single) {
	if testing.Short() && s.nats == nil {
		t.Skip("it takes ten seconds, and tests nothing that only Redis has")
	}
	n := startNodes(t, 1, func(int) string { return s.options("", s.server.Addr()) })[0]
	all := join(t, []*node{n}, "paused")
	n.freeze()
	thawed := time.After(10 * time.Second)
	late := make(chan answer, 1)
	go func() {
		a, _ := post(t.Context(), n.Addr, "paused", "late", "late")
		late <- a
	}()
	var texts []string
	large := strings.Repeat("x", 100_000)
	for i := range 200 { // more than sockets hold
		texts = append(texts, fmt.Sprint(i, large))
		send(t, s.nodes[0], "paused", texts[i], "")
	}
	<-thawed
	n.thaw()
	got := <-late
	if got.status != http.StatusOK && got.status != http.StatusServiceUnavailable && got.status != http.StatusGatewayTimeout {
		t.Errorf("a message to a paused node: %+v", got)
	}
	id := send(t, s.nodes[0], "paused", "late", "late")
	if got.id != "" && got.id != id {
		t.Errorf("the message is stored at %s, and again at %s", got.id, id)
	}
	texts = append(texts, "late")
	n.waitUp()
	for _, c := range all {
		followed := c
		for i := 0; i < len(texts); {
			e, err := followed.tryRead(t)
			switch {
			case err != nil && c.kind == raw && websocket.CloseStatus(err) == websocket.StatusTryAgainLater:
				i = len(texts) // it does not resume
			case err != nil && (c.kind == stream || websocket.CloseStatus(err) == websocket.StatusTryAgainLater):
				followed = open(t, n, c.kind, followed.lastID, "paused")
			case err != nil:
				t.Fatalf("%s: %v", c.kind, err)
			case e.Hello != nil:
			case e.Gap != nil || followed.text(e) != texts[i]:
				t.Fatalf("%s: gap %v, %.20q instead of %.20q", c.kind, e.Gap, followed.text(e), texts[i])
			default:
				i++
			}
		}
	}
	if repairs := n.metric("broker_repairs_total"); repairs == 0 {
		t.Error("the server has not thrown it out")
	}
}

// A reload with the same broker, or with other options for the same log, is not noticed. With another log, or none, all
// clients are told of a gap.
func testReload(t *testing.T, s *single) {
	same := s.options("", s.server.Addr())
	n := startNodes(t, 1, func(int) string { return same })[0]
	all := join(t, []*node{n}, "reload")
	send(t, s.nodes[0], "reload", "0", "")
	n.reload("coalesce 1ms\n" + same)
	send(t, n, "reload", "1", "")
	n.reload(s.options("publish_timeout 7s", s.proxies[2].Addr()))
	send(t, s.nodes[0], "reload", "2", "")
	n.waitUp()
	insistAll(t, []*node{n}, "reload", "3", 1)
	all.expect(t, "0", "1", "2", "3 0")
	for i, other := range []string{s.options(s.other, s.server.Addr()), "", same} {
		change(t, n, other)
		all.expectGapThen(t, n, "reload", fmt.Sprint("other ", i))
	}
	if n.epoch() != s.nodes[0].epoch() {
		t.Error("it is not back in the first log")
	}
}
