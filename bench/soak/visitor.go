//go:build linux

package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"time"
)

// rooms are the channels that are published on. They are so few that a client which is stuck has more waiting within seconds
// than the kernel takes for it. One client in four is alone on a channel, so that channels come and go too.
const rooms = 12

// room returns where a client subscribes.
func room() int {
	if rand.IntN(4) == 0 {
		return rooms + rand.IntN(1_000_000)
	}
	return rand.IntN(rooms)
}

// visitor is a client from its coming to its leaving. It has TCP connections of its own, which end with it.
type visitor struct {
	lifetime context.Context
	server   *server
	count    *count
	stuck    bool // accepts nothing once it is connected
	room     int
	http     *http.Client

	mu    sync.Mutex // the transport dials on goroutines of its own
	conns []*net.TCPConn
}

func newVisitor(lifetime context.Context, s *server, c *count, stuck bool) *visitor {
	v := &visitor{lifetime: lifetime, server: s, count: c, stuck: stuck, room: room()}
	// Certificates are not what is tested here.
	v.http = &http.Client{Transport: &http.Transport{DialContext: v.dial, TLSClientConfig: insecure.Clone()}}
	return v
}

var insecure = &tls.Config{InsecureSkipVerify: true, ServerName: "localhost"}

// dial opens a TCP connection. That of a stuck client takes little: its kernel would accept megabytes on its behalf, and so
// would the server's, because segments are 64 KiB long on the loopback interface.
func (v *visitor) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	d := net.Dialer{Timeout: 10 * time.Second}
	if v.stuck {
		d.Control = func(_, _ string, c syscall.RawConn) error {
			return c.Control(func(fd uintptr) {
				syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4096)
				syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_MAXSEG, 1000)
			})
		}
	}
	c, err := d.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.conns = append(v.conns, c.(*net.TCPConn))
	return c, nil
}

// leave ends what is still open, half of the time without a word and with a reset, as a phone does that loses its network.
func (v *visitor) leave() {
	v.mu.Lock()
	defer v.mu.Unlock()
	reset := rand.IntN(2) == 0
	for _, c := range v.conns {
		if reset {
			c.SetLinger(0)
		}
		c.Close()
	}
}

// received counts messages, of which p has at least one.
func (v *visitor) received(p []byte) {
	if len(p) > 2 { // a heartbeat has less
		v.count.received.Add(1)
	}
}

// readAll reads a body until it ends, or the visitor's life.
func (v *visitor) readAll(r io.Reader) {
	if v.stuck {
		<-v.lifetime.Done()
		return
	}
	buf := make([]byte, 32<<10)
	for {
		n, err := r.Read(buf)
		if err != nil {
			return
		}
		v.received(buf[:n])
	}
}

// ask sends a request and returns the response's body.
func (v *visitor) ask(method, url, body string) (string, error) {
	req, err := http.NewRequestWithContext(v.lifetime, method, url, strings.NewReader(body))
	if err != nil {
		return "", err
	}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "text/plain;charset=UTF-8")
	}
	resp, err := v.http.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", url, resp.Status)
	}
	return string(text), err
}

// publish posts messages of 100 B to 16 KiB to all rooms, on a connection that is kept for some and new for others, and some
// with keys.
func (r *run) publish(ctx context.Context) {
	tick := time.NewTicker(time.Second / time.Duration(r.messages))
	defer tick.Stop()
	var v *visitor
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			if v != nil {
				v.leave()
			}
			return
		case <-tick.C:
		}
		if n%50 == 0 {
			if v != nil {
				v.leave()
			}
			v = newVisitor(ctx, r.server, new(count), false)
		}
		size := 100 << rand.IntN(8)
		url := fmt.Sprintf("http://%s/ws/%d", plainAddr, rand.IntN(rooms))
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(strings.Repeat("x", size)))
		if err != nil {
			continue
		}
		req.Header.Set("Content-Type", "text/plain")
		if n%10 == 0 {
			req.Header.Set("Idempotency-Key", fmt.Sprint(n))
		}
		resp, err := v.http.Do(req)
		if err != nil {
			continue // in a reload a connection may be reset before it is answered
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if resp.StatusCode == http.StatusOK {
			r.posts.Add(1)
		}
	}
}
