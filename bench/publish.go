//go:build linux

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// poster publishes by POST over a keep-alive connection, at little cost to the generator: it writes a request with one system
// call, and has none of the goroutines that net/http's client has per connection.
type poster struct {
	c net.Conn
	r *bufio.Reader
}

// newPoster connects to a node. The connection stays, so that a POST does not contain a TCP handshake.
func newPoster(addr string) (*poster, error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	return &poster{c, bufio.NewReader(c)}, nil
}

// publish sends one POST and waits for its response, so each publisher has one message under way. Its duration is in no
// figure: peers confirm at different moments, some before they have delivered anything.
func (p *poster) publish(addr, path string, data []byte) error {
	p.c.SetDeadline(time.Now().Add(20 * time.Second))
	b := make([]byte, 0, 256+len(data))
	b = append(b, "POST "+path+" HTTP/1.1\r\nHost: "+addr+"\r\nContent-Type: text/plain\r\nContent-Length: "...)
	b = strconv.AppendInt(b, int64(len(data)), 10)
	b = append(append(b, "\r\n\r\n"...), data...)
	if _, err := p.c.Write(b); err != nil {
		return err
	}
	resp, err := http.ReadResponse(p.r, nil)
	if err != nil {
		return err
	}
	io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("publish: %s", resp.Status)
	}
	return nil
}

// load describes how messages are published.
type load struct {
	size  int
	rooms int
	rate  int // messages per second; 0 means as many as the window allows
	// With it and enough posters a peer is always busy, and the rate is a result. With a rate the load is the same for all,
	// and CPU time is the result.
	window  int // maximum number of messages published but not yet delivered to everyone; 0 means no limit
	posters int
	connect bool // for each POST, instead of keeping the connection
	sockets int  // how many of the readers' sockets publish, instead of POSTs
}

// drive publishes for a time, and returns what the readers of each room should have got and the number of messages.
func (f *fleet) drive(s *server, l load, d time.Duration) (expected []tally, messages int64, err error) {
	g := &driver{fleet: f, server: s, load: l, expected: make([]tally, l.rooms)}
	// Without a buffer: a token means that a publisher is free. If all are busy, the rate is not reached, and the result
	// shows it.
	tokens := make(chan struct{})
	delivered, perRoom := f.delivered.Load(), f.perRoom(l.rooms)
	go g.pace(tokens, d, delivered, perRoom)
	var wg sync.WaitGroup
	publishers := max(l.posters, l.sockets)
	if s.atOnce > 1 {
		publishers = 1 // so that messages that are due at once are one's
	}
	for i := range publishers {
		wg.Go(func() { g.publishEach(tokens, i) })
	}
	wg.Wait()
	if e := g.failed.Load(); e != nil {
		err = *e
	}
	return g.expected, g.published.Load(), err
}

// perRoom returns how many readers a message to a room has. Rooms have the same number of readers each: see dialAll.
func (f *fleet) perRoom(rooms int) int64 {
	n := int64(0)
	for _, r := range f.readers {
		if !r.stopped {
			n++
		}
	}
	return n / int64(rooms)
}

// driver is what the goroutines of drive share. The fields below mu are changed by all publishers.
type driver struct {
	fleet  *fleet
	server *server
	load   load

	mu        sync.Mutex
	number    uint32 // of the last message
	expected  []tally
	published atomic.Int64
	failed    atomic.Pointer[error]
}

// fail ends the run with an error.
func (g *driver) fail(err error) { g.failed.Store(&err) }

// next returns the next message, and counts it. It is counted before it is published, so no delivery can come before it is
// expected.
func (g *driver) next() (room int, data []byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.number++
	// At random and not in turn, so that the caches of the server do not see the same order each time.
	room = rand.IntN(g.load.rooms)
	g.expected[room].add(g.number)
	g.published.Add(1)
	return room, payload(g.load.size, g.number)
}

// pace sends a token for each message when it is due, according to the rate and the window.
// delivered is the number of deliveries before the first, and perRoom how many each message adds.
func (g *driver) pace(tokens chan<- struct{}, d time.Duration, delivered, perRoom int64) {
	defer close(tokens)
	l := g.load
	begin := time.Now()
	for i := 0; g.failed.Load() == nil; i++ {
		// Each message is due at a time of its own, counted from the beginning, so that a late one does not delay all
		// after it.
		if l.rate > 0 {
			due := i - i%max(1, g.server.atOnce)
			time.Sleep(time.Until(begin.Add(time.Duration(due) * time.Second / time.Duration(l.rate))))
		}
		if time.Since(begin) >= d {
			return
		}
		// The number of deliveries stands for that of messages. So a peer that loses some has a smaller window for the rest
		// of the run, and one that loses as many as fit in the window ends the run with this error.
		if l.window > 0 && !g.fleet.wait(delivered+(int64(i)-int64(l.window)+1)*perRoom, 20*time.Second) {
			g.fail(errors.New("nothing is delivered any more"))
			return
		}
		tokens <- struct{}{}
	}
}

// publishEach publishes a message per token, as publisher number i. After an error it goes on taking tokens, or pace would
// wait for it for ever.
func (g *driver) publishEach(tokens <-chan struct{}, i int) {
	publish, end := g.publisher(i)
	for range tokens {
		if err := publish(g.next()); err != nil {
			g.fail(err)
		}
	}
	if err := end(); err != nil {
		g.fail(err)
	}
}

// publisher returns how publisher number i publishes, and what to call after its last message.
func (g *driver) publisher(i int) (publish func(room int, data []byte) error, end func() error) {
	s := g.server
	switch {
	case g.load.sockets > 0:
		return func(_ int, data []byte) error {
			return writeAll(g.fleet.readers[i].fd, clientFrame([]byte(s.wrap(string(data)))))
		}, func() error { return nil }
	case s.redis != "":
		p, err := newRedisPublisher(s.redis, s.atOnce)
		if err != nil {
			return func(int, []byte) error { return err }, func() error { return nil }
		}
		return p.publish, p.close
	}
	posters := make(map[string]*poster) // by node
	publish = func(room int, data []byte) (err error) {
		addr := s.publisher(room)
		p := posters[addr]
		if p == nil {
			if p, err = newPoster(addr); err != nil {
				return err
			}
			posters[addr] = p
		}
		if g.load.connect {
			defer p.c.Close()
			delete(posters, addr)
		}
		return p.publish(addr, s.publish(room), data)
	}
	return publish, func() error {
		for _, p := range posters {
			p.c.Close()
		}
		return nil
	}
}

// writeAll writes to a socket that does not block, and waits while it is full. That is rare, as the generator writes small
// frames. If it happens, the server has stopped reading, and a millisecond is little beside that.
func writeAll(fd int, p []byte) error {
	for len(p) > 0 {
		n, err := unix.Write(fd, p)
		if err == unix.EAGAIN {
			time.Sleep(time.Millisecond)
			continue
		}
		if err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}
