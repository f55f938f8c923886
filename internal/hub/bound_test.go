package hub

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// sampled is a format whose messages are their data, and which notes how much the hub held at most.
type sampled struct {
	seqs
	hub  *Hub
	peak *atomic.Int64
}

func (s sampled) Append(dst []byte, run []*Message) []byte {
	for _, m := range run {
		dst = append(dst, m.Data...)
	}
	for held := s.hub.held.Load(); ; {
		peak := s.peak.Load()
		if held <= peak || s.peak.CompareAndSwap(peak, held) {
			return dst
		}
	}
}

func (sampled) Gap([]string) []byte { return []byte("gap") }

// TestMemoryBound: whatever connections do that accept nothing, or a part, begin messages, resume, wait and go, and
// whatever is published, what the hub holds stays within MaxMemory. Publishers that wait get on, and in the end nothing
// is counted that is not there.
func TestMemoryBound(t *testing.T) {
	seed := rand.Uint64()
	for round := range 20 {
		if !t.Run(fmt.Sprint("seed ", seed, ",", round), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { runMemoryBound(t, rand.New(rand.NewPCG(seed, uint64(round)))) })
		}) {
			return
		}
	}
}

func runMemoryBound(t *testing.T, r *rand.Rand) {
	const limit = 1 << 20
	b := &memoryBound{t: t, r: r, h: New(Config{MaxMemory: limit, History: 20 * r.IntN(2)}), last: "none-0"}
	b.format = sampled{hub: b.h, peak: &b.peak}
	for range 400 {
		b.step()
		if r.IntN(3) == 0 {
			synctest.Wait()
			if n := b.h.Memory(); n > limit {
				t.Fatalf("%d bytes, more than %d", n, limit)
			}
		}
	}
	time.Sleep(10 * time.Second)
	synctest.Wait()
	if n := b.waiting.Load(); n != 0 {
		t.Errorf("%d publishers still wait", n)
	}
	if n := b.peak.Load(); n > limit+limit/8 || n < limit/2 {
		t.Errorf("the hub held up to %d bytes, with a limit of %d", n, limit)
	}
	for _, c := range b.conns {
		c.conn.Done()
	}
	b.h.Configure(Config{})
	time.Sleep(2 * repeatTime)
	synctest.Wait()
	if s := b.h.Stats(); s.Memory != 0 || s.Backlog != 0 || s.Connections != 0 {
		t.Errorf("in the end: %+v", s)
	}
	closeHub(b.h)
	synctest.Wait()
}

// memoryBound is a hub, and the clients that strain its memory.
type memoryBound struct {
	t             *testing.T
	r             *rand.Rand
	h             *Hub
	format        sampled
	peak, waiting atomic.Int64 // bytes; publishers
	conns         []*client
	last          string // ID
}

func (b *memoryBound) channel() string { return fmt.Sprint("c", b.r.IntN(8)) }

// step has a client or a publisher do something.
func (b *memoryBound) step() {
	r := b.r
	k := r.IntN(20)
	switch {
	case k < 4:
		b.connect()
		return
	case k >= 13 || len(b.conns) == 0:
		b.publish()
		return
	}
	c := b.conns[r.IntN(len(b.conns))]
	switch {
	case k < 6:
		c.conn.Unfinished(1, r.IntN(1<<16))
	case k < 7:
		go c.conn.Join(b.channel(), b.last, func(_ Welcome, ms []*Message) []byte { return b.format.Append([]byte("joined"), ms) })
	case k < 8:
		go c.conn.Send(make([]byte, r.IntN(1<<12)))
	case k < 9:
		c.open(r.IntN(1 << 16))
	case k < 10:
		c.conn.Done()
	default:
		m := &Message{Channel: b.channel(), Data: make([]byte, r.IntN(1<<15)), From: c.conn}
		b.waiting.Add(1)
		go func() {
			b.h.PublishWait(m)
			b.waiting.Add(-1)
		}()
	}
}

