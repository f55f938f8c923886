package hostile_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/caddy-broadcast/caddy-broadcast/internal/frame/frametest"
)

type peer struct {
	*net.TCPConn
	r *bufio.Reader
}

func dial(t *testing.T, addr string) *peer {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(timeout))
	return &peer{c.(*net.TCPConn), bufio.NewReader(c)}
}

// answer reads the answer to a handshake. One that refuses is the last thing on its connection, whatever was sent.
func (p *peer) answer(t *testing.T) *http.Response {
	t.Helper()
	resp, err := http.ReadResponse(p.r, nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode >= 400 {
		io.Copy(io.Discard, resp.Body)
		rest, err := io.ReadAll(p.r)
		if len(rest) > 0 || isTimeout(err) {
			t.Errorf("after the %d there are %q and %v", resp.StatusCode, rest, err)
		}
	}
	return resp
}

// end reads until the server cuts the connection off, which it has to do unasked, and returns the close code, or cutOff.
func (p *peer) end(t *testing.T) int {
	t.Helper()
	code := cutOff
	for {
		f, err := frametest.Read(p.r)
		if err != nil {
			if isTimeout(err) {
				t.Errorf("the connection stays, after the close code %d", code)
			}
			return code
		}
		if code != cutOff {
			t.Errorf("a frame %+v comes after the close frame", f.Header)
		}
		if f.Header.OpCode == ws.OpClose {
			if code = noCode; len(f.Payload) > 1 {
				code = int(binary.BigEndian.Uint16(f.Payload))
			}
		}
	}
}

func isTimeout(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}

// slowly sends the handshake by the byte.
func slowly(t *testing.T, s *server) int {
	p := dial(t, s.slow)
	go func() {
		for tick, rest := time.NewTicker(20*time.Millisecond), with("\r\n"); rest != ""; rest = rest[1:] {
			<-tick.C
			if _, err := io.WriteString(p, rest[:1]); err != nil {
				return
			}
		}
	}()
	answer, err := io.ReadAll(p.r) // nothing, or 400: that is Go's, and depends on where in the header it ended
	if len(answer) > 0 && !bytes.HasPrefix(answer, []byte("HTTP/1.1 400 ")) || isTimeout(err) {
		t.Errorf("answered %q and %v", answer, err)
	}
	return cutOff
}

// silently says nothing and reads nothing, as if the client's machine were gone, and looks at the end what was sent to it.
func silently(t *testing.T, s *server) int {
	p := dial(t, s.addr)
	p.SetReadBuffer(4 << 10)
	from := time.Now()
	io.WriteString(p, strings.Replace(with("\r\n"), "/ws", "/silent", 1))
	eventually(t, "the silent client is connected", func() bool { return s.connections(t, "silent") == 1 })
	eventually(t, "the silent client is cut off", func() bool { return s.connections(t, "silent") == 0 })
	// How soon it may be depends on the clock alone, and how late also on how busy the machine is.
	if d := time.Since(from); d < 1500*time.Millisecond {
		t.Errorf("it was cut off after %v, with a ping_interval of a second", d)
	}
	p.answer(t)
	return p.end(t)
}

// then returns a client that does something once it is connected.
func then(do func(p *peer)) func(*testing.T, *server) int {
	return func(t *testing.T, s *server) int {
		p := dial(t, s.addr)
		io.WriteString(p, with("\r\n"))
		p.answer(t)
		do(p)
		return p.end(t)
	}
}

// onAndOn returns a client that sends pings from then on, as long as it can.
func onAndOn(frame string) func(*testing.T, *server) int {
	return then(func(p *peer) {
		io.WriteString(p, frame)
		go func() {
			pings := []byte(strings.Repeat(mask(0x89, ""), 100))
			for err := error(nil); err == nil; {
				_, err = p.Write(pings)
			}
		}()
	})
}

// ways are how bytes come.
var ways = map[string]func(p *peer, request, send string, answer func()){
	"whole": func(p *peer, request, send string, answer func()) {
		io.WriteString(p, request)
		answer()
		go io.WriteString(p, send)
	},
	"early": func(p *peer, request, send string, answer func()) {
		io.WriteString(p, request+send)
		answer()
	},
	"by the byte": func(p *peer, request, send string, answer func()) {
		io.WriteString(p, request)
		answer()
		go func() {
			for i := range len(send) {
				p.Write([]byte{send[i]})
			}
		}()
	},
}

func (r *row) run(t *testing.T, s *server, way string) {
	if r.play != nil {
		if got := r.play(t, s); got != r.want {
			t.Errorf("it ends with %d, not %d", got, r.want)
		}
		return
	}
	request, status := r.request, r.want
	if request == "" {
		request = with("\r\n")
	}
	if r.send != "" {
		status = 101
	}
	p := dial(t, s.addr)
	ways[way](p, request, r.send, func() {
		resp := p.answer(t)
		name, value, _ := strings.Cut(r.header, ": ")
		if resp.StatusCode != status || resp.Header.Get(name) != value {
			t.Fatalf("answered %s %v, not %d %s", resp.Status, resp.Header, status, r.header)
		}
	})
	if r.send != "" {
		if got := p.end(t); got != r.want {
			t.Errorf("closed with %d, not %d", got, r.want)
		}
	}
}
