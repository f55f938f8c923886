package nodes

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
)

// asked formats what Ask returns.
func asked(answers []Answer, missing []Node) string {
	var list []string
	for _, a := range answers {
		data := string(a.Data)
		if len(data) > 20 {
			data = fmt.Sprintf("%d B", len(data))
		}
		list = append(list, a.Node.Name+"="+data)
	}
	for _, n := range missing {
		list = append(list, "-"+n.Name)
	}
	return strings.Join(list, " ")
}

// TestAsk: all nodes answer, this one first. Who does not within a second is missing, unless it has left. Answers larger than
// a message are whole.
func TestAsk(t *testing.T) {
	withCluster(t, "a b c", func(c *cluster) {
		a, b, d := c.nodes[0], c.nodes[1], c.nodes[2]
		large := bytes.Repeat([]byte("0123456789"), MaxAnswer/10)
		for _, n := range c.nodes {
			n.Handle("name", func(p []byte) []byte { return append([]byte(n.name), p...) })
			n.Handle("nothing", func([]byte) []byte { return nil })
			n.Handle("large", func([]byte) []byte { return large })
			n.Handle("too large", func([]byte) []byte { return append(large, bytes.Repeat([]byte("x"), 100)...) })
		}
		b.Handle("slow", func([]byte) []byte {
			time.Sleep(2 * time.Second)
			return nil
		})
		a.Handle("slow", func([]byte) []byte { return nil })
		expect := func(kind, want string, took time.Duration) {
			t.Helper()
			begun := time.Now()
			if got := asked(a.Ask(c.t.Context(), kind, []byte("!"), a.Known())); got != want {
				t.Errorf("%s: %s, want %s", kind, got, want)
			}
			if d := time.Since(begun).Round(10 * time.Millisecond); d != took {
				t.Errorf("%s took %v, want %v", kind, d, took)
			}
		}
		expect("name", "a=a! b=b! c=c!", 0)
		expect("nothing", "a= b= c=", 0)
		whole := fmt.Sprintf("%d B", len(large))
		expect("large", "a="+whole+" b="+whole+" c="+whole, 0)
		answers, _ := a.Ask(c.t.Context(), "large", nil, a.Known())
		for _, answer := range answers {
			if !bytes.Equal(answer.Data, large) {
				t.Errorf("the answer of %s is not what it was", answer.Node.Name)
			}
		}
		answers, missing := a.Ask(c.t.Context(), "too large", nil, a.Known())
		if len(answers) > 1 || len(missing) != 2 {
			t.Errorf("%s", asked(answers, missing))
		}
		expect("slow", "a= -b -c", time.Second) // c has no such kind
		expect("unknown", "-a -b -c", time.Second)

		d.silent.Store(true)
		expect("name", "a=a! b=b! -c", time.Second)
		ctx, cancel := context.WithTimeout(c.t.Context(), 300*time.Millisecond)
		defer cancel()
		begun := time.Now()
		if got := asked(a.Ask(ctx, "name", nil, a.Known())); got != "a=a b=b -c" || time.Since(begun) != 300*time.Millisecond {
			t.Errorf("%s after %v", got, time.Since(begun))
		}
		d.silent.Store(false)
		d.broker.SetLatency(100 * time.Millisecond)
		time.AfterFunc(50*time.Millisecond, b.leave)
		b.broker.SetLatency(300 * time.Millisecond)
		expect("name", "a=a! c=c!", 350*time.Millisecond)
		a.session.mu.Lock()
		if len(a.session.asks) != 0 {
			t.Errorf("%d questions are open", len(a.session.asks))
		}
		a.session.mu.Unlock()
	})
}

// TestAskSome: only those are asked that are wanted, so no other one is waited for, nor one that is away.
func TestAskSome(t *testing.T) {
	withCluster(t, "a b c d", func(c *cluster) {
		a := c.nodes[0]
		var questions [4]atomic.Int32 // that each node was asked
		for i, n := range c.nodes {
			n.Handle("name", func([]byte) []byte {
				questions[i].Add(1)
				return []byte(n.name)
			})
		}
		all := a.Known()
		c.nodes[2].silent.Store(true)
		expect := func(want string, took time.Duration, of ...Node) {
			t.Helper()
			begun := time.Now()
			if got := asked(a.Ask(c.t.Context(), "name", nil, of)); got != want {
				t.Errorf("%s, want %s", got, want)
			}
			if d := time.Since(begun).Round(10 * time.Millisecond); d != took {
				t.Errorf("it took %v, want %v", d, took)
			}
		}
		expect("b=b", 0, all[1])
		expect("a=a", 0, all[0])
		expect("a=a b=b", 0, all[0], all[1])
		expect("-c", time.Second, all[2])
		if n := questions[3].Load(); n > 0 {
			t.Errorf("d was asked %d times", n)
		}
		expect("a=a b=b d=d -c", time.Second, all...)
		c.after(deadAfter * basic)
		expect("-c", 0, all[2])
		expect("a=a b=b d=d -c", 0, a.Known()...)
		c.nodes[3].leave()
		c.after(10 * time.Millisecond)
		expect("a=a", 0, all[0], all[3])
	})
}

