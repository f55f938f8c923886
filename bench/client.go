//go:build linux

package main

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"math/bits"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// A payload begins with a marker that contains its time of publishing and its number. The readers search for markers and
// ignore everything else that a server sends, so they treat all protocols alike and cost little.
const (
	markerStart = "@@"
	markerLen   = 2 + 16 + 8 + 1 // start, nanoseconds, number, '#'
)

// payload returns the data of a message. It has no quotes, spaces or control characters, so that no protocol has to escape
// it, which would hide the marker. Its time is that of now, and is taken before the message is published.
func payload(size int, number uint32) []byte {
	p := bytes.Repeat([]byte{'x'}, max(size, markerLen))
	copy(p, fmt.Sprintf("%s%016x%08x#", markerStart, time.Now().UnixNano(), number))
	return p
}

// mix scrambles a number, so that the sum of many identifies which ones were added.
func mix(number uint32) uint64 {
	// A plain sum would be the same if one message came twice and another one not at all.
	x := uint64(number)*0x9e3779b97f4a7c15 + 1
	return x ^ bits.RotateLeft64(x, 31)*0xbf58476d1ce4e5b9
}

// tally is what a reader got, or should have got.
type tally struct {
	count, sum uint64
}

func (t *tally) add(number uint32) {
	t.count++
	t.sum += mix(number)
}

// reader is a connection that counts deliveries.
type reader struct {
	tally
	room    int
	addr    string // of the server, or of one of its nodes
	fd      int
	stopped bool // does not read
	// It is shorter than a marker.
	tail []byte // the end of the previous read, in which a marker may have begun
	poll *poll  // what it asks for again and again, if it polls
}

// scan counts the markers in data that was read. now is the time of the read, for all markers in it. A marker that comes in
// two reads is counted with the second.
func (r *reader) scan(p []byte, now int64, h *histogram) (n int) {
	if len(r.tail) > 0 { // a marker may have begun in the previous read
		p = append(r.tail, p...)
		r.tail = nil
	}
	for {
		i := bytes.Index(p, []byte(markerStart))
		if i < 0 {
			if len(p) > 0 && p[len(p)-1] == markerStart[0] {
				r.tail = []byte(markerStart[:1])
			}
			return n
		}
		if p = p[i:]; len(p) < markerLen {
			r.tail = bytes.Clone(p)
			return n
		}
		var raw [12]byte
		if _, err := hex.Decode(raw[:], p[2:26]); err != nil || p[26] != '#' {
			// Other bytes, of a frame's header for example, can look like the start by chance.
			p = p[1:]
			continue
		}
		r.add(binary.BigEndian.Uint32(raw[8:]))
		h.add(now - int64(binary.BigEndian.Uint64(raw[:])))
		n++
		p = p[markerLen:]
	}
}

// fleet holds all connections to one server.
type fleet struct {
	// Only the goroutine that reads a connection changes its reader.
	readers []*reader
	// Of all readers together.
	latency   histogram
	connects  histogram // how long connecting took, with the handshake
	delivered atomic.Int64
	// It has room for one value, because wait looks at the counter and not at how many there were.
	progress chan struct{} // receives a value after a delivery
	closing  atomic.Bool
	reading  sync.WaitGroup
	closed   atomic.Int64 // connections that the server ended
	conns    []io.Closer

	// The times to connect of WebSockets that were the first, and the tenth, on their connection (or of all). TLS only.
	first, tenth []time.Duration
}

// noteConnect notes how long a connect took. The tenth is apart from the first, because only the first pays for the TLS
// handshake, or for all of it.
func (f *fleet) noteConnect(i int, took time.Duration) {
	switch i {
	case 0:
		f.first = append(f.first, took)
	case 9:
		f.tenth = append(f.tenth, took)
	}
}

// target describes how to subscribe at a server.
type target struct {
	addr  string
	path  func(room int) string
	hello string // what a client of Socket.IO sends once connected, in a text frame
	polls bool   // by long polling, and not by a WebSocket

	stream      bool   // an event stream instead of a WebSocket
	tunnel      int    // if not 0, the WebSocket is carried over this version of HTTP
	subprotocol string // of the WebSocket
	tls         bool

	// The nodes of a cluster that subscribers are spread over, if not all are at addr. By room, all subscribers of a room
	// are on one node, where its messages are published too.
	spread []string
	byRoom bool
}

// node returns where subscriber number i connects.
func (t target) node(i, rooms int) string {
	switch {
	case len(t.spread) == 0:
		return t.addr
	case t.byRoom:
		return t.publisher(i % rooms)
	}
	// Divided by rooms, so that the subscribers of a room are spread over all nodes: neighbours in the list are in
	// different rooms.
	return t.spread[i/rooms%len(t.spread)]
}

