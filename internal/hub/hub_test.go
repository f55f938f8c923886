package hub

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// seqs is a format that shows what was delivered: eight bytes a message.
type seqs struct{ name string }

const closeMark = 1 << 63

func (seqs) Append(dst []byte, run []*Message) []byte {
	for _, m := range run {
		dst = binary.BigEndian.AppendUint64(dst, m.Seq)
	}
	return dst
}
func (seqs) Ping() []byte { return nil }
func (seqs) Close(code uint16, _ string) []byte {
	return binary.BigEndian.AppendUint64(nil, closeMark|uint64(code))
}

// client is a transport that keeps what it gets, as a peer would read it.
type client struct {
	conn *Conn

	mu      sync.Mutex
	changed *sync.Cond
	got     []byte
	window  int  // how many bytes it still takes
	blocks  bool // TryWrite takes nothing, as on TLS
	closed  bool
	tries   int
	random  func(int) int // if set, how much of a write is taken
}

func newClient() *client {
	c := &client{window: 1 << 40}
	c.changed = sync.NewCond(&c.mu)
	return c
}

func (c *client) TryWrite(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tries++
	if c.closed {
		return 0, net.ErrClosed
	}
	if c.blocks {
		return 0, nil
	}
	return c.accept(p), nil
}

func (c *client) Write(p []byte, timeout time.Duration) (int, error) {
	deadline := false
	timer := time.AfterFunc(timeout, func() {
		c.mu.Lock()
		deadline = true
		c.changed.Broadcast()
		c.mu.Unlock()
	})
	defer timer.Stop()
	c.mu.Lock()
	defer c.mu.Unlock()
	for n := 0; ; {
		switch {
		case c.closed:
			return n, net.ErrClosed
		case deadline:
			return n, ErrStuck
		}
		if n += c.accept(p[n:]); n == len(p) {
			return n, nil
		}
		if c.random == nil {
			c.changed.Wait()
		}
	}
}

func (c *client) accept(p []byte) int {
	n := min(len(p), c.window)
	if c.random != nil {
		n = c.random(n + 1)
	}
	c.got = append(c.got, p[:n]...)
	c.window -= n
	c.changed.Broadcast()
	return n
}

func (c *client) Close() {
	c.mu.Lock()
	c.closed = true
	c.changed.Broadcast()
	c.mu.Unlock()
}

func (c *client) open(window int) {
	c.mu.Lock()
	c.window = window
	c.changed.Broadcast()
	c.mu.Unlock()
}

// wait waits until the client has n messages or was closed, and returns those and the code it was closed with.
func (c *client) wait(n int) (got []uint64, code int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.got) < 8*n && !c.closed {
		c.changed.Wait()
	}
	for p := range slices.Chunk(c.got, 8) {
		if len(p) < 8 {
			break
		}
		if v := binary.BigEndian.Uint64(p); v&closeMark != 0 {
			code = int(v &^ closeMark)
		} else {
			got = append(got, v)
		}
	}
	return got, code
}

func options() *ConnOptions {
	return &ConnOptions{Format: seqs{}, PingInterval: time.Minute, WriteTimeout: time.Minute, MaxBacklog: MinBacklog}
}

func connect(t testing.TB, h *Hub, o *ConnOptions, channels ...string) *client {
	t.Helper()
	c := newClient()
	conn, _, err := h.Connect(Subscriber{Channels: channels}, o)
	if err != nil {
		t.Fatal(err)
	}
	c.conn = conn
	if !conn.Start(c, nil) {
		t.Fatal("the connection was closed before it started")
	}
	return c
}

func publish(t testing.TB, h *Hub, channel string) *Message {
	t.Helper()
	m := &Message{Channel: channel, Data: []byte("x")}
	if err := h.Publish(m); err != nil {
		t.Fatal(err)
	}
	return m
}

// closeHub does not wait for clients: these say no goodbye.
func closeHub(h *Hub) { h.Close(1012, "", 0, 0) }

