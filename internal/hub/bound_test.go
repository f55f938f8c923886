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
	h := New(Options{MaxMemory: limit, History: 20 * r.IntN(2)})
	var peak atomic.Int64
	format := sampled{hub: h, peak: &peak}
	var conns []*client
	var waiting atomic.Int64
	last := "none-0"
	channel := func() string { return fmt.Sprint("c", r.IntN(8)) }
	for range 400 {
		switch k := r.IntN(20); {
		case k < 4:
			o := options()
			o.Format, o.MaxBacklog, o.DropOldest, o.WriteTimeout = format, MinBacklog<<r.IntN(5), r.IntN(4) == 0, 5*time.Second
			c := newClient()
			c.blocks = r.IntN(2) == 0
			if r.IntN(3) > 0 {
				c.window = r.IntN(1 << 16)
			}
			conn, _, err := h.Connect(Subscriber{Channels: []string{channel()}, LastID: last}, o)
			if errors.Is(err, ErrMemory) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			c.conn = conn
			if r.IntN(10) > 0 { // or it never starts
				conn.Start(c, make([]byte, r.IntN(100)))
			}
			conns = append(conns, c)
		case k < 6 && len(conns) > 0:
			conns[r.IntN(len(conns))].conn.Unfinished(1, r.IntN(1<<16))
		case k < 7 && len(conns) > 0:
			c := conns[r.IntN(len(conns))]
			go c.conn.Join(channel(), last, func(_ Welcome, ms []*Message) []byte { return format.Append([]byte("joined"), ms) })
		case k < 8 && len(conns) > 0:
			go conns[r.IntN(len(conns))].conn.Send(make([]byte, r.IntN(1<<12)))
		case k < 9 && len(conns) > 0:
			conns[r.IntN(len(conns))].open(r.IntN(1 << 16))
		case k < 10 && len(conns) > 0:
			conns[r.IntN(len(conns))].conn.Done()
		case k < 13 && len(conns) > 0:
			m := &Message{Channel: channel(), Data: make([]byte, r.IntN(1<<15)), From: conns[r.IntN(len(conns))].conn}
			waiting.Add(1)
			go func() {
				h.PublishWait(m)
				waiting.Add(-1)
			}()
		default:
			m := &Message{Channel: channel(), Data: make([]byte, r.IntN(1<<r.IntN(17))), Key: fmt.Sprint(r.Uint64())}
			if err := h.Publish(m); err == nil {
				last = m.ID()
				m.Encoded("deflated", func(m *Message) []byte { return make([]byte, len(m.Data)/2) })
			} else if !errors.Is(err, ErrFull) {
				t.Fatal(err)
			}
		}
		if r.IntN(3) == 0 {
			synctest.Wait()
			if n := h.Memory(); n > limit {
				t.Fatalf("%d bytes, more than %d", n, limit)
			}
		}
	}
	time.Sleep(10 * time.Second)
	synctest.Wait()
	if n := waiting.Load(); n != 0 {
		t.Errorf("%d publishers still wait", n)
	}
	if n := peak.Load(); n > limit+limit/8 || n < limit/2 {
		t.Errorf("the hub held up to %d bytes, with a limit of %d", n, limit)
	}
	for _, c := range conns {
		c.conn.Done()
	}
	h.Configure(Options{})
	time.Sleep(2 * repeatTime)
	synctest.Wait()
	if s := h.Stats(); s.Memory != 0 || s.Backlog != 0 || s.Connections != 0 {
		t.Errorf("in the end: %+v", s)
	}
	closeHub(h)
	synctest.Wait()
}

// TestUnfinished: who is in the middle of a message has to go on with it. That it answers pings is not enough.
func TestUnfinished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(Options{})
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
		h := New(Options{})
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
			h := New(Options{})
			o := options()
			o.Format, o.DropOldest = sampled{hub: h, peak: new(atomic.Int64)}, true
			c := connect(t, h, o, "a")
			c.open(r.IntN(100))
			var answers []string
			for range 100 + r.IntN(200) {
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
				if n > 2*MinBacklog {
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

// TestPeerCloses: what the peer closes with is repeated to it, and does not decide why the connection ended.
func TestPeerCloses(t *testing.T) {
	h := New(Options{})
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
	h := New(Options{History: 10})
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