// publisher returns where messages for a room are published.
func (t target) publisher(room int) string {
	if !t.byRoom {
		return t.addr
	}
	return t.spread[room%len(t.spread)]
}

// dialAll connects n readers, distributed over rooms. The readers that have stopped are the last ones. They are connected
// like all others, and then never read.
func dialAll(t target, n, rooms int, stopped int) (*fleet, error) {
	f := &fleet{progress: make(chan struct{}, 1)}
	f.readers = make([]*reader, n)
	for i := range f.readers {
		f.readers[i] = &reader{room: i % rooms, addr: t.node(i, rooms), stopped: i >= n-stopped}
	}
	switch {
	case t.tls && t.tunnel > 0:
		return f, f.dialTunnels(t)
	case t.tls:
		return f, f.dialTLS(t)
	}
	// Sixteen at a time: many more could overflow the queue of a peer's listener, and be measured as its slowness.
	jobs := make(chan *reader)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var failed error
	for range 16 {
		wg.Go(func() {
			for r := range jobs {
				begin := time.Now()
				err := f.dial(t, r)
				mu.Lock()
				f.connects.add(time.Since(begin).Nanoseconds())
				if err != nil {
					failed = err
				}
				mu.Unlock()
			}
		})
	}
	for _, r := range f.readers {
		jobs <- r
	}
	close(jobs)
	wg.Wait()
	if failed != nil {
		f.close()
		return nil, failed
	}
	return f, f.startReading()
}

// dial connects one reader, with a blocking socket that does not block any more when it returns.
func (f *fleet) dial(t target, r *reader) error {
	t.addr = r.addr
	a, err := net.ResolveTCPAddr("tcp4", t.addr)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	r.fd = fd
	if r.stopped {
		// Otherwise the kernel accepts megabytes on its behalf, and the server does not see that it is slow.
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 4096)
	}
	// Sockets that publish would otherwise measure Nagle's algorithm.
	unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	sa := &unix.SockaddrInet4{Port: a.Port}
	copy(sa.Addr[:], a.IP.To4())
	// EISCONN after EINTR: the kernel went on connecting meanwhile.
	for err = unix.Connect(fd, sa); err == unix.EINTR; err = unix.Connect(fd, sa) {
	}
	if err != nil && err != unix.EISCONN {
		return fmt.Errorf("connecting: %w", err)
	}
	// So that a server that does not answer ends the run with an error.
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 20})
	shake := handshake
	if t.polls {
		shake = beginPolling
	}
	if err := shake(fdConn(fd), t, r); err != nil {
		return err
	}
	return unix.SetNonblock(fd, true)
}

// fdConn reads and writes a blocking socket directly. A net.Conn would put the socket in the runtime's own epoll and have a
// goroutine per connection. With 15,000 of them the generator would compete with the server for the cores.
type fdConn int

func (fd fdConn) Write(p []byte) (int, error) { return unix.Write(int(fd), p) }
func (fd fdConn) Read(p []byte) (int, error) {
	n, err := unix.Read(int(fd), p)
	for err == unix.EINTR {
		n, err = unix.Read(int(fd), p)
	}
	if n == 0 && err == nil {
		err = io.EOF
	}
	return n, err
}

// handshake upgrades the connection. Data that follows the response is scanned later than it arrived, which is harmless
// because nothing has been published yet.
func handshake(c io.ReadWriter, t target, r *reader) error {
	// The key is the example of RFC 6455. The answer's Sec-WebSocket-Accept is not checked, because the bench measures cost
	// and not conformance.
	request := "GET " + t.path(r.room) + " HTTP/1.1\r\nHost: " + t.addr + "\r\n"
	status := "HTTP/1.1 101"
	if t.stream {
		request += "Accept: text/event-stream\r\n"
		status = "HTTP/1.1 200"
	} else {
		request += "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
	}
	if t.subprotocol != "" {
		request += "Sec-WebSocket-Protocol: " + t.subprotocol + "\r\n"
	}
	request += "\r\n"
	if _, err := io.WriteString(c, request); err != nil {
		return err
	}
	var answer []byte
	buf := make([]byte, 4096)
	for !bytes.Contains(answer, []byte("\r\n\r\n")) {
		n, err := c.Read(buf)
		if err != nil {
			return fmt.Errorf("handshake: %w after %.100q", err, answer)
		}
		answer = append(answer, buf[:n]...)
	}
	if !strings.HasPrefix(string(answer), status) {
		return fmt.Errorf("handshake: %.100q", answer)
	}
	if t.hello == "" {
		return nil
	}
	if _, err := c.Write(clientFrame([]byte(t.hello))); err != nil {
		return err
	}
	// It gets messages only from its answer on.
	for !bytes.Contains(answer, []byte(inNamespace)) {
		n, err := c.Read(buf)
		if err != nil {
			return fmt.Errorf("after %s: %w after %.300q", t.hello, err, answer)
		}
		answer = append(answer, buf[:n]...)
	}
	return nil
}

