package cluster

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/natstest"
)

// truth is what publishers without keys were told of their messages, while brokers fail.
type truth struct {
	nodes []*node
	stop  chan struct{}

	mu    sync.Mutex
	told  map[string]string // a status, or a code of broadcast.v1, by text
	acked map[string]string // IDs
}

// testTruth: what was acknowledged comes to everybody, in one order, and what was refused comes to nobody. Only what the
// publisher was told it may or may not.
func testTruth(t *testing.T, nodes []*node, outage func()) {
	all := join(t, nodes, "truth")
	h := &truth{nodes: nodes, stop: make(chan struct{}), told: map[string]string{}, acked: map[string]string{}}
	var publishing sync.WaitGroup
	for p := range 6 {
		publishing.Go(func() { h.post(t, p) })
	}
	for p := range 3 {
		publishing.Go(func() { h.feed(t, p) })
	}
	h.more(t, 300)
	outage()
	h.more(t, 300)
	close(h.stop)
	publishing.Wait()
	insistAll(t, nodes, "truth", "end", 1)
	order := all[0].until(t, "end 0")
	for _, c := range all[1:] {
		if got := c.until(t, "end 0"); !slices.Equal(got, order) {
			t.Fatalf("%s got %d messages, and another client %d, or in another order", c.kind, len(got), len(order))
		}
	}
	had := map[string]bool{}
	for _, text := range order {
		if had[text] {
			t.Errorf("%q came twice", text)
		}
		had[text] = true
	}
	outcomes := map[string]int{}
	for text, told := range h.told {
		outcomes[told]++
		switch {
		case told == "200" && !had[text]:
			t.Errorf("%q was acknowledged with %s and did not come", text, h.acked[text])
		case (told == "503" || told == "unavailable") && had[text]:
			t.Errorf("%q came, and its publisher was told %s: nothing was published", text, told)
		}
	}
	t.Logf("publishers were told %v; %d messages came", outcomes, len(order))
}

// until reads messages until one with a text, without a gap.
func (c *client) until(t *testing.T, last string) (texts []string) {
	t.Helper()
	for {
		e := c.read(t)
		switch {
		case e.Gap != nil:
			t.Fatalf("%s: a gap", c.kind)
		case e.Hello != nil:
		case c.text(e) == last:
			return texts
		default:
			texts = append(texts, c.text(e))
		}
	}
}

// more waits until so many more messages are acknowledged.
func (h *truth) more(t *testing.T, n int) {
	t.Helper()
	count := func() int {
		h.mu.Lock()
		defer h.mu.Unlock()
		return len(h.acked)
	}
	goal := count() + n
	for deadline := time.Now().Add(patience); count() < goal; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d are acknowledged", count(), goal)
		}
	}
}

func (h *truth) note(text, told, id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.told[text] = told; told == "200" {
		h.acked[text] = id
	}
}

// texts calls publish with one text after another, and slower when that fails.
func (h *truth) texts(ctx context.Context, name string, publish func(text string) (good bool)) {
	for i := 0; ctx.Err() == nil; i++ {
		select {
		case <-h.stop:
			return
		default:
		}
		if !publish(fmt.Sprint(name, " ", i)) {
			time.Sleep(5 * time.Millisecond)
		}
	}
}

func (h *truth) post(t *testing.T, p int) {
	h.texts(t.Context(), fmt.Sprint("post ", p), func(text string) bool {
		a, err := post(t.Context(), h.nodes[rand.N(len(h.nodes))].Addr, "truth", text, "")
		if err != nil {
			t.Error(err) // no node fails here
			return false
		}
		h.note(text, strconv.Itoa(a.status), a.id)
		return a.status == http.StatusOK
	})
}

func (h *truth) feed(t *testing.T, p int) {
	f, err := openFeed(t.Context(), h.nodes[p%len(h.nodes)].Addr, "truth")
	if err != nil {
		t.Error(err)
		return
	}
	defer f.close()
	h.texts(t.Context(), fmt.Sprint("feed ", p), func(text string) bool {
		id, code, err := f.publish(t.Context(), text, "")
		switch {
		case err != nil:
			t.Error(err)
			return false
		case id != "":
			code = "200"
		}
		h.note(text, code, id)
		return id != ""
	})
}

// The only server is killed again and again.
func testTruthOfOne(t *testing.T, s *single) {
	testTruth(t, s.nodes, func() {
		for range rounds(3, 50) {
			s.server.Kill()
			s.server.Run()
			s.server.WaitReady()
			for _, n := range s.nodes {
				n.waitUp()
			}
		}
	})
}

// The leader of three is killed, and the one after it.
func testTruthOfThree(t *testing.T, servers []*natstest.Server, nodes []*node) {
	testTruth(t, nodes, func() {
		for range rounds(1, 6) {
			leader := leaderOf(t, servers)
			servers[leader].Kill()
			insistAll(t, nodes, "other", "without", 3)
			servers[leader].Run()
			waitCurrent(t, servers)
		}
	})
}
