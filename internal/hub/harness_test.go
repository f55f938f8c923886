package hub

import (
	"encoding/binary"
	"net"
	"slices"
	"sync"
	"testing"
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

func (seqs) Close(why Reason, _ string) []byte {
	return binary.BigEndian.AppendUint64(nil, closeMark|uint64(why))
}

func (seqs) Gap([]string) []byte { return nil }

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

// notClosed is what client.wait returns for a client that was sent no close frame.
const notClosed = reasons

// wait waits until the client has n messages or was closed, and returns those and why it was closed.
func (c *client) wait(n int) (got []uint64, why Reason) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.got) < 8*n && !c.closed {
		c.changed.Wait()
	}
	why = notClosed
	for p := range slices.Chunk(c.got, 8) {
		if len(p) < 8 {
			break
		}
		if v := binary.BigEndian.Uint64(p); v&closeMark != 0 {
			why = Reason(v &^ closeMark)
		} else {
			got = append(got, v)
		}
	}
	return got, why
}

func options() *ConnOptions {
	return &ConnOptions{Format: seqs{}, PingInterval: time.Minute, WriteTimeout: time.Minute, MaxBacklog: MinBacklog}
}

func connect(t testing.TB, h *Hub, o *ConnOptions, channels ...string) *client {
	t.Helper()
	c, _ := connectAs(t, h, o, Subscriber{Channels: channels})
	return c
}

// connectAs connects a client that has a user or a position, or is on all channels.
func connectAs(t testing.TB, h *Hub, o *ConnOptions, s Subscriber) (*client, Welcome) {
	t.Helper()
	c := newClient()
	conn, w, err := h.Connect(s, o)
	if err != nil {
		t.Fatal(err)
	}
	c.conn = conn
	if !conn.Start(c, nil) {
		t.Fatal("the connection was closed before it started")
	}
	return c, w
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
func closeHub(h *Hub) { h.Close(ReasonRestart, "", 0, 0) }

func waitFor(t testing.TB, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it does not come")
		}
	}
}

// delivered is Stats().Deliveries, without the rest.
func delivered(h *Hub) (n uint64) {
	for _, l := range h.loops {
		n += l.counts.deliveries.Load()
	}
	return n
}