// clientFrame returns a client's text frame. Its mask is zero, so the payload needs no masking (RFC 6455, section 5.3).
func clientFrame(p []byte) []byte {
	var h []byte
	switch n := len(p); {
	case n < 126:
		h = []byte{0x81, 0x80 | byte(n)}
	case n < 1<<16:
		h = []byte{0x81, 0x80 | 126, byte(n >> 8), byte(n)}
	default:
		h = []byte{0x81, 0x80 | 127, 0, 0, 0, 0, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}
	}
	return append(append(h, 0, 0, 0, 0), p...)
}

// startReading reads all connections in one goroutine (see fdConn), which close ends. It takes the time of each read after the
// system call, so a delivery that waits for the generator looks late: with many connections that is a part of each latency, the
// same for all peers.
func (f *fleet) startReading() error {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return err
	}
	for i, r := range f.readers {
		if r.stopped {
			continue
		}
		ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(i)}
		if err := unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, r.fd, &ev); err != nil {
			return err
		}
	}
	f.reading.Go(func() {
		defer unix.Close(ep)
		events := make([]unix.EpollEvent, 1024)
		// One buffer for all: a reader keeps no more than the beginning of a marker.
		buf := make([]byte, 1<<20)
		for !f.closing.Load() {
			// A timeout, because closing the descriptor would not end the call.
			n, err := unix.EpollWait(ep, events, 100)
			if err != nil && !errors.Is(err, unix.EINTR) {
				panic(err)
			}
			delivered := 0
			for _, ev := range events[:max(n, 0)] {
				r := f.readers[ev.Fd]
				// One read per event. Epoll reports the socket again if it has more, and meanwhile the others get
				// their turn.
				n, err := unix.Read(r.fd, buf)
				if n <= 0 {
					if !errors.Is(err, unix.EAGAIN) {
						unix.EpollCtl(ep, unix.EPOLL_CTL_DEL, r.fd, nil)
						f.closed.Add(1)
					}
					continue
				}
				delivered += r.scan(buf[:n], time.Now().UnixNano(), &f.latency)
				if r.poll != nil && !r.poll.take(fdConn(r.fd), buf[:n]) {
					unix.EpollCtl(ep, unix.EPOLL_CTL_DEL, r.fd, nil)
					f.closed.Add(1)
				}
			}
			f.note(delivered)
		}
	})
	return nil
}

// note counts deliveries, and wakes the goroutine in wait.
func (f *fleet) note(delivered int) {
	if delivered > 0 {
		f.delivered.Add(int64(delivered))
		select {
		case f.progress <- struct{}{}:
		default:
		}
	}
}

// wait waits until n messages were delivered in total, and reports whether they were. It gives up when none arrives for a
// while.
func (f *fleet) wait(n int64, patience time.Duration) bool {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for f.delivered.Load() < n {
		select {
		case <-f.progress:
			// A slow peer gets as long as it needs while something comes, so that it is measured and not given up.
			timer.Reset(patience)
		case <-timer.C:
			return false
		}
	}
	return true
}

// close sets closing first, so that connections that end now are not counted as ended by the server.
func (f *fleet) close() {
	f.closing.Store(true)
	for _, c := range f.conns {
		c.Close()
	}
	f.reading.Wait()
	for _, r := range f.readers {
		if r.fd > 0 {
			unix.Close(r.fd)
		}
	}
}

// histogram counts durations, with a precision of 3 %: each power of two has 32 buckets. Its size does not depend on the
// number of durations, of which there are millions.
type histogram struct {
	mu     sync.Mutex // for the readers over TLS, which run concurrently
	counts [64 * 32]uint64
	n      uint64
}

// add counts a duration. A negative one, from a clock that was set back, counts as 0.
func (h *histogram) add(ns int64) {
	h.counts[bucket(uint64(max(ns, 0)))]++
	h.n++
}

// bucket returns the index for a value: the exponent and the five bits after its first one. Values below 32 have a bucket
// each.
func bucket(v uint64) int {
	if v < 32 {
		return int(v)
	}
	shift := bits.Len64(v) - 6
	return (shift+1)*32 + int(v>>shift) - 32
}

// quantile returns the duration that a share q of all durations do not exceed.
func (h *histogram) quantile(q float64) time.Duration {
	if h.n == 0 {
		return 0
	}
	rank := uint64(max(0, math.Ceil(q*float64(h.n))-1))
	for i, c := range h.counts {
		if rank < c {
			if i < 32 {
				return time.Duration(i)
			}
			shift := i/32 - 1
			// The middle of the bucket.
			return time.Duration((uint64(i%32)+32)<<shift + 1<<shift/2)
		}
		rank -= c
	}
	return 0
}