// TestModel runs random subscribes, publishes and closes against the simplest model there is: a list of what each
// connection must have got, kept by the one who does it all in turn.
func TestModel(t *testing.T) {
	seed := rand.Uint64()
	for round := range 200 {
		if !t.Run(fmt.Sprint("seed ", seed, ",", round), func(t *testing.T) { runModel(t, rand.New(rand.NewPCG(seed, uint64(round)))) }) {
			return
		}
	}
}

func runModel(t *testing.T, r *rand.Rand) {
	h := New(Options{})
	defer closeHub(h)
	names := []string{"a", "b", "c", "d", "e"}
	type expected struct {
		*client
		channels []string
		want     []uint64
		noEcho   bool
	}
	var open, left []*expected
	for range 400 {
		switch k := r.IntN(20); {
		case k < 3:
			e := &expected{client: newClient(), noEcho: r.IntN(2) == 0}
			for _, i := range r.Perm(len(names))[:r.IntN(4)] {
				e.channels = append(e.channels, names[i])
			}
			o := options()
			o.Format = seqs{name: names[r.IntN(2)]}
			o.MaxBacklog = 1 << 20
			e.blocks = r.IntN(3) == 0
			if r.IntN(3) == 0 {
				own := rand.New(rand.NewPCG(r.Uint64(), 0))
				e.random = own.IntN
			}
			conn, _, err := h.Connect(Subscriber{Channels: e.channels}, o)
			if err != nil {
				t.Fatal(err)
			}
			e.conn = conn
			if r.IntN(2) == 0 { // what is published before the start waits
				m := publish(t, h, "a")
				for _, o := range append(open, e) {
					if slices.Contains(o.channels, "a") {
						o.want = append(o.want, m.Seq)
					}
				}
			}
			conn.Start(e, nil)
			open = append(open, e)
		case k < 5 && len(open) > 0:
			i := r.IntN(len(open))
			e := open[i]
			open = slices.Delete(open, i, i+1)
			left = append(left, e)
			e.conn.Close(1000, "")
		case k < 8 && len(open) > 0:
			e := open[r.IntN(len(open))]
			name := names[r.IntN(len(names))]
			if i := slices.Index(e.channels, name); i >= 0 && r.IntN(2) == 0 {
				e.channels = slices.Delete(slices.Clone(e.channels), i, i+1)
				if err := e.conn.Leave(name, nil); err != nil {
					t.Fatal(err)
				}
				if err := e.conn.Leave(name, nil); err != ErrNotJoined {
					t.Fatal(err)
				}
				continue
			} else if i < 0 {
				e.channels = append(slices.Clone(e.channels), name)
			}
			if err := e.conn.Join(name, "", func(Welcome, []*Message) []byte { return nil }); err != nil {
				t.Fatal(err)
			}
		default:
			var ms []*Message
			var from *expected
			if len(open) > 0 && r.IntN(4) == 0 {
				from = open[r.IntN(len(open))]
			}
			for range 1 + r.IntN(3)*r.IntN(3) {
				m := &Message{Channel: names[r.IntN(len(names))], Data: make([]byte, r.IntN(10))}
				if from != nil {
					m.From, m.NoEcho = from.conn, from.noEcho
				}
				ms = append(ms, m)
			}
			if err := h.Publish(ms...); err != nil {
				t.Fatal(err)
			}
			for _, m := range ms {
				subscribers := 0
				for _, e := range open {
					if !slices.Contains(e.channels, m.Channel) {
						continue
					}
					subscribers++
					if e != from || !e.noEcho {
						e.want = append(e.want, m.Seq)
					}
				}
				if m.Subscribers != subscribers {
					t.Fatalf("message %d had %d subscribers, not %d", m.Seq, subscribers, m.Subscribers)
				}
			}
		}
	}
	for _, e := range open {
		if got, _ := e.wait(len(e.want)); !slices.Equal(got, e.want) {
			t.Fatalf("an open connection on %q got %v, not %v", e.channels, got, e.want)
		}
	}
	for _, e := range left {
		got, code := e.wait(len(e.want) + 1)
		if !slices.Equal(got, e.want) || code != 1000 {
			t.Fatalf("a closed connection on %q got %v and code %d, not %v", e.channels, got, code, e.want)
		}
		e.conn.Done()
	}
	for _, e := range open {
		e.conn.Done()
	}
}