// connect adds a client that accepts all, a part or nothing.
func (b *memoryBound) connect() {
	r := b.r
	o := options()
	o.Format, o.MaxBacklog, o.DropOldest, o.WriteTimeout = b.format, MinBacklog<<r.IntN(5), r.IntN(4) == 0, 5*time.Second
	c := newClient()
	c.blocks = r.IntN(2) == 0
	if r.IntN(3) > 0 {
		c.window = r.IntN(1 << 16)
	}
	conn, _, err := b.h.Connect(Subscriber{Channels: []string{b.channel()}, LastID: b.last}, o)
	if errors.Is(err, ErrMemory) {
		return
	} else if err != nil {
		b.t.Fatal(err)
	}
	c.conn = conn
	if r.IntN(10) > 0 { // or it never starts
		conn.Start(c, make([]byte, r.IntN(100)))
	}
	b.conns = append(b.conns, c)
}

func (b *memoryBound) publish() {
	m := &Message{Channel: b.channel(), Data: make([]byte, b.r.IntN(1<<b.r.IntN(17))), Key: fmt.Sprint(b.r.Uint64())}
	if err := b.h.Publish(m); err == nil {
		b.last = m.ID()
		m.Encoded("deflated", func(m *Message) []byte { return make([]byte, len(m.Data)/2) })
	} else if !errors.Is(err, ErrFull) {
		b.t.Fatal(err)
	}
}

// TestUnfinished: who is in the middle of a message has to go on with it. That it answers pings is not enough.
func TestUnfinished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(Config{})
		o := options()
		o.PingInterval = 10 * time.Second
		idle, stalled, slow, busy := connect(t, h, o, "a"), connect(t, h, o, "a"), connect(t, h, o, "a"), connect(t, h, o, "a")
		for i := range 60 {
			time.Sleep(time.Second)
			for _, c := range []*client{idle, stalled, slow, busy} {
				c.conn.Alive()
			}
			stalled.conn.Unfinished(1000+i, 4096)
			slow.conn.Unfinished(minPace*(i+1), 32768) // just fast enough
			busy.conn.Unfinished(1000, 4096)           // one small message after the other
			busy.conn.Unfinished(0, 0)
			busy.conn.Unfinished(1000, 4096)
			if i == 15 && (stalled.closed || h.Memory() != 4096+32768+4096) {
				t.Errorf("closed too early: %v, with %d bytes", stalled.closed, h.Memory())
			}
		}
		synctest.Wait()
		if s := h.Stats(); !stalled.closed || s.Closed["silent"] != 1 || s.Connections != 3 || s.Memory != 32768+4096 {
			t.Errorf("stalled is closed: %v; %+v", stalled.closed, s)
		}
		closeHub(h)
	})
}

// TestNeverStarted: a handshake that does not come to its end does not hold a place for ever.
func TestNeverStarted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(Config{})
		o := options()
		o.PingInterval = 10 * time.Second
		conn, _, err := h.Connect(Subscriber{Channels: []string{"a"}}, o)
		if err != nil {
			t.Fatal(err)
		}
		publish(t, h, "a")
		time.Sleep(15 * time.Second)
		if h.Stats().Connections != 1 {
			t.Error("ended too early")
		}
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if s := h.Stats(); s.Connections != 0 || s.Memory != 0 {
			t.Errorf("%+v", s)
		}
		if conn.Start(newClient(), nil) {
			t.Error("it starts after its end")
		}
		closeHub(h)
	})
}

