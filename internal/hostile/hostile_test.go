// Package hostile_test lets clients do wrong on a real Caddy's sockets, all at once, beside one that does right.
package hostile_test

import (
	"bufio"
	"bytes"
	"compress/flate"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"runtime/metrics"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
	"github.com/coder/websocket"
	"github.com/gobwas/ws"

	_ "github.com/caddy-broadcast/caddy-broadcast"
)

// TestMain keeps Caddy's files out of the home directory.
func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "caddy-broadcast")
	if err != nil {
		panic(err)
	}
	os.Setenv("XDG_DATA_HOME", dir)
	os.Setenv("XDG_CONFIG_HOME", dir)
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

const (
	// patience is how long a server may take for anything at all.
	patience = 20 * time.Second

	maxMessage = 64 << 10
)

// The hostile are on the channel of the good client, so that it would get what they should not be able to publish; only
// those who may publish before the rate stops them are on another.
const config = `{
	admin ADMIN
	default_bind 127.0.0.1
	persist_config off
	storage file_system DIR
	log {
		output file DIR/log
	}
	servers SLOW {
		timeouts {
			read_header 500ms
		}
	}
}
http://:PORT, http://:SLOWPORT {
	broadcast /ws {
		write_timeout 1s
	}
	broadcast /deflate {
		write_timeout 1s
		compression on
	}
	broadcast /rated rated {
		write_timeout 1s
		rate 100
	}
	broadcast /named {query.channel} {
		user {query.user}
	}
	broadcast /silent {
		ping_interval 1s
		user silent
	}
	respond "the next handler"
}
`

type server struct{ addr, slow, admin, log string }

// start runs Caddy in this process.
func start(t *testing.T) *server {
	t.Helper()
	dir := t.TempDir()
	s := &server{freeAddr(t), freeAddr(t), freeAddr(t), filepath.Join(dir, "log")}
	_, port, _ := net.SplitHostPort(s.addr)
	_, slowPort, _ := net.SplitHostPort(s.slow)
	text := strings.NewReplacer("ADMIN", s.admin, "DIR", dir, "SLOWPORT", slowPort, "SLOW", s.slow, "PORT", port).Replace(config)
	cfg, warnings, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(text), nil)
	if err != nil || len(warnings) > 0 {
		t.Fatal(err, warnings)
	}
	if err := caddy.Load(cfg, true); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := caddy.Stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

var nextPort = 10_000 + os.Getpid()*199%20_000 // processes far apart

// freeAddr returns an address that nothing listens on. Its port is not one that the system gives to others meanwhile.
func freeAddr(t *testing.T) string {
	t.Helper()
	for range 1000 {
		nextPort++
		addr := fmt.Sprint("127.0.0.1:", nextPort)
		if l, err := net.Listen("tcp", addr); err == nil {
			l.Close()
			return addr
		}
	}
	t.Fatal("no port is free")
	return ""
}

func (s *server) do(method, path, body string) (string, error) {
	r, err := http.NewRequest(method, "http://"+s.admin+path, strings.NewReader(body))
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	p, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != 200 {
		err = fmt.Errorf("%s %s: %s %s", method, path, resp.Status, p)
	}
	return string(p), err
}

// connections returns how many connections there are of a user.
func (s *server) connections(t *testing.T, user string) int {
	t.Helper()
	body, err := s.do("GET", "/broadcast/connections?user="+user, "")
	var list []json.RawMessage
	if err == nil {
		err = json.Unmarshal([]byte(body), &list)
	}
	if err != nil {
		t.Fatal(err, body)
	}
	return len(list)
}

// eventually asks again and again.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Errorf("it does not come: %s", what)
			return
		}
	}
}

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
	c.SetDeadline(time.Now().Add(patience))
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
		h, err := ws.ReadHeader(p.r)
		payload := make([]byte, max(0, h.Length))
		if err == nil {
			_, err = io.ReadFull(p.r, payload)
		}
		if err != nil {
			if isTimeout(err) {
				t.Errorf("the connection stays, after the close code %d", code)
			}
			return code
		}
		if code != cutOff {
			t.Errorf("a frame %+v comes after the close frame", h)
		}
		if h.OpCode == ws.OpClose {
			if code = noCode; len(payload) > 1 {
				code = int(binary.BigEndian.Uint16(payload))
			}
		}
	}
}

