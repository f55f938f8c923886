package websocket

import (
	"bufio"
	"bytes"
	"compress/flate"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/gobwas/ws"
	"go.uber.org/goleak"

	"github.com/caddy-broadcast/caddy-broadcast/internal/frame/frametest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/protocol"
	"github.com/caddy-broadcast/caddy-broadcast/internal/protocol/raw"
	v1 "github.com/caddy-broadcast/caddy-broadcast/internal/protocol/v1"
	"github.com/caddy-broadcast/caddy-broadcast/internal/socket"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve runs a route on net/http: what Caddy adds is tested with Caddy.
func serve(t *testing.T, change func(*Endpoint)) (addr string, h *hub.Hub) {
	h = hub.New(hub.Config{})
	options := func(f hub.Format) *hub.ConnOptions {
		return &hub.ConnOptions{Format: f, PingInterval: time.Minute, WriteTimeout: 5 * time.Second, MaxBacklog: 1 << 20}
	}
	endpoint := &Endpoint{
		Endpoint: &protocol.Endpoint{Hub: h, MaxMessage: 70_000},
		Offers:   Offers(protocol.Set{raw.Protocol{}, v1.Protocol{}}, 1, options),
		Poller:   socket.NewPoller(),
	}
	if change != nil {
		change(endpoint)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var req protocol.Request
		req.Channels = []string{"a"}
		if r.URL.Path != "/read" {
			req.Publish = []string{"a"}
		}
		if err := endpoint.Accept(w, r, &req, func() {}); err != nil {
			status := http.StatusInternalServerError
			if e := new(caddyhttp.HandlerError); errors.As(err, e) {
				status = e.StatusCode
			}
			http.Error(w, err.Error(), status)
		}
	}))
	t.Cleanup(func() {
		server.Close()
		h.Close(hub.ReasonRestart, "", 0, 5*time.Second)
		if n := endpoint.Poller.Len(); n > 0 {
			t.Errorf("the poller still knows %d sessions", n)
		}
		endpoint.Poller.Close()
	})
	return server.Listener.Addr().String(), h
}

const handshake = "GET / HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n" +
	"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"

type peer struct {
	net.Conn
	r *bufio.Reader
	t testing.TB
}

// shake sends a request and returns the answer.
func shake(t testing.TB, addr, request string) (*peer, *http.Response) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(time.Minute))
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	p := &peer{c, bufio.NewReader(c), t}
	resp, err := http.ReadResponse(p.r, nil)
	if err != nil {
		t.Fatal(err)
	}
	return p, resp
}

func open(t testing.TB, addr, header string) *peer {
	t.Helper()
	p, resp := shake(t, addr, handshake+header+"\r\n")
	if resp.StatusCode != 101 {
		t.Fatal(resp.Status)
	}
	return p
}

func (p *peer) frame() (first byte, payload []byte) {
	p.t.Helper()
	f, err := frametest.Read(p.r)
	if err != nil {
		p.t.Fatal(err)
	}
	if f.Header.Masked {
		p.t.Fatal("a server's frame is masked")
	}
	first = f.Header.Rsv<<4 | byte(f.Header.OpCode)
	if f.Header.Fin {
		first |= 0x80
	}
	return first, f.Payload
}

// expect reads a frame.
func (p *peer) expect(first byte, payload string) {
	p.t.Helper()
	if f, got := p.frame(); f != first || string(got) != payload {
		p.t.Fatalf("got %x %.80q, not %x %.80q", f, got, first, payload)
	}
}

// Short names for the tables of what clients send.
var (
	mask     = frametest.Mask
	deflated = frametest.Deflate
)

func closeWith(code uint16) string { return string(binary.BigEndian.AppendUint16(nil, code)) }