// TestManyQuestions: a node that is asked more than it can answer drops the rest, and one that asks too much waits.
func TestManyQuestions(t *testing.T) {
	withCluster(t, "a b", func(c *cluster) {
		a, b := c.nodes[0], c.nodes[1]
		block := make(chan struct{})
		b.Handle("block", func([]byte) []byte {
			<-block
			return nil
		})
		for i := range 10 * maxAnswering {
			q := question{id: uint64(i), kind: "block"}
			b.session.Receive(a.hub.Node(), q.append(nil))
		}
		if n := len(b.session.answers); n != maxAnswering {
			t.Errorf("%d are being answered", n)
		}
		close(block)
		c.after(time.Millisecond)
		b.Handle("late", func([]byte) []byte {
			time.Sleep(900 * time.Millisecond)
			return nil
		})
		a.Handle("late", func([]byte) []byte { return nil })
		came := make(chan string)
		for range 2 * maxAsking {
			go func() { came <- asked(a.Ask(context.Background(), "late", nil, a.Known())) }()
		}
		var all []string
		for range 2 * maxAsking {
			all = append(all, <-came)
		}
		slices.Sort(all)
		if all[maxAsking-1] != "a= -b" || all[maxAsking] != "a= b=" {
			t.Errorf("answers: %q", all)
		}
	})
}

// FuzzReceive: whatever others send, a node does not crash, keeps little of it, and still asks and is asked.
func FuzzReceive(f *testing.F) {
	for _, p := range [][]byte{
		(&beat{run: 1, period: basic, asks: true, node: Node{Name: "n", Version: "v1", Epoch: "E", Started: time.UnixMilli(1)}}).append(nil),
		(&question{id: 1, kind: "echo", data: []byte("x")}).append(nil),
		(&part{question: 1, index: 0, many: 2, data: []byte("x")}).append(nil),
		{messageVersion, kindGoodbye, 1},
		{messageVersion, kindForgot},
		{messageVersion, 99, 1, 2, 3},
		{2, kindBeat},
		nil,
	} {
		f.Add(uint64(7), p)
	}
	c := New(newHub(f))
	c.Handle("echo", func(p []byte) []byte { return p })
	s := c.NewSession("me")
	peers := new(drain)
	s.start(peers)
	f.Cleanup(s.close)
	f.Fuzz(func(t *testing.T, from uint64, p []byte) {
		a := &asking{waiting: map[uint64]*gathering{from: {}, from + 1: {}}, answers: make(map[uint64][]byte), done: make(chan struct{})}
		s.mu.Lock()
		s.asks[1] = a
		s.mu.Unlock()
		for range 3 {
			s.Receive(from, bytes.Clone(p))
		}
		for _, n := range c.Nodes() {
			if _, err := n.MarshalJSON(); err != nil {
				t.Error(err)
			}
			if len(n.Name) > maxText || len(n.Epoch) > maxText || n.Connections < 0 {
				t.Errorf("%+v", n)
			}
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if a.size > maxAnswers || len(s.table.nodes) > maxNodes {
			t.Error("no bound")
		}
		// What this version writes it reads.
		var b beat
		if kind, rest := kindOf(p); kind == kindBeat && b.read(rest) == nil {
			var again beat
			if _, rest := kindOf(b.append(nil)); again.read(rest) != nil || again != b {
				t.Errorf("%+v became %+v", b, again)
			}
		}
	})
}

// TestBounds: what a node keeps of others does not grow.
func TestBounds(t *testing.T) {
	withCluster(t, "a", func(c *cluster) {
		a := c.nodes[0]
		for i := range maxNodes + 100 {
			b := &beat{run: 1, period: basic}
			a.session.Receive(uint64(i+1), b.append(nil))
		}
		if n := len(a.Nodes()); n > maxNodes+1 {
			t.Errorf("%d nodes", n)
		}
		c.after(2 * rememberTime)
		if n := len(a.session.table.nodes) + len(a.session.table.forgot); n > maxForgot {
			t.Errorf("%d nodes are remembered", n)
		}
		many := make(map[uint64]*gathering)
		for id := range uint64(20) {
			many[id] = new(gathering)
		}
		q := &asking{waiting: many, answers: make(map[uint64][]byte), done: make(chan struct{})}
		a.session.asks[1] = q
		data := make([]byte, partSize)
		for id := range uint64(20) {
			for i := range maxParts + 1 {
				p := part{question: 1, index: i, many: maxParts, data: data}
				a.session.Receive(id, p.append(nil))
			}
		}
		if q.size > maxAnswers {
			t.Errorf("%d bytes of answers", q.size)
		}
		if message := (&part{question: 1 << 63, index: 1, many: 2, data: data}).append(nil); len(message) > broker.MaxMessage {
			t.Errorf("a part has %d bytes", len(message))
		}
	})
}