func isTimeout(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}

const handshake = "GET /ws HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n" +
	"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"

// swap changes the handshake.
func swap(old, new string) string { return strings.Replace(handshake, old, new, 1) + "\r\n" }

// with adds header fields to the handshake, and what follows it.
func with(fields string) string { return handshake + fields }

// mask makes a client's frame.
func mask(first byte, payload string) string {
	h := ws.Header{Fin: first&0x80 != 0, Rsv: first >> 4 & 7, OpCode: ws.OpCode(first & 0x0f), Masked: true,
		Mask: [4]byte{1, 2, 3, 4}, Length: int64(len(payload))}
	var b bytes.Buffer
	if err := ws.WriteHeader(&b, h); err != nil {
		panic(err)
	}
	p := []byte(payload)
	ws.Cipher(p, h.Mask, 0)
	b.Write(p)
	return b.String()
}

// goodbye makes a close frame.
func goodbye(code uint16, reason string) string {
	return mask(0x88, string(binary.BigEndian.AppendUint16(nil, code))+reason)
}

// deflated is what a client that deflates sends.
func deflated(s string) string {
	var b bytes.Buffer
	w, _ := flate.NewWriter(&b, 9)
	io.WriteString(w, s)
	w.Flush()
	return strings.TrimSuffix(b.String(), "\x00\x00\xff\xff")
}

// Outcomes besides HTTP's statuses and close codes.
const (
	cutOff = 0    // without a close frame
	noCode = 1005 // a close frame without a code
)

// row is what a client does, and how that ends.
type row struct {
	name    string
	request string // "" is the handshake
	send    string // after the answer 101
	want    int    // the close code; the HTTP status, if it is the handshake that counts
	header  string // in the answer

	// play is a client that does more than to send.
	play func(t *testing.T, s *server) (outcome int)
}

