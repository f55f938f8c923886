//go:build linux

package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Publishers with acks are WebSockets that speak broadcast.v1, each with this many messages under way. Together that is
// more than a nats-server needs to be busy.
const (
	ackPublishers = 16
	ackWindow     = 64
)

const (
	// Counting them in the bytes is cheaper than parsing frames and JSON, as in scan: the generator must not be what is
	// measured.
	ackMark   = `{"ack"`
	errorMark = `{"error"`
)

// v1Conn is a WebSocket that speaks broadcast.v1, and counts acks. It blocks and has a goroutine of its own, because there
// are few.
type v1Conn struct {
	net.Conn
	buf  []byte
	tail []byte // the end of the previous read, in which a mark may have begun
}

// dialV1 opens one, with the same handshake as the readers.
func dialV1(addr, path string) (*v1Conn, error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	t := target{addr: addr, path: same(path), subprotocol: "broadcast.v1"}
	if err := handshake(c, t, &reader{}); err != nil {
		c.Close()
		return nil, err
	}
	return &v1Conn{Conn: c, buf: make([]byte, 256<<10)}, nil
}

// acks reads once, and returns how many acks were in it. An error frame ends the measurement, because a publish that is
// refused is cheap and would count as fast.
func (c *v1Conn) acks(patience time.Duration) (int, error) {
	c.SetReadDeadline(time.Now().Add(patience))
	n, err := c.Read(c.buf)
	if err != nil {
		return 0, err
	}
	p := append(c.tail, c.buf[:n]...)
	if i := bytes.Index(p, []byte(errorMark)); i >= 0 {
		return 0, fmt.Errorf("the server: %.200q", p[i:])
	}
	// What remains is shorter than a mark, so none is counted twice.
	count := bytes.Count(p, []byte(ackMark))
	c.tail = append(c.tail[:0], p[max(0, len(p)-len(ackMark)+1):]...)
	return count, nil
}

// publishAcked keeps messages under way for a time, and returns how many were acked, and in which time. The time is that
// until the last ack, which is a little after d.
func publishAcked(s *server, size int, d time.Duration) (acked int64, took time.Duration, err error) {
	var total atomic.Int64
	var all sync.WaitGroup
	errs := make(chan error, ackPublishers)
	begin := time.Now()
	for i := range ackPublishers {
		// A channel each: with a common one, each message would have a delivery for each of the publishers.
		c, err := dialV1(s.addr, s.path(i))
		if err != nil {
			return 0, 0, err
		}
		defer c.Close()
		all.Go(func() {
			n, err := c.keepPublishing(size, begin.Add(d))
			total.Add(n)
			if err != nil {
				errs <- err
			}
		})
	}
	all.Wait()
	took = time.Since(begin)
	select {
	case err = <-errs:
	default:
	}
	return total.Load(), took, err
}

// keepPublishing publishes as many messages as were acked, and at the end waits for all acks. So ackWindow of them are under
// way until the end. They go in one write, so that the generator's system calls do not limit the rate.
func (c *v1Conn) keepPublishing(size int, end time.Time) (acked int64, err error) {
	frame := clientFrame(fmt.Appendf(nil, `{"publish":{"data":%q},"ref":1}`, strings.Repeat("x", size)))
	underway := 0
	for free := ackWindow; ; {
		if time.Now().Before(end) {
			if _, err := c.Write(bytes.Repeat(frame, free)); err != nil {
				return acked, err
			}
			underway += free
		}
		if underway == 0 {
			return acked, nil
		}
		if free, err = c.acks(20 * time.Second); err != nil {
			return acked, fmt.Errorf("%d acks are missing: %w", underway, err)
		}
		underway -= free
		acked += int64(free)
	}
}

// joinMax is how many channels a connection joins. It may be on 1000, with those of its route. Half of that is far from the
// limit.
const joinMax = 500

// joinChannels makes connections that together join the channels with numbers from this one on. The connections are returned
// even with an error, to be closed.
func joinChannels(s *server, from, to int) (conns []io.Closer, err error) {
	for from < to {
		c, err := dialV1(s.addr, s.path(-1))
		if err != nil {
			return conns, err
		}
		conns = append(conns, c)
		n := min(joinMax, to-from)
		if err := c.join(s, from, n); err != nil {
			return conns, err
		}
		from += n
	}
	return conns, nil
}

// join joins n channels, some in each frame, and waits for the acks. A frame has 100 joins, because one frame must not be
// longer than the server accepts.
func (c *v1Conn) join(s *server, from, n int) error {
	for sent := 0; sent < n; {
		var frames []string
		for ; sent < n && len(frames) < 100; sent++ {
			name := strings.TrimPrefix(s.path(from+sent), "/ws/")
			frames = append(frames, fmt.Sprintf(`{"join":{"channel":%q},"ref":1}`, name))
		}
		if _, err := c.Write(clientFrame([]byte("[" + strings.Join(frames, ",") + "]"))); err != nil {
			return err
		}
		for acked := 0; acked < len(frames); {
			more, err := c.acks(20 * time.Second)
			if err != nil {
				return fmt.Errorf("joining: %w", err)
			}
			acked += more
		}
	}
	return nil
}

// heap returns the bytes that the Go heap of a Caddy has after a garbage collection, as its admin API says. HeapAlloc is
// exact, unlike the sampled sum of the profile.
func (s *server) heap() (n int64, err error) {
	for range 2 { // what has a finalizer goes with the second
		resp, err := http.Get("http://" + s.admin + "/debug/pprof/heap?gc=1&debug=1")
		if err != nil {
			return 0, err
		}
		text, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			return 0, err
		}
		_, rest, _ := strings.Cut(string(text), "# HeapAlloc = ")
		if _, err := fmt.Sscan(rest, &n); err != nil {
			return 0, fmt.Errorf("profile of the heap: %w", err)
		}
	}
	return n, nil
}