func TestHandshake(t *testing.T) {
	addr, h := serve(t, nil)
	swap := func(old, new string) string { return strings.Replace(handshake, old, new, 1) + "\r\n" }
	for name, c := range map[string]struct {
		request string
		status  int
		header  string // in the answer
	}{
		"good":               {handshake + "\r\n", 101, "Sec-Websocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="},
		"first protocol":     {handshake + "Sec-WebSocket-Protocol: one, two\r\n\r\n", 101, "Sec-Websocket-Protocol: one"},
		"two protocol lines": {handshake + "Sec-WebSocket-Protocol: one\r\nSec-WebSocket-Protocol: two\r\n\r\n", 101, "Sec-Websocket-Protocol: one"},
		"bad protocol":       {handshake + "Sec-WebSocket-Protocol: a b\r\n\r\n", 400, ""},
		"empty protocol":     {handshake + "Sec-WebSocket-Protocol:\r\n\r\n", 400, ""},
		"deflate":            {handshake + "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n", 101, "Sec-Websocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover"},
		"second offer":       {handshake + "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=9, permessage-deflate\r\n\r\n", 101, "Sec-Websocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover"},
		"our window":         {handshake + "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=15; client_max_window_bits=9\r\n\r\n", 101, "Sec-Websocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=15"},
		"second, our window": {handshake + "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=9, permessage-deflate; server_max_window_bits=\"15\"; server_no_context_takeover\r\n\r\n", 101, "Sec-Websocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=15"},
		"a window of 16":     {handshake + "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=16\r\n\r\n", 101, "Sec-Websocket-Extensions: "},
		"a parameter twice":  {handshake + "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=15; server_max_window_bits=15\r\n\r\n", 101, "Sec-Websocket-Extensions: "},
		"an odd value":       {handshake + "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover=1\r\n\r\n", 101, "Sec-Websocket-Extensions: "},
		"another parameter":  {handshake + "Sec-WebSocket-Extensions: permessage-deflate; more\r\n\r\n", 101, "Sec-Websocket-Extensions: "},
		"small window":       {handshake + "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=9\r\n\r\n", 101, "Sec-Websocket-Extensions: "},
		"HTTP/1.0":           {swap("HTTP/1.1", "HTTP/1.0"), 400, "Connection: close"},
		"POST":               {swap("GET", "POST"), 400, "Connection: close"},
		"body":               {handshake + "Content-Length: 1\r\n\r\nx", 400, "Connection: close"},
		"chunked body":       {handshake + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, "Connection: close"},
		"old version":        {swap("Version: 13", "Version: 8"), 400, "Sec-Websocket-Version: 13"},
		"two versions":       {handshake + "Sec-WebSocket-Version: 13\r\n\r\n", 400, ""},
		"no key":             {swap("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", ""), 400, "Connection: close"},
		"short key":          {swap("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ="), 400, "Connection: close"},
		"two keys":           {handshake + "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", 400, ""},
	} {
		_, resp := shake(t, addr, c.request) // stays connected until the end of all cases
		t.Run(name, func(t *testing.T) {
			field, want, _ := strings.Cut(c.header, ": ")
			if resp.StatusCode != c.status || resp.Header.Get(field) != want && field != "Connection" || field == "Connection" && !resp.Close {
				t.Errorf("%d %v; want %d %s", resp.StatusCode, resp.Header, c.status, c.header)
			}
		})
	}
	if n := h.Stats().Connections; n != 12 {
		t.Errorf("%d connections", n)
	}
}

// end sends something, reads until the connection ends, and returns the code that the server closed it with.
func (p *peer) end(send []byte, last bool) (code uint16) {
	p.Write(send)
	if last {
		p.Conn.(*net.TCPConn).CloseWrite()
	}
	for {
		f, err := frametest.Read(p.r)
		if err != nil {
			p.Close()
			return code
		}
		if f.Header.OpCode == ws.OpClose {
			if code = 1005; len(f.Payload) > 1 {
				code = binary.BigEndian.Uint16(f.Payload)
			}
			p.Write(mask(0x88, string(f.Payload))) // the answer, which the server may not need
		}
	}
}

// byPollerAndWithout runs a test with a poller and, as for TLS and elsewhere than on Linux, with goroutines.
func byPollerAndWithout(t *testing.T, test func(t *testing.T, change func(*Endpoint))) {
	t.Run("poller", func(t *testing.T) { test(t, nil) })
	t.Run("goroutines", func(t *testing.T) {
		test(t, func(e *Endpoint) {
			e.Poller.Close()
			e.Poller = nil
		})
	})
}

func TestEnds(t *testing.T)   { byPollerAndWithout(t, testEnds) }
func TestFrames(t *testing.T) { byPollerAndWithout(t, testFrames) }
func TestEarly(t *testing.T)  { byPollerAndWithout(t, testEarly) }