var (
	handshakes = []row{
		{name: "HTTP/1.0", request: swap("HTTP/1.1", "HTTP/1.0"), want: 400},
		{name: "POST", request: swap("GET", "POST"), want: 400},
		{name: "a body", request: with("Content-Length: 5\r\n\r\nhello"), want: 400},
		{name: "a chunked body", request: with("Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), want: 400},
		{name: "an empty chunked body", request: with("Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), want: 400},
		{name: "a request in the body", request: with("Content-Length: 31\r\n\r\nGET / HTTP/1.1\r\nHost: nobody\r\n\r\n"), want: 400},
		{name: "a body of two lengths", request: with("Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"), want: 400},
		{name: "a body of a length and chunked", want: 400,
			request: with("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")},
		{name: "no key", request: swap("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", ""), want: 400},
		{name: "two keys", request: with("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"), want: 400},
		{name: "an empty key", request: swap("dGhlIHNhbXBsZSBub25jZQ==", ""), want: 400},
		{name: "a key of 15 bytes", request: swap("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25j"), want: 400},
		{name: "a key of 17 bytes", request: swap("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZSE="), want: 400},
		{name: "a key that is not base64", request: swap("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25j!!=="), want: 400},
		// RFC 6455, section 4.2.2, lets a server choose the status: "such as 426".
		{name: "version 8", request: swap("Version: 13", "Version: 8"), want: 400, header: "Sec-Websocket-Version: 13"},
		{name: "version 14", request: swap("Version: 13", "Version: 14"), want: 400, header: "Sec-Websocket-Version: 13"},
		{name: "no version", request: swap("Sec-WebSocket-Version: 13\r\n", ""), want: 400, header: "Sec-Websocket-Version: 13"},
		{name: "two versions", request: with("Sec-WebSocket-Version: 13\r\n\r\n"), want: 400},
		{name: "no host", request: swap("Host: h\r\n", ""), want: 400},
		{name: "two hosts", request: with("Host: h\r\n\r\n"), want: 400},
		// Without one of these it is no handshake; they are lists, and one on two lines is one (RFC 9110, section 5.3).
		{name: "no Upgrade", request: swap("Upgrade: websocket\r\n", ""), want: 200},
		{name: "no Connection", request: swap("Connection: keep-alive, Upgrade\r\n", ""), want: 200},
		{name: "two Upgrades", request: with("Upgrade: websocket\r\n\r\n"), want: 101},
		{name: "two Connections", request: with("Connection: Upgrade\r\n\r\n"), want: 101},
		{name: "a foreign origin", request: with("Origin: https://evil.example\r\n\r\n"), want: 403},
		{name: "the origin null", request: with("Origin: null\r\n\r\n"), want: 403},
		{name: "an own and a foreign origin", request: with("Origin: http://h\r\nOrigin: https://evil.example\r\n\r\n"), want: 403},
		{name: "a subprotocol that is none", request: with("Sec-WebSocket-Protocol: a b\r\n\r\n"), want: 400},
		{name: "no channel", request: swap("/ws", "/named"), want: 400},
		{name: "a long channel", request: swap("/ws", "/named?channel="+strings.Repeat("x", 256)), want: 400},
		{name: "a long user", request: swap("/ws", "/named?channel=x&user="+strings.Repeat("x", 256)), want: 400},
		{name: "frames behind a refused handshake", want: 403,
			request: with("Origin: null\r\n\r\n") + mask(0x81, "GET / HTTP/1.1\r\nHost: h\r\n\r\n")},
		{name: "a request behind a refused handshake", want: 403,
			request: with("Origin: null\r\n\r\n") + "GET / HTTP/1.1\r\nHost: h\r\n\r\n"},
		{name: "a slow handshake", play: slowly, want: cutOff},
	}

	deflate = strings.Replace(handshake, "/ws", "/deflate", 1) + "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
	rated   = strings.Replace(handshake, "/ws", "/rated", 1) + "\r\n"
	v1      = with("Sec-WebSocket-Protocol: broadcast.v1\r\n\r\n")
	ratedV1 = strings.Replace(v1, "/ws", "/rated", 1)

	frames = []row{
		{name: "RSV1", send: mask(0xc1, "x"), want: 1002},
		{name: "RSV2", send: mask(0xa1, "x"), want: 1002},
		{name: "RSV3", send: mask(0x91, "x"), want: 1002},
		{name: "RSV1 on a ping", send: mask(0xc9, "x"), want: 1002},
		{name: "RSV1 on a continuation", send: mask(0x01, "x") + mask(0xc0, "y"), want: 1002},
		{name: "RSV2 with deflate", request: deflate, send: mask(0xa1, "x"), want: 1002},
		{name: "RSV3 with deflate", request: deflate, send: mask(0x91, "x"), want: 1002},
		{name: "RSV1 and RSV2 with deflate", request: deflate, send: mask(0xe1, "x"), want: 1002},
		{name: "RSV1 on a ping with deflate", request: deflate, send: mask(0xc9, "x"), want: 1002},
		{name: "RSV1 on a close with deflate", request: deflate, send: mask(0xc8, "\x03\xe8"), want: 1002},
		{name: "RSV1 on a continuation with deflate", request: deflate, send: mask(0x41, "x") + mask(0xc0, "y"), want: 1002},

		{name: "a part of a ping", send: mask(0x09, "x"), want: 1002},
		{name: "a part of a pong", send: mask(0x0a, "x"), want: 1002},
		{name: "a part of a close", send: mask(0x08, "\x03\xe8"), want: 1002},
		{name: "a ping of 126 bytes", send: mask(0x89, strings.Repeat("x", 126)), want: 1002},
		{name: "a pong of 126 bytes", send: mask(0x8a, strings.Repeat("x", 126)), want: 1002},
		{name: "a close of 126 bytes", send: goodbye(1000, strings.Repeat("x", 124)), want: 1002},
		{name: "a ping of 2^62 bytes", send: "\x89\xff\x40\x00\x00\x00\x00\x00\x00\x00\x01\x02\x03\x04", want: 1002},

		{name: "not masked", send: "\x81\x05hello", want: 1002},
		{name: "a ping not masked", send: "\x89\x00", want: 1002},
		{name: "a close not masked", send: "\x88\x02\x03\xe8", want: 1002},
		{name: "5 bytes in the form for 16 bits", send: "\x81\xfe\x00\x05\x00\x00\x00\x00hello", want: 1002},
		{name: "125 bytes in the form for 16 bits", send: "\x81\xfe\x00\x7d\x00\x00\x00\x00" + strings.Repeat("x", 125), want: 1002},
		{name: "5 bytes in the form for 64 bits", send: "\x81\xff\x00\x00\x00\x00\x00\x00\x00\x05\x00\x00\x00\x00hello", want: 1002},
		{name: "65535 bytes in the form for 64 bits", send: "\x81\xff\x00\x00\x00\x00\x00\x00\xff\xff\x00\x00\x00\x00", want: 1002},
		{name: "the top bit of the length", send: "\x82\xff\x80\x00\x00\x00\x00\x01\x00\x00\x01\x02\x03\x04", want: 1002},
		{name: "a frame of 2^62 bytes", send: "\x82\xff\x40\x00\x00\x00\x00\x00\x00\x00\x01\x02\x03\x04", want: 1009},
		{name: "a part of 2^62 bytes", send: "\x02\xff\x40\x00\x00\x00\x00\x00\x00\x00\x01\x02\x03\x04", want: 1009},
		{name: "2^63-1 bytes more than a part", send: mask(0x02, "x") + "\x80\xff\x7f\xff\xff\xff\xff\xff\xff\xff\x01\x02\x03\x04",
			want: 1009},
		{name: "a byte too many", send: mask(0x82, strings.Repeat("x", maxMessage+1)), want: 1009},

		{name: "a message in another", send: mask(0x01, "x") + mask(0x81, "y"), want: 1002},
		{name: "a message in an empty part", send: mask(0x01, "") + mask(0x82, "y"), want: 1002},
		{name: "the end of nothing", send: mask(0x80, "x"), want: 1002},
		{name: "a continuation of nothing", send: mask(0x00, ""), want: 1002},

		{name: "not UTF-8", send: mask(0x81, "\xc3\x28"), want: 1007},
		{name: "not UTF-8 in parts", send: mask(0x01, "\xc3") + mask(0x00, "") + mask(0x80, "\x28"), want: 1007},
		{name: "half a character", send: mask(0x81, "\xe2\x82"), want: 1007},
		{name: "half a pair of surrogates", send: mask(0x81, "\xed\xa0\x80"), want: 1007},
		{name: "an overlong slash", send: mask(0x81, "\xc0\xaf"), want: 1007},
		{name: "not UTF-8, deflated", request: deflate, send: mask(0xc1, deflated("\xc3\x28")), want: 1007},

		{name: "a close of 1 byte", send: mask(0x88, "\x03"), want: 1002},
		{name: "a reason that is not UTF-8", send: goodbye(1000, "\xff"), want: 1002},
		{name: "frames after the close", send: goodbye(1000, "") + mask(0x81, "x") + mask(0x83, ""), want: 1000},
		{name: "a close in a message", send: mask(0x01, "x") + mask(0x88, ""), want: noCode},

		{name: "a bomb", request: deflate, send: mask(0xc1, deflated(strings.Repeat("x", 8<<20))), want: 1009},
		{name: "a bomb in parts", request: deflate, send: inParts(0x41, deflated(strings.Repeat("x", 8<<20))), want: 1009},
		{name: "a bomb that is over by a byte", request: deflate, send: mask(0xc1, deflated(strings.Repeat("x", maxMessage+1))),
			want: 1009},
		{name: "a block of a type that is none", request: deflate, send: mask(0xc1, "\xff\xff\xff\xff"), want: 1007},
		{name: "deflated data that refers to before its start", request: deflate, send: mask(0xc2, "\x02\x13\x00"), want: 1007},
		{name: "deflated data that breaks off", request: deflate, send: mask(0xc1, deflated(strings.Repeat("hello", 20))[:4]),
			want: 1007},

		{name: "pings without end, without a rate", send: strings.Repeat(mask(0x89, "x"), 100_000) + goodbye(1000, ""), want: 1000},
		{name: "pings without end", request: rated, send: strings.Repeat(mask(0x89, "x"), 100_000), want: 1008},
		{name: "pongs without end, with a rate", request: rated, send: strings.Repeat(mask(0x8a, "x"), 100_000), want: 1008},
		{name: "empty parts without end, with a rate", request: rated, send: mask(0x01, "") + strings.Repeat(mask(0x00, ""), 100_000),
			want: 1008},
		{name: "v1: pongs without end", request: ratedV1, send: strings.Repeat(mask(0x8a, "x"), 100_000), want: 1008},
		{name: "a keep-alive, and as many messages as the rate lets", request: rated,
			send: strings.Repeat(mask(0x89, "x")+mask(0x8a, "x"), 5) + strings.Repeat(mask(0x81, "x"), 100) + goodbye(1000, ""), want: 1000},
		{name: "messages without end", request: rated, send: strings.Repeat(mask(0x81, "x"), 100_000), want: 1008},
		{name: "pongs without end", send: strings.Repeat(mask(0x8a, "x"), 100_000) + goodbye(1000, ""), want: 1000},
		{name: "parts of a byte without end", send: mask(0x01, "") + strings.Repeat(mask(0x00, "x"), maxMessage+1), want: 1009},
		{name: "deflated parts of a byte without end", request: deflate, send: mask(0x41, "") + strings.Repeat(mask(0x00, "x"), 70_000),
			want: 1009},
		// Nothing ends that without a rate, and the server keeps nothing of it: it costs some 25 ns a frame.
		{name: "empty parts without end", send: mask(0x01, "") + strings.Repeat(mask(0x00, ""), 200_000) + goodbye(1000, ""),
			want: 1000},
		{name: "more and more after a fault", play: onAndOn(mask(0x83, "")), want: 1002},
		{name: "more and more after too much", play: onAndOn(mask(0x82, strings.Repeat("x", maxMessage+1))), want: 1009},
		{name: "half a frame, and FIN", want: cutOff, play: then(func(p *peer) {
			io.WriteString(p, mask(0x82, "half")[:7])
			p.CloseWrite()
		})},
		{name: "half a frame, and RST", want: cutOff, play: then(func(p *peer) {
			io.WriteString(p, mask(0x82, "half")[:7])
			p.SetLinger(0)
			p.Close()
		})},
		{name: "silence", play: silently, want: cutOff},

		{name: "v1: binary", request: v1, send: mask(0x82, "{}"), want: 1003},
		{name: "v1: too big", request: v1, send: mask(0x81, strings.Repeat(" ", 2*maxMessage+4<<10+1)), want: 1009},
		{name: "v1: deep", request: v1, send: mask(0x81, strings.Repeat("[", 2*maxMessage)) + goodbye(1000, ""), want: 1000},
		{name: "v1: deep data", request: v1, send: mask(0x81, `{"publish":{"data":`+strings.Repeat(`{"":`, 20_000)) + goodbye(1000, ""),
			want: 1000},
		{name: "v1: nothing, often", request: v1, send: strings.Repeat(mask(0x81, ""), 1000) + goodbye(1000, ""), want: 1000},
		{name: "v1: many in one", request: v1, send: mask(0x81, "["+strings.Repeat("0,", 50_000)+"0]") + goodbye(1000, ""), want: 1000},
		{name: "v1: nonsense without end", request: ratedV1, send: strings.Repeat(mask(0x81, "?"), 10_000), want: 1008},
	}
)

// rows are all.
func rows() []row {
	all := append(handshakes[:len(handshakes):len(handshakes)], frames...)
	for _, opcode := range []byte{3, 4, 5, 6, 7, 11, 12, 13, 14, 15} {
		all = append(all, row{name: fmt.Sprint("opcode ", opcode), send: mask(0x80|opcode, ""), want: 1002})
		all = append(all, row{name: fmt.Sprint("opcode ", opcode, " in a message"), want: 1002,
			send: mask(0x01, "x") + mask(0x80|opcode, "x")})
	}
	for _, code := range []uint16{0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, math.MaxUint16} {
		all = append(all, row{name: fmt.Sprint("close code ", code), send: goodbye(code, ""), want: 1002})
	}
	return all
}

// inParts makes frames of a message, of 100 bytes each.
func inParts(first byte, payload string) string {
	var b strings.Builder
	for len(payload) > 100 {
		b.WriteString(mask(first, payload[:100]))
		first, payload = 0, payload[100:]
	}
	b.WriteString(mask(first|0x80, payload))
	return b.String()
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
	if d := time.Since(from); d < 1500*time.Millisecond || d > 6*time.Second {
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

// TestHostile: whatever clients do, it ends as it should, at the latest a write_timeout later, though they do not help;
// and nothing of it is to be noticed by others, or is left.
func TestHostile(t *testing.T) {
	s := start(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	good, _, err := websocket.Dial(ctx, "ws://"+s.addr+"/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer good.CloseNow()
	publish := func(text string) {
		if _, err := s.do("POST", "/broadcast/publish", text); err != nil {
			t.Error(err)
		}
	}
	publish("first")
	if _, text, err := good.Read(ctx); err != nil || string(text) != "first" {
		t.Fatalf("the good client got %q and %v", text, err)
	}
	http.DefaultClient.CloseIdleConnections()
	heap, goroutines := heapSize(), runtime.NumGoroutine()

	var others, hostile sync.WaitGroup
	stop := make(chan struct{})
	published, got, peak := 0, 0, uint64(0)
	others.Go(func() {
		defer publish("last")
		for tick := time.NewTicker(time.Millisecond); ; published++ {
			select {
			case <-tick.C:
				publish(fmt.Sprint(published))
				peak = max(peak, heapNow())
			case <-stop:
				return
			}
		}
	})
	others.Go(func() {
		for ; ; got++ {
			_, text, err := good.Read(ctx)
			if string(text) == "last" {
				return
			}
			if err != nil || string(text) != fmt.Sprint(got) {
				t.Errorf("the good client got %q and %v, not %d", text, err, got)
				return
			}
		}
	})
	for _, r := range rows() {
		for way := range ways {
			if way == "whole" || r.send != "" && len(r.send) < 200 {
				// Not t.Parallel, which runs few at a time, while these mostly wait.
				hostile.Go(func() { t.Run(r.name+"/"+way, func(t *testing.T) { r.run(t, s, way) }) })
			}
		}
	}
	hostile.Wait()
	close(stop)
	others.Wait()
	if got != published {
		t.Errorf("the good client got %d messages of %d", got, published)
	}

	eventually(t, "the good client is alone", func() bool {
		body, err := s.do("GET", "/broadcast", "")
		var totals struct{ Connections, Channels, Backlog int }
		if err == nil {
			err = json.Unmarshal([]byte(body), &totals)
		}
		if err != nil {
			t.Fatal(err)
		}
		return totals.Connections == 1 && totals.Channels == 1 && totals.Backlog == 0
	})
	http.DefaultClient.CloseIdleConnections()
	eventually(t, "the goroutines are gone", func() bool { return runtime.NumGoroutine() <= goroutines+5 })
	if n := heapSize(); n > heap+8<<20 || peak > heap+128<<20 {
		t.Errorf("the heap was %d KiB, %d at most, and is %d", heap>>10, peak>>10, n>>10)
	}
	t.Logf("%d messages; heap %d KiB, %d at most, then %d; %d goroutines, then %d",
		published, heap>>10, peak>>10, heapSize()>>10, goroutines, runtime.NumGoroutine())
	log, err := os.ReadFile(s.log)
	if err != nil || len(log) == 0 {
		t.Errorf("the log has %d bytes: %v", len(log), err)
	}
	for line := range strings.Lines(string(log)) {
		if strings.Contains(line, "panic") {
			t.Error(line)
		}
	}
}

func heapSize() uint64 {
	runtime.GC()
	runtime.GC() // for what pools held
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// heapNow is what the heap has, with its garbage.
func heapNow() uint64 {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}
