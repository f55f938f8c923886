package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// audience is clients that are on one channel.
type audience []*client

// join connects a client of each kind to each node, on a channel.
func join(t *testing.T, nodes []*node, channel string) (a audience) {
	t.Helper()
	for _, n := range nodes {
		for _, kind := range []string{v1, stream, raw} {
			a = append(a, open(t, n, kind, "", channel))
		}
	}
	return a
}

// open connects a client and reads its hello.
func open(t *testing.T, n *node, kind, lastID string, channels ...string) *client {
	t.Helper()
	c, err := connect(t.Context(), n.Addr, kind, lastID, channels...)
	if err != nil {
		t.Fatalf("%s to node %s: %v", kind, n.name, err)
	}
	t.Cleanup(c.close)
	if kind != raw && lastID == "" {
		if e := c.read(t); e.Hello == nil {
			t.Fatalf("%s: %+v instead of a hello", kind, e)
		}
	}
	return c
}

// read returns what comes next.
func (c *client) read(t *testing.T) event {
	t.Helper()
	e, err := c.tryRead(t)
	if err != nil {
		t.Fatalf("%s on %v: %v", c.kind, c.channels, err)
	}
	return e
}

func (c *client) tryRead(t *testing.T) (event, error) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if c.kind == stream { // its body knows nothing of this context
		defer context.AfterFunc(ctx, c.close)()
	}
	return c.next(ctx)
}

// expect reads messages, which must be these, without a gap. A hello may come before them.
func (c *client) expect(t *testing.T, texts ...string) {
	t.Helper()
	for _, want := range texts {
		e := c.read(t)
		for e.Hello != nil {
			e = c.read(t)
		}
		if e.Gap != nil || c.text(e) != want {
			t.Fatalf("%s on %v: %q, gap %v, instead of %q", c.kind, c.channels, c.text(e), e.Gap, want)
		}
	}
}

func (a audience) expect(t *testing.T, texts ...string) {
	t.Helper()
	for i, c := range a {
		c.expect(t, texts...)
		if t.Failed() {
			t.Fatal("client", i)
		}
	}
}

// expectGap reads a gap that names these channels. Raw WebSockets are not told.
func (c *client) expectGap(t *testing.T, channels ...string) {
	t.Helper()
	if c.kind == raw {
		return
	}
	e := c.read(t)
	for e.Hello != nil {
		e = c.read(t)
	}
	if e.Gap == nil || !slices.Equal(sorted(e.Gap.Channels), sorted(channels)) {
		t.Fatalf("%s: %+v %q instead of a gap on %v", c.kind, e.Gap, c.text(e), channels)
	}
}

func (a audience) expectGap(t *testing.T, channels ...string) {
	t.Helper()
	for _, c := range a {
		c.expectGap(t, channels...)
	}
}

// expectClose reads until the node ends the connection, which must be with this code. An event stream has none.
func (c *client) expectClose(t *testing.T, code websocket.StatusCode) {
	t.Helper()
	for {
		_, err := c.tryRead(t)
		switch {
		case err == nil:
			continue
		case c.kind != stream && websocket.CloseStatus(err) != code || errors.Is(err, context.DeadlineExceeded):
			t.Fatalf("%s: closed with %v, not %v", c.kind, err, code)
		}
		return
	}
}

// send publishes at a node, which must accept it, and returns the ID.
func send(t *testing.T, n *node, channel, text, key string) string {
	t.Helper()
	a, err := post(t.Context(), n.Addr, channel, text, key)
	if err != nil || a.status != http.StatusOK {
		t.Fatalf("publishing at node %s: %+v %v", n.name, a, err)
	}
	return a.id
}

// mustNot publishes at a node, which must answer with an error.
func mustNot(t *testing.T, n *node, channel, text, key string, status int) answer {
	t.Helper()
	a, err := post(t.Context(), n.Addr, channel, text, key)
	if err != nil || a.status != status {
		t.Fatalf("publishing at node %s: %.200v %v instead of %d", n.name, a, err, status)
	}
	return a
}

// insist publishes until a node accepts it, always with the same key. It returns the ID, and what it was told before.
func insist(ctx context.Context, nodes []*node, channel, text string) (id string, told map[int]int, err error) {
	told = map[int]int{}
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		for _, n := range nodes {
			a, err := post(ctx, n.Addr, channel, text, "key of "+text)
			if err == nil && a.status == http.StatusOK {
				return a.id, told, nil
			}
			told[a.status]++ // 0 if there was no answer
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return "", told, fmt.Errorf("it is not published: %v", told)
		}
	}
}

// insistAll publishes numbered texts one after another.
func insistAll(t *testing.T, nodes []*node, channel, text string, count int) (texts []string, told map[int]int) {
	t.Helper()
	told = map[int]int{}
	for i := range count {
		texts = append(texts, fmt.Sprint(text, " ", i))
		_, more, err := insist(t.Context(), nodes, channel, texts[i])
		if err != nil {
			t.Fatal(err)
		}
		for status, n := range more {
			told[status] += n
		}
	}
	return texts, told
}

// expectGapThen publishes until all clients have a message again. Before its first one each is told of a gap, or of two: what
// is published while the node changes to another log comes before the channel is open there. After it nothing is missing.
func (a audience) expectGapThen(t *testing.T, n *node, channel, text string) {
	t.Helper()
	all, published := make(chan struct{}), make(chan int)
	go func() {
		for i := 0; ; i++ {
			select {
			case <-all:
				published <- i
				return
			default:
			}
			if _, _, err := insist(t.Context(), []*node{n}, channel, fmt.Sprint(text, " ", i)); err != nil {
				t.Error(err)
			}
		}
	}()
	next := make([]int, len(a)) // what each has to get next
	for i, c := range a {
		for gaps := 0; next[i] == 0; {
			e := c.read(t)
			switch {
			case e.Hello != nil:
			case e.Gap != nil:
				gaps++
			case c.kind != raw && gaps == 0:
				t.Fatalf("%s: %q without a gap", c.kind, c.text(e))
			default:
				if _, err := fmt.Sscanf(c.text(e), text+" %d", &next[i]); err != nil {
					t.Fatalf("%s: %q: %v", c.kind, c.text(e), err)
				}
				next[i]++
			}
		}
	}
	close(all)
	count := <-published
	for i, c := range a {
		for ; next[i] < count; next[i]++ {
			c.expect(t, fmt.Sprint(text, " ", next[i]))
		}
	}
}