// TestConcurrent has publishers, and connections that come and go, all at once: what a connection gets is what was
// published on its channels in one stretch of the log, in its order.
func TestConcurrent(t *testing.T) {
	h := New(Options{})
	names := []string{"a", "b", "c"}
	const publishers, each, readers, rounds = 4, 2000, 8, 40

	var mu sync.Mutex
	channelOf := make(map[uint64]string)
	var wg sync.WaitGroup
	for range publishers {
		wg.Go(func() {
			for range each {
				m := &Message{Channel: names[rand.IntN(len(names))], Data: []byte("x")}
				if err := h.Publish(m); err != nil {
					t.Error(err)
				}
				mu.Lock()
				channelOf[m.Seq] = m.Channel
				mu.Unlock()
			}
		})
	}
	type visit struct {
		channels []string
		since    uint64
		got      []uint64
	}
	var visits []visit
	for range readers {
		wg.Go(func() {
			for range rounds {
				channels := names[:1+rand.IntN(len(names))]
				o := options()
				o.MaxBacklog = 1 << 30
				c := connect(t, h, o, channels...)
				c.wait(rand.IntN(50))
				c.conn.Close(1000, "")
				c.mu.Lock()
				for !bytes.HasSuffix(c.got, seqs{}.Close(1000, "")) {
					c.changed.Wait()
				}
				c.mu.Unlock()
				c.conn.Done()
				got, _ := c.wait(0)
				mu.Lock()
				visits = append(visits, visit{channels, c.conn.Since(), got})
				mu.Unlock()
			}
		})
	}
	done := make(chan struct{})
	var serving sync.WaitGroup
	serving.Go(func() { // so that readers who wait for messages after the publishers' last are served
		for {
			select {
			case <-done:
				return
			default:
				m := publish(t, h, "a")
				mu.Lock()
				channelOf[m.Seq] = "a"
				mu.Unlock()
				time.Sleep(time.Millisecond)
			}
		}
	})
	wg.Wait()
	close(done)
	serving.Wait()
	closeHub(h)
	for _, v := range visits {
		if len(v.got) == 0 {
			continue
		}
		var want []uint64
		for seq := v.since + 1; seq <= v.got[len(v.got)-1]; seq++ {
			if slices.Contains(v.channels, channelOf[seq]) {
				want = append(want, seq)
			}
		}
		if !slices.Equal(v.got, want) {
			t.Fatalf("on %q since %d: got %v, not %v", v.channels, v.since, v.got, want)
		}
	}
}

func TestSlowIsClosed(t *testing.T) {
	h := New(Options{})
	defer closeHub(h)
	slow, quick := connect(t, h, options(), "a"), connect(t, h, options(), "a")
	slow.open(20) // takes two messages and a half
	n := MinBacklog/8 + 100
	for range n {
		publish(t, h, "a")
	}
	if got, _ := quick.wait(n); len(got) != n {
		t.Fatalf("the quick one got %d of %d", len(got), n)
	}
	waitFor(t, func() bool { return h.Subscribers("a") == 1 })
	if b := h.Stats().Backlog; b > MinBacklog {
		t.Errorf("a connection that was given up still has %d bytes", b)
	}
	slow.open(1 << 20)
	slow.mu.Lock()
	for !bytes.HasSuffix(slow.got, seqs{}.Close(codeTryLater, "")) {
		slow.changed.Wait()
	}
	slow.mu.Unlock()
	got, _ := slow.wait(0)
	for i, seq := range got {
		if seq != uint64(i)+1 {
			t.Fatalf("the slow one got %d at %d", seq, i)
		}
	}
	slow.conn.Done()
	slow.mu.Lock()
	for !slow.closed {
		slow.changed.Wait()
	}
	slow.mu.Unlock()
}