// testEnds: what a client does wrong, or right, and how its connection ends. Another one is not disturbed.
func testEnds(t *testing.T, change func(*Endpoint)) {
	cases := endCases() // takes seconds with -race, so it comes before clients, who have deadlines
	addr, h := serve(t, change)
	witness := open(t, addr, "")
	codes := make(map[string]uint16)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for name, c := range cases { // all at once
		p := open(t, addr, c.header)
		wg.Go(func() {
			code := p.end(c.send, c.code == 0 || name == "a huge length")
			mu.Lock()
			codes[name] = code
			mu.Unlock()
		})
	}
	wg.Wait()
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if codes[name] != c.code {
				t.Errorf("closed with %d, not %d", codes[name], c.code)
			}
		})
	}
	nobody := open(t, addr, "")
	nobody.Close() // says nothing
	for deadline := time.Now().Add(10 * time.Second); h.Stats().Connections > 1; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("connections are left: %+v", h.Stats())
		}
	}
	witness.Write(mask(0x81, "still here"))
	witness.expect(0x81, "still here")
}

// endCase is what a client sends, and how its connection ends.
type endCase struct {
	header string
	send   []byte
	code   uint16 // 0: cut off without one
}

func endCases() map[string]endCase {
	const deflate = "Sec-WebSocket-Extensions: permessage-deflate\r\n"
	join := func(frames ...[]byte) []byte { return bytes.Join(frames, nil) }
	long := strings.Repeat("x", 70_001)
	return map[string]endCase{
		"goodbye":                    {"", mask(0x88, closeWith(1000)), 1000},
		"goodbye with a reason":      {"", mask(0x88, closeWith(3999)+"because"), 3999},
		"goodbye without a code":     {"", mask(0x88, ""), 1005},
		"half a code":                {"", mask(0x88, "\x03"), 1002},
		"a code that must not be":    {"", mask(0x88, closeWith(1006)), 1002},
		"a reason that is not UTF-8": {"", mask(0x88, closeWith(1000)+"\xff"), 1002},
		"not masked":                 {"", []byte{0x81, 1, 'x'}, 1002},
		"RSV1":                       {"", mask(0xc1, "x"), 1002},
		"RSV2":                       {"", mask(0xa1, "x"), 1002},
		"RSV3":                       {"", mask(0x91, "x"), 1002},
		"opcode 3":                   {"", mask(0x83, "x"), 1002},
		"opcode 15":                  {"", mask(0x8f, ""), 1002},
		"long ping":                  {"", mask(0x89, strings.Repeat("x", 126)), 1002},
		"part of a ping":             {"", mask(0x09, "x"), 1002},
		"continues nothing":          {"", mask(0x80, "x"), 1002},
		"new before the end":         {"", join(mask(0x01, "x"), mask(0x81, "y")), 1002},
		"length over 2^63":           {"", []byte{0x82, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4}, 1002},
		"a huge length":              {"", []byte{0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4}, 1009},
		"a length in too many bytes": {"", []byte{0x82, 0xfe, 0, 1, 1, 2, 3, 4, 'x'}, 1002},
		"part of a frame, no more":   {"", mask(0x82, "half")[:7], 0},
		"not UTF-8":                  {"", mask(0x81, "\xc3\x28"), 1007},
		"not UTF-8 in parts":         {"", join(mask(0x01, "\xc3"), mask(0x80, "\x28")), 1007},
		"too big":                    {"", mask(0x82, long), 1009},
		"too big in parts":           {"", join(mask(0x02, long[:40_000]), mask(0x00, long[:20_000]), mask(0x80, long[:10_001])), 1009},
		"a bomb":                     {deflate, mask(0xc1, deflated(strings.Repeat("x", 50_000_000))), 1009},
		"not deflated":               {deflate, mask(0xc1, "\xff\xff\xff\xff"), 1007},
		"deflated, cut off":          {deflate, mask(0xc1, deflated(long[:100])[:3]), 1007},
		"deflated ping":              {deflate, mask(0xc9, "x"), 1002},
		"deflated continuation":      {deflate, join(mask(0x41, "x"), mask(0xc0, "y")), 1002},
		"RSV2 with deflate":          {deflate, mask(0xa1, "x"), 1002},
	}
}

func TestPublishingOff(t *testing.T) {
	addr, _ := serve(t, nil)
	p, resp := shake(t, addr, strings.Replace(handshake, "GET /", "GET /read", 1)+"\r\n")
	if resp.StatusCode != 101 {
		t.Fatal(resp.Status)
	}
	p.Write(mask(0x81, "x"))
	if first, payload := p.frame(); first != 0x88 || binary.BigEndian.Uint16(payload) != 1008 {
		t.Fatalf("%x %q", first, payload)
	}
}

