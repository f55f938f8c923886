//go:build linux

package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"
)

// stormCrowd is the clients of a storm, of broadcast.v1. Each has a goroutine, since crypto/tls knows only blocking calls.
type stormCrowd struct {
	server   *server
	config   *tls.Config // nil for plain TCP
	clients  []*stormClient
	want     int // messages after which a client is live: those that it has missed
	attempts atomic.Int64
	live     atomic.Int64
	half     atomic.Pointer[time.Time] // when half were live
	cutting  atomic.Bool
	reading  sync.WaitGroup
}

// stormClient is a client. Only its goroutine uses it, except for got.
type stormClient struct {
	room   int
	lastID string
	conn   net.Conn
	got    atomic.Int64 // messages since the storm
}

func newStormCrowd(s *server, n int, secure bool) *stormCrowd {
	c := &stormCrowd{server: s, clients: make([]*stormClient, n)}
	if secure {
		// With a session cache, as browsers have one: a client that comes back has a ticket.
		c.config = &tls.Config{InsecureSkipVerify: true, ServerName: "localhost", ClientSessionCache: tls.NewLRUClientSessionCache(1)}
	}
	for i := range c.clients {
		c.clients[i] = &stormClient{room: i % stormRooms}
	}
	return c
}

// connect connects all clients, some at a time, and returns when each is live.
func (c *stormCrowd) connect(atOnce int) error {
	c.live.Store(0)
	c.cutting.Store(false)
	slots := make(chan struct{}, atOnce)
	done := make(chan error, len(c.clients))
	end := time.Now().Add(stormPatience)
	for _, client := range c.clients {
		slots <- struct{}{}
		go func() {
			defer func() { <-slots }()
			done <- c.attempt(client, end)
		}()
	}
	for range c.clients {
		if err := <-done; err != nil {
			return fmt.Errorf("%d of %d are live: %w", c.live.Load(), len(c.clients), err)
		}
	}
	return nil
}

// attempt connects a client and waits until it is live. If the server resets the connection it tries again, as clients do.
func (c *stormCrowd) attempt(client *stormClient, end time.Time) error {
	var err error
	for time.Now().Before(end) {
		c.attempts.Add(1)
		live := make(chan error, 1)
		if err = c.dial(client, end); err == nil {
			c.reading.Go(func() { c.read(client, live) })
			if err = <-live; err == nil {
				if c.live.Add(1) == int64(len(c.clients)/2) {
					now := time.Now()
					c.half.Store(&now)
				}
				return nil
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
	return err
}

// dial opens a connection and sends the request.
func (c *stormCrowd) dial(client *stormClient, end time.Time) error {
	addr := c.server.addr
	if c.config != nil {
		addr = c.server.tlsAddr
	}
	d := net.Dialer{Deadline: end}
	var err error
	if c.config != nil {
		client.conn, err = tls.DialWithDialer(&d, "tcp", addr, c.config)
	} else {
		client.conn, err = d.Dial("tcp", addr)
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(client.conn, "GET /ws/%d?last_id=%s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: broadcast.v1\r\n\r\n", client.room, url.QueryEscape(client.lastID), addr)
	return err
}

// stormBuffers hold frames while they are read.
var stormBuffers = sync.Pool{New: func() any { b := make([]byte, 64<<10); return &b }}

// read reads until the connection ends, and reports when the client is live, or why it never was.
func (c *stormCrowd) read(client *stormClient, live chan<- error) {
	defer client.conn.Close()
	r := bufio.NewReaderSize(client.conn, 2048)
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		live <- fmt.Errorf("handshake: %v %w", resp, err)
		return
	}
	for told := false; ; {
		if err := client.frame(r); err != nil {
			if !told {
				live <- err
			} else if !c.cutting.Load() {
				fmt.Println("a client was disconnected:", err)
			}
			return
		}
		if !told && client.lastID != "" && client.got.Load() >= int64(c.want) {
			told = true
			live <- nil
		}
	}
}

// frame reads a frame and counts the messages in it.
func (client *stormClient) frame(r *bufio.Reader) error {
	head, err := r.Peek(2)
	if err != nil {
		return err
	}
	length, size := int(head[1]&0x7f), 2
	switch length {
	case 126:
		if head, err = r.Peek(4); err != nil {
			return err
		}
		length, size = int(head[2])<<8|int(head[3]), 4
	case 127:
		if head, err = r.Peek(10); err != nil {
			return err
		}
		length, size = int(head[6])<<24|int(head[7])<<16|int(head[8])<<8|int(head[9]), 10
	}
	op := head[0] & 0xf
	r.Discard(size)
	buffer := stormBuffers.Get().(*[]byte)
	defer stormBuffers.Put(buffer)
	if length > len(*buffer) {
		*buffer = make([]byte, length)
	}
	p := (*buffer)[:length]
	if _, err := io.ReadFull(r, p); err != nil {
		return err
	}
	switch op {
	case 8:
		return errors.New("the server closed the connection")
	case 9:
		_, err := client.conn.Write([]byte{0x8a, 0x80, 0, 0, 0, 0})
		return err
	}
	client.got.Add(int64(bytes.Count(p, []byte(`"channel":"`))))
	if i := bytes.LastIndex(p, []byte(`"id":"`)); i >= 0 {
		id, _, _ := bytes.Cut(p[i+len(`"id":"`):], []byte{'"'})
		client.lastID = string(id)
	}
	return nil
}

// cut ends all connections at once, and waits until the clients have noticed.
func (c *stormCrowd) cut() {
	c.cutting.Store(true)
	for _, client := range c.clients {
		if client.conn != nil {
			client.conn.Close()
		}
	}
	c.reading.Wait()
	for _, client := range c.clients {
		client.got.Store(0)
	}
}

func (c *stormCrowd) close() { c.cut() }

// awaitAll waits until each client has what was published to its room, and returns how many messages are missing, or were
// repeated.
func (c *stormCrowd) awaitAll(published int) (wrong int64) {
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		wrong = 0
		for _, client := range c.clients {
			want := int64(stormMissed + published/stormRooms)
			if client.room < published%stormRooms {
				want++
			}
			wrong += max(want-client.got.Load(), client.got.Load()-want)
		}
		if wrong == 0 {
			return 0
		}
	}
	return wrong
}