func TestSlowDrops(t *testing.T) {
	h := New(Options{})
	defer closeHub(h)
	o := options()
	o.DropOldest = true
	slow := connect(t, h, o, "a")
	slow.open(20)
	n := MinBacklog / 8 * 3
	for range n {
		publish(t, h, "a")
	}
	waitFor(t, func() bool { return h.Stats().Deliveries == uint64(n) })
	if b := h.Stats().Backlog; b > MinBacklog {
		t.Errorf("the backlog has %d bytes", b)
	}
	slow.open(1 << 30)
	waitFor(t, func() bool { return h.Stats().Backlog == 0 })
	got, code := slow.wait(0)
	if code != 0 || !slices.IsSorted(got) || got[0] != 1 || got[len(got)-1] != uint64(n) || len(got) == n {
		t.Fatalf("got %d messages, from %d to %d, code %d", len(got), got[0], got[len(got)-1], code)
	}
	for i := range got[1:] {
		if got[i] == got[i+1] {
			t.Fatalf("%d came twice", got[i])
		}
	}
}

func waitFor(t testing.TB, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it does not come")
		}
	}
}

// TestStuck: a peer that takes nothing for the write timeout is closed with 1013, which it can still read if it wakes
// up within another one.
func TestStuck(t *testing.T) {
	for _, wakes := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			h := New(Options{})
			o := options()
			o.WriteTimeout = 5 * time.Second
			c := connect(t, h, o, "a")
			c.open(4)
			publish(t, h, "a")
			publish(t, h, "a")
			time.Sleep(4 * time.Second)
			if h.Subscribers("a") != 1 {
				t.Fatal("closed too early")
			}
			time.Sleep(2 * time.Second)
			if h.Subscribers("a") != 0 || h.Stats().Connections != 1 {
				t.Fatal("not closed")
			}
			if wakes {
				c.open(100)
				synctest.Wait()
				got, code := c.wait(0)
				if !slices.Equal(got, []uint64{1}) && !slices.Equal(got, []uint64{1, 2}) || code != codeTryLater {
					t.Fatalf("got %v and code %d", got, code)
				}
				c.conn.Done()
			} else {
				time.Sleep(8 * time.Second)
			}
			synctest.Wait()
			if !c.closed || h.Stats().Connections != 0 || h.Stats().Backlog != 0 {
				t.Fatalf("not ended: %+v", h.Stats())
			}
			closeHub(h)
		})
	}
}

func TestLost(t *testing.T) {
	h := New(Options{})
	defer closeHub(h)
	direct, flushed := connect(t, h, options(), "a", "b"), connect(t, h, options(), "a")
	flushed.open(0)
	publish(t, h, "a")
	direct.wait(1)
	direct.Close()
	flushed.Close() // its flusher is told
	waitFor(t, func() bool { return h.Subscribers("a") == 1 })
	publish(t, h, "b") // its loop finds out
	waitFor(t, func() bool { s := h.Stats(); return s.Connections == 0 && s.Channels == 0 && s.Backlog == 0 })
}

func (seqs) Gap([]string) []byte { return nil }

type pinging struct{ seqs }

func (pinging) Ping() []byte { return []byte("pingping") }

func TestKeepAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(Options{})
		o := options()
		o.Format = pinging{}
		o.PingInterval = 10 * time.Second
		quiet, lively := connect(t, h, o, "a"), connect(t, h, o, "a")
		for range 35 {
			time.Sleep(time.Second)
			lively.conn.Alive()
		}
		synctest.Wait()
		if !quiet.closed || lively.closed {
			t.Fatalf("after 35 s: quiet closed %v, lively closed %v", quiet.closed, lively.closed)
		}
		if n := bytes.Count(lively.got, []byte("pingping")); n != 3 {
			t.Errorf("%d pings in 35 s", n)
		}
		if n := h.Subscribers("a"); n != 1 {
			t.Errorf("%d subscribers are left", n)
		}
		lively.conn.Done()
		synctest.Wait()
		closeHub(h)
	})
}

