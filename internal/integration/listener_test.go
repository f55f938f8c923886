package integration

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
)

// listener is a way to the site of TestListeners.
type listener struct {
	network, addr string
	secure        bool
	first         string // what a proxy sends before the client's bytes
}

// dial connects a WebSocket, which sends messages in the same packet as its handshake, and what a proxy sends before it.
// What listener wrappers look at and keep is therefore in what the server has read when it takes the connection over.
func (l listener) dial(t *testing.T, messages ...string) (net.Conn, *bufio.Reader) {
	t.Helper()
	c, err := net.Dial(l.network, l.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	var out bytes.Buffer
	if !l.secure {
		out.WriteString(l.first)
	} else {
		c.Write([]byte(l.first))
		c = tls.Client(c, &tls.Config{InsecureSkipVerify: true, ServerName: "localhost"})
	}
	out.WriteString("GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	for _, m := range messages {
		ws.WriteFrame(&out, ws.MaskFrame(ws.NewTextFrame([]byte(m))))
	}
	if _, err := c.Write(out.Bytes()); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(c)
	if resp, err := http.ReadResponse(r, nil); err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatal(resp, err)
	}
	return c, r
}

// waiting returns how many connections have a goroutine that waits for their client.
func waiting() int {
	buf := make([]byte, 8<<20)
	return strings.Count(string(buf[:runtime.Stack(buf, true)]), "socket.(*Socket).wait(")
}

// startListeners starts a site that is reached in all the ways that TestListeners tries.
func startListeners(t *testing.T) map[string]listener {
	dir, err := os.MkdirTemp("", "cb") // t.TempDir is too long for a socket's name
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	unix := filepath.Join(dir, "site")
	port := make(map[string]string)
	for _, name := range []string{"plain", "h1", "proxy", "tls", "proxytls", "redirect"} {
		port[name] = caddytest.FreePort(t)
	}
	config := strings.NewReplacer("PLAIN", port["plain"], "H1", port["h1"], "PROXYTLS", port["proxytls"], "PROXY", port["proxy"], "REDIRECT", port["redirect"],
		"SECURE", port["tls"], "UNIX", unix, "CERTIFICATE", caddytest.Certificate(t)).Replace(`auto_https off
		servers :H1 {
			protocols h1
		}
		servers :PROXY {
			protocols h1
			listener_wrappers {
				proxy_protocol {
					allow 127.0.0.0/8
				}
			}
		}
		servers :PROXYTLS {
			listener_wrappers {
				proxy_protocol {
					allow 127.0.0.0/8
				}
				tls
			}
		}
		servers :REDIRECT {
			listener_wrappers {
				http_redirect
				tls
			}
		}
		---
		broadcast /ws
	}
	http://localhost:PLAIN, http://localhost:H1, http://localhost:PROXY {
		broadcast /ws
	}
	http://localhost:7 {
		bind unix/UNIX
		broadcast /ws
	}
	https://localhost:SECURE, https://localhost:PROXYTLS, https://localhost:REDIRECT {
		CERTIFICATE
		broadcast /ws`)
	caddytest.Start(t, config)
	proxy := "PROXY TCP4 192.0.2.1 192.0.2.2 1234 80\r\n"
	tcp := func(name string, secure bool, first string) listener {
		return listener{"tcp", "127.0.0.1:" + port[name], secure, first}
	}
	return map[string]listener{
		"default":                 tcp("plain", false, ""),
		"protocols h1":            tcp("h1", false, ""),
		"proxy_protocol":          tcp("proxy", false, proxy),
		"unix":                    {"unix", unix, false, ""},
		"TLS":                     tcp("tls", true, ""),
		"proxy_protocol and TLS":  tcp("proxytls", true, proxy),
		"http_redirect and TLS":   tcp("redirect", true, ""),
		"proxy_protocol, but TLS": tcp("proxytls", true, ""),
	}
}

// TestListeners: however Caddy listens, clients need no goroutine, and what they send with their handshake arrives.
func TestListeners(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("there is no poller")
	}
	for name, l := range startListeners(t) {
		t.Run(name, func(t *testing.T) {
			var early []string
			for i := range 20 {
				early = append(early, fmt.Sprint(i, strings.Repeat(" early", 30*i)))
			}
			c, r := l.dial(t, early...)
			late := strings.Repeat("late ", 10_000)
			if err := ws.WriteFrame(c, ws.MaskFrame(ws.NewTextFrame([]byte(late)))); err != nil {
				t.Fatal(err)
			}
			for _, want := range append(early, late) {
				if _, data, err := nextFrame(r); err != nil || string(data) != want {
					t.Fatalf("%.30q instead of %.30q, %v", data, want, err)
				}
			}
			if n := waiting(); n > 0 {
				t.Errorf("%d goroutines wait for clients", n)
			}
			ws.WriteFrame(c, ws.MaskFrame(ws.NewCloseFrame(ws.NewCloseFrameBody(1000, ""))))
			if op, _, err := nextFrame(r); err != nil || op != ws.OpClose {
				t.Error(op, err)
			}
		})
	}
}

// nextFrame reads one frame.
func nextFrame(r io.Reader) (ws.OpCode, []byte, error) {
	h, err := ws.ReadHeader(r)
	if err != nil {
		return 0, nil, err
	}
	data := make([]byte, h.Length)
	_, err = io.ReadFull(r, data)
	return h.OpCode, data, err
}
