package resp

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what should come at once.
const patience = 20 * time.Second

// recorder is a Publisher that keeps what is published.
type recorder struct {
	mu   sync.Mutex
	got  []publication
	more chan struct{}
	n    int // what it answers

	tooLong []string // what it was told of
}

type publication struct{ channel, payload string }

func newRecorder() *recorder { return &recorder{more: make(chan struct{}, 1)} }

func (r *recorder) Publish(c *Conn, ps []Publication) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range ps {
		r.got = append(r.got, publication{string(p.Channel), string(p.Payload)})
		c.Answer(r.n)
	}
	select {
	case r.more <- struct{}{}:
	default:
	}
}

func (r *recorder) TooLong(channel string, size, limit int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tooLong = append(r.tooLong, fmt.Sprint(channel, " ", size, " ", limit))
}

// wait waits for n publications.
func (r *recorder) wait(t testing.TB, n int) []publication {
	t.Helper()
	after := time.After(patience)
	for {
		r.mu.Lock()
		got := r.got
		r.mu.Unlock()
		if len(got) >= n {
			return got
		}
		select {
		case <-r.more:
		case <-after:
			t.Fatalf("%d publications came, not %d", len(got), n)
		}
	}
}

// publishFunc is a Publisher that is a function.
type publishFunc func(c *Conn, channel, payload []byte) int

func (f publishFunc) Publish(c *Conn, ps []Publication) {
	for i, p := range ps {
		if n := f(c, p.Channel, p.Payload); c.answered == i {
			c.Answer(n)
		}
	}
}

func (f publishFunc) TooLong(string, int, int) {}

// holding is a Publisher that holds back all replies, and gives them to the test.
func holding(held chan<- Held) publishFunc {
	return func(c *Conn, _, _ []byte) int {
		held <- c.Hold()
		return 0
	}
}

// serve runs a server that ends with the test, and returns its address.
func serve(t testing.TB, c Config) (*Server, string) {
	t.Helper()
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	if c.Publisher == nil {
		c.Publisher = newRecorder()
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := New(c)
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return s, l.Addr().String()
}

// peer is a client that sends and reads bytes.
type peer struct {
	net.Conn
	t testing.TB
}

func dial(t testing.TB, addr string) *peer {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(patience))
	return &peer{nc, t}
}

// send sends bytes. They may be refused while they are sent, so an error is no failure.
func (p *peer) send(parts ...string) { io.WriteString(p, strings.Join(parts, "")) }

// expect reads exactly that.
func (p *peer) expect(want string) {
	p.t.Helper()
	got := make([]byte, len(want))
	n, err := io.ReadFull(p, got)
	if err != nil || string(got) != want {
		p.t.Fatalf("got %q (%v), want %q", got[:n], err, want)
	}
}

// rest reads until the server closes.
func (p *peer) rest() string {
	p.t.Helper()
	b, err := io.ReadAll(p)
	if e, ok := err.(net.Error); ok && e.Timeout() {
		p.t.Fatalf("the server did not close; it sent %q", b)
	}
	return string(b)
}

// array is a command as libraries send it.
func array(args ...string) string {
	var b bytes.Buffer
	fmt.Fprintf(&b, "*%d\r\n", len(args))
	for _, a := range args {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(a), a)
	}
	return b.String()
}

// TestTooLong: a client that publishes more than is accepted gets the error of Redis, and the Publisher is told why its connection
// ends. It is not told of strangers, or of other commands.
func TestTooLong(t *testing.T) {
	const long = "$2097153\r\n"
	for _, row := range []struct{ name, password, sends, tooLong string }{
		{"a publication", "", "*3\r\n$7\r\npublish\r\n$4\r\nroom\r\n" + long + "x", "[room 2097153 2097152]"},
		{"behind another one", "", array("PUBLISH", "a", "b") + "*3\r\n$8\r\nSPUBLISH\r\n$1\r\nr\r\n" + long, "[r 2097153 2097152]"},
		{"another command", "", "*3\r\n$3\r\nSET\r\n$4\r\nroom\r\n" + long, "[]"},
		{"the channel", "", "*3\r\n$7\r\nPUBLISH\r\n" + long, "[]"},
		{"a stranger", "secret", "*3\r\n$7\r\nPUBLISH\r\n$4\r\nroom\r\n" + long, "[]"},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := newRecorder()
			_, addr := serve(t, Config{Publisher: r, Password: row.password})
			c := dial(t, addr)
			c.send(row.sends)
			if got := c.rest(); !strings.Contains(got, "bulk length\r\n") {
				t.Errorf("%q", got)
			}
			r.mu.Lock()
			defer r.mu.Unlock()
			if got := fmt.Sprint(r.tooLong); got != row.tooLong {
				t.Error(got)
			}
		})
	}
}