func TestCoalesce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(Options{Coalesce: 50 * time.Millisecond})
		c := connect(t, h, options(), "a")
		synctest.Wait()
		c.tries = 0
		for range 100 {
			publish(t, h, "a")
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Second)
		if got, _ := c.wait(0); len(got) != 100 || c.tries > 3 {
			t.Errorf("%d messages in %d writes", len(got), c.tries)
		}
		c.conn.Done()
		closeHub(h)
	})
}

func TestLimits(t *testing.T) {
	h := New(Options{MaxConnections: 2, MaxChannels: 2, MaxInbox: 10_000})
	defer closeHub(h)
	a := connect(t, h, options(), "a")
	if _, _, err := h.Connect(Subscriber{Channels: []string{"b", "c"}}, options()); err != ErrTooManyChannels {
		t.Errorf("three channels: %v", err)
	}
	connect(t, h, options(), "a", "b")
	if _, _, err := h.Connect(Subscriber{Channels: []string{"a"}}, options()); err != ErrTooManyConnections {
		t.Errorf("three connections: %v", err)
	}
	a.conn.Done()
	waitFor(t, func() bool { return h.Stats().Connections == 1 })
	connect(t, h, options(), "a")

	// A full inbox refuses, and loses nothing that it took.
	var ms []*Message
	for range 100 {
		ms = append(ms, &Message{Channel: "a", Data: make([]byte, 1000)})
	}
	for _, l := range h.loops {
		l.counts.deliveries.Store(0)
	}
	refused := 0
	for range 200 {
		if h.Publish(ms[0:1]...) != nil {
			refused++
		}
		ms[0] = &Message{Channel: "a", Data: make([]byte, 1000)}
	}
	waitFor(t, func() bool {
		var n uint64
		for _, l := range h.loops {
			n += l.counts.deliveries.Load()
		}
		return n == uint64(2*(200-refused))
	})
}

func TestFullInboxRefusesAndWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(Options{Coalesce: time.Second, MaxInbox: 5 * messageOverhead}) // holds what comes in one second
		c := connect(t, h, options(), "a")
		synctest.Wait()
		for range 4 {
			publish(t, h, "a")
		}
		two := []*Message{{Channel: "a"}, {Channel: "a"}}
		if err := h.Publish(two...); err != ErrFull || two[0].Seq != 0 {
			t.Fatalf("six messages in an inbox for five: %v", err)
		}
		start := time.Now()
		if err := h.PublishWait(two...); err != nil || time.Since(start) != time.Second {
			t.Fatalf("waiting: %v after %v", err, time.Since(start))
		}
		time.Sleep(2 * time.Second)
		if got, _ := c.wait(0); !slices.Equal(got, []uint64{1, 2, 3, 4, 5, 6}) {
			t.Errorf("got %v", got)
		}
		c.conn.Done()
		closeHub(h)
	})
}

// TestChurn leaves nothing behind; goleak sees to the goroutines.
func TestChurn(t *testing.T) {
	h := New(Options{})
	stop := make(chan struct{})
	var publishing, wg sync.WaitGroup
	publishing.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				h.Publish(&Message{Channel: fmt.Sprint("c", i%7), Data: []byte("x")})
			}
		}
	})
	for w := range 4 {
		wg.Go(func() {
			for i := range 2500 {
				c := connect(t, h, options(), fmt.Sprint("c", i%7), fmt.Sprint("own", w, i))
				switch i % 3 {
				case 0:
					c.conn.Close(1000, "")
				case 1:
					c.open(0)
				}
				c.conn.Done()
			}
		})
	}
	wg.Wait()
	close(stop)
	publishing.Wait()
	waitFor(t, func() bool { return h.Stats().Connections == 0 })
	s := h.Stats()
	if s.Channels != 0 || s.Backlog != 0 || len(h.channels) != 0 {
		t.Errorf("left behind: %+v", s)
	}
	for _, l := range h.loops {
		l.each(func(c *Conn) { t.Errorf("loop %d still has a connection in state %d", l.id, c.state) })
		if l.load != 0 {
			t.Errorf("loop %d counts %d connections", l.id, l.load)
		}
	}
	closeHub(h)
}