// TestAnswersAreKept: with DropOldest, messages are dropped, but no answers: they come in their order, each once, and
// who asks without end and reads nothing is closed.
func TestAnswersAreKept(t *testing.T) {
	seed := rand.Uint64()
	for round := range 50 {
		r := rand.New(rand.NewPCG(seed, uint64(round)))
		synctest.Test(t, func(t *testing.T) {
			h := New(Config{})
			o := options()
			o.Format, o.DropOldest = sampled{hub: h, peak: new(atomic.Int64)}, true
			o.MaxBacklog = 4 * MinBacklog // room for all answers beside a batch in flight, which cannot be dropped
			c := connect(t, h, o, "a")
			c.open(r.IntN(100))
			var answers []string
			for range 300 + r.IntN(300) {
				if r.IntN(3) == 0 && len(answers) < maxRequired {
					p := fmt.Sprintf("<answer %d>", len(answers))
					c.conn.Send([]byte(p))
					answers = append(answers, p)
				} else if err := h.Publish(&Message{Channel: "a", Data: []byte(strings.Repeat("x", r.IntN(3000)))}); err != nil {
					t.Fatal(err)
				}
				if r.IntN(2) == 0 {
					synctest.Wait()
				}
				if r.IntN(20) == 0 {
					c.open(r.IntN(5000))
				}
				c.conn.mu.Lock()
				n := c.conn.backlog.size
				c.conn.mu.Unlock()
				if n > o.MaxBacklog+MinBacklog {
					t.Fatalf("seed %d,%d: the backlog has %d bytes", seed, round, n)
				}
			}
			c.open(1 << 30)
			synctest.Wait()
			got := strings.NewReplacer("x", "", "gap", "").Replace(string(c.got))
			if want := strings.Join(answers, ""); got != want {
				t.Fatalf("seed %d,%d: of %d answers came %s", seed, round, len(answers), got)
			}
			c.conn.mu.Lock()
			if c.conn.backlog.required != 0 || c.conn.backlog.size != 0 {
				t.Errorf("seed %d,%d: %d answers are left", seed, round, c.conn.backlog.required)
			}
			c.conn.mu.Unlock()

			c.open(0)
			for range 2 * maxRequired {
				c.conn.Send([]byte("answer"))
				synctest.Wait()
			}
			if h.Subscribers("a") != 0 {
				t.Error("one who does not read its answers is still connected")
			}
			closeHub(h)
		})
	}
}

// TestReplyBesideNotice: a reply that has room only because messages are dropped is accepted, whatever the notice of that
// takes.
func TestReplyBesideNotice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(Config{})
		defer closeHub(h)
		o := options()
		o.Format, o.DropOldest, o.MaxBacklog = sampled{hub: h, peak: new(atomic.Int64)}, true, 4*MinBacklog
		c := connect(t, h, o, "a")
		c.open(0)
		for range 10 { // the first one is being written
			if err := h.Publish(&Message{Channel: "a", Data: make([]byte, chunkSize)}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		c.conn.mu.Lock()
		b := &c.conn.backlog
		oldest, left := len(b.queue[1].bytes), o.MaxBacklog-b.size-pieceOverhead*(len(b.queue)+1)
		c.conn.mu.Unlock()
		// With it the backlog is over its limit by exactly what the oldest message takes.
		c.conn.Send(make([]byte, left+oldest+pieceOverhead))
		synctest.Wait()
		if h.Subscribers("a") != 1 {
			t.Error("the connection was closed, although there was more to drop")
		}
		c.open(1 << 30)
		synctest.Wait()
	})
}

// TestPeerCloses: what the peer closes with is repeated to it, and does not decide why the connection ended.
func TestPeerCloses(t *testing.T) {
	h := New(Config{})
	defer closeHub(h)
	for why := range reasons {
		c := connect(t, h, options(), "a")
		c.conn.ReplyClose(seqs{}.Close(why, ""))
		c.conn.Done()
		if _, got := c.wait(1); got != why {
			t.Errorf("the reply to %v is %v", why, got)
		}
	}
	waitFor(t, func() bool { return h.Stats().Connections == 0 })
	if s := h.Stats(); s.Closed["client"] != uint64(reasons) {
		t.Errorf("%v", s.Closed)
	}
}

// TestEchoAfterResume: NoEcho is about a connection. A new one that resumes gets what the same client has published by
// an old one: the hub cannot tell whose it was.
func TestEchoAfterResume(t *testing.T) {
	h := New(Config{History: 10})
	defer closeHub(h)
	c, other := connect(t, h, options(), "a"), connect(t, h, options(), "a")
	first := publish(t, h, "a")
	own := &Message{Channel: "a", From: c.conn, NoEcho: true}
	if err := h.Publish(own); err != nil {
		t.Fatal(err)
	}
	last := publish(t, h, "a")
	other.wait(3)
	if got, _ := c.wait(2); !slices.Equal(got, []uint64{first.Seq, last.Seq}) {
		t.Errorf("the one who published %d got %v", own.Seq, got)
	}
	c.conn.Done()
	again := newClient()
	conn, w, err := h.Connect(Subscriber{Channels: []string{"a"}, LastID: first.ID()}, options())
	if err != nil || !w.Resumed {
		t.Fatal(w, err)
	}
	conn.Start(again, nil)
	if got, _ := again.wait(2); !slices.Equal(got, []uint64{own.Seq, last.Seq}) {
		t.Errorf("the one who resumed got %v", got)
	}
}