// testFrames sends messages of all lengths at which something changes, whole and in parts, text and binary, and wants
// them back as whole frames, by plain and by deflating connections.
func testFrames(t *testing.T, change func(*Endpoint)) {
	addr, _ := serve(t, change)
	plain := open(t, addr, "")
	deflating := open(t, addr, "Sec-WebSocket-Extensions: permessage-deflate\r\n")
	for i, n := range []int{0, 1, 125, 126, 127, 4095, 4096, 4097, 65535, 65536, 70_000} {
		b := make([]byte, n)
		for j := range b {
			b[j] = 'a' + byte(rand.IntN(4))
		}
		s := string(b)
		kind := byte(1 + i%2)
		switch i % 3 {
		case 0:
			plain.Write(mask(0x80|kind, s))
		case 1:
			cut := rand.IntN(n + 1)
			plain.Write(mask(kind, s[:cut]))
			plain.Write(mask(0x89, "ping in between"))
			plain.Write(mask(0x80, s[cut:]))
			plain.expect(0x8a, "ping in between")
		case 2:
			deflating.Write(mask(0xc0|kind, deflated(s)))
		}
		plain.expect(0x80|kind, s)
		first, payload := deflating.frame()
		if first&0x40 != 0 {
			r := flate.NewReader(io.MultiReader(bytes.NewReader(payload), strings.NewReader("\x00\x00\xff\xff\x01\x00\x00\xff\xff")))
			var err error
			if payload, err = io.ReadAll(r); err != nil {
				t.Fatal(err)
			}
		} else if n > 200 {
			t.Errorf("%d bytes are not deflated", n)
		}
		if first&^0x40 != 0x80|kind || string(payload) != s {
			t.Errorf("deflating, %d bytes: %x and %d bytes", n, first, len(payload))
		}
	}
}

// testEarly: frames that come with the handshake are not lost.
func testEarly(t *testing.T, change func(*Endpoint)) {
	addr, _ := serve(t, change)
	p, resp := shake(t, addr, handshake+"\r\n"+string(mask(0x81, "early"))+string(mask(0x81, "bird")))
	if resp.StatusCode != 101 {
		t.Fatal(resp.Status)
	}
	p.expect(0x81, "early")
	p.expect(0x81, "bird")
}

// TestManySenders: each of many clients that send at once, in pieces, has all its messages published in order.
func TestManySenders(t *testing.T) {
	addr, _ := serve(t, nil)
	const senders, each = 20, 500
	witness := open(t, addr, "")
	var wg sync.WaitGroup
	for i := range senders {
		p := open(t, addr, "")
		go io.Copy(io.Discard, p) // its echoes
		wg.Go(func() {
			var b bytes.Buffer
			for j := range each {
				b.Write(mask(0x81, fmt.Sprint(i, " ", j)))
			}
			for b.Len() > 0 {
				p.Write(b.Next(1 + rand.IntN(100)))
			}
		})
	}
	next := make(map[int]int)
	for range senders * each {
		_, payload := witness.frame()
		var i, j int
		if _, err := fmt.Sscan(string(payload), &i, &j); err != nil || next[i] != j {
			t.Fatalf("got %q, not %d %d", payload, i, next[i])
		}
		next[i]++
	}
	wg.Wait()
}

// TestSilentClient: a client that is closed and does not answer is cut off, and forgotten.
func TestSilentClient(t *testing.T) {
	addr, h := serve(t, func(e *Endpoint) { e.Offers[0].Plain.WriteTimeout = time.Second })
	p := open(t, addr, "")
	p.Write(mask(0x81, "\xff"))
	p.frame()
	for deadline := time.Now().Add(10 * time.Second); h.Stats().Connections > 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it stays")
		}
	}
}

// TestPingFlood: pongs do not heap up, and the last ping is answered.
func TestPingFlood(t *testing.T) {
	addr, h := serve(t, nil)
	p := open(t, addr, "")
	const n = 20_000
	go func() {
		for i := range n {
			if _, err := p.Write(mask(0x89, fmt.Sprint(i))); err != nil {
				return
			}
		}
	}()
	for {
		first, payload := p.frame()
		if first != 0x8a {
			t.Fatalf("got %x", first)
		}
		if string(payload) == fmt.Sprint(n-1) {
			break
		}
	}
	if s := h.Stats(); s.Connections != 1 || s.Backlog != 0 {
		t.Errorf("%+v", s)
	}
}

func TestTooMany(t *testing.T) {
	addr, h := serve(t, nil)
	h.Configure(hub.Config{MaxConnections: 1})
	open(t, addr, "")
	_, resp := shake(t, addr, handshake+"\r\n")
	if resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" || !resp.Close {
		t.Errorf("%d %v", resp.StatusCode, resp.Header)
	}
}