// TestAllocations: a message costs itself, and its deliveries nothing.
// delivered is Stats().Deliveries, without the rest.
func delivered(h *Hub) (n uint64) {
	for _, l := range h.loops {
		n += l.counts.deliveries.Load()
	}
	return n
}

func TestAllocations(t *testing.T) {
	h := New(Options{})
	defer closeHub(h)
	const subscribers = 200
	for range subscribers {
		s := &sink{client: newClient()}
		conn, _, err := h.Connect(Subscriber{Channels: []string{"a"}}, options())
		if err != nil {
			t.Fatal(err)
		}
		conn.Start(s, nil)
	}
	data := make([]byte, 128)
	sent := uint64(0)
	n := testing.AllocsPerRun(1000, func() {
		h.Publish(&Message{Channel: "a", Data: data})
		for sent += subscribers; delivered(h) < sent; {
			runtime.Gosched()
		}
	})
	if n > 4 {
		t.Errorf("%v allocations a message", n)
	}
}

func TestClose(t *testing.T) {
	h := New(Options{})
	var clients []*client
	for range 20 {
		c := connect(t, h, options(), "a")
		clients = append(clients, c)
		go func() {
			c.mu.Lock()
			for !bytes.HasSuffix(c.got, seqs{}.Close(1012, "")) {
				c.changed.Wait()
			}
			c.mu.Unlock()
			c.conn.Done()
		}()
	}
	never, _, err := h.Connect(Subscriber{Channels: []string{"a"}}, options()) // is never started
	if err != nil {
		t.Fatal(err)
	}
	publish(t, h, "a")
	h.Close(1012, "", 0, time.Second)
	for _, c := range clients {
		if got, code := c.wait(0); code != 1012 || !slices.Equal(got, []uint64{1}) || !c.closed {
			t.Errorf("got %v, code %d, closed %v", got, code, c.closed)
		}
	}
	if never.Start(newClient(), nil) {
		t.Error("a connection starts after the end")
	}
	if err := h.Publish(&Message{Channel: "a"}); err != ErrClosed {
		t.Errorf("publish after the end: %v", err)
	}
	if _, _, err := h.Connect(Subscriber{}, options()); err != ErrClosed {
		t.Errorf("connect after the end: %v", err)
	}
}

// TestSpreadClose: the closes are spread over the delay, and who is not closed yet gets what is published.
func TestSpreadClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(Options{})
		var clients []*client
		for range 40 {
			clients = append(clients, connect(t, h, options(), "a"))
		}
		begin := time.Now()
		var took time.Duration
		go func() {
			h.Close(1012, "", 2*time.Second, time.Second)
			took = time.Since(begin)
		}()
		closed := func() (n int) {
			for _, c := range clients {
				if _, code := c.wait(0); code == 1012 {
					n++
				}
			}
			return n
		}
		time.Sleep(time.Second + spreadStep/2)
		synctest.Wait()
		if n := closed(); n < 18 || n > 24 {
			t.Errorf("%d of 40 are closed halfway", n)
		}
		if _, _, err := h.Connect(Subscriber{}, options()); err != ErrClosed {
			t.Errorf("a new one meanwhile: %v", err)
		}
		m := publish(t, h, "a")
		if m.Subscribers == 0 || m.Subscribers > 22 {
			t.Errorf("published to %d", m.Subscribers)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if n := closed(); n != 40 {
			t.Errorf("%d of 40 are closed after the delay", n)
		}
		for _, c := range clients {
			c.conn.Done()
		}
		synctest.Wait()
		time.Sleep(time.Second)
		if took < 2*time.Second || took > 2*time.Second+2*spreadStep {
			t.Errorf("it took %v", took)
		}
	})
}
