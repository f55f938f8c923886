package broadcast_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
	"github.com/coder/websocket"
	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
	"github.com/quic-go/quic-go/http3"
	"golang.org/x/net/http2"

	broadcast "github.com/caddy-broadcast/caddy-broadcast"
)

// TestMain keeps Caddy's files out of the home directory, and has WebSockets inside HTTP/2, which Go offers only with a
// setting that it reads before anything else.
func TestMain(m *testing.M) {
	if debug := os.Getenv("GODEBUG"); !strings.Contains(debug, "http2xconnect=1") {
		os.Setenv("GODEBUG", strings.TrimPrefix(debug+",http2xconnect=1", ","))
		if self, err := os.Executable(); err == nil {
			err = syscall.Exec(self, os.Args, os.Environ())
			fmt.Fprintln(os.Stderr, "without WebSockets inside HTTP/2:", err)
		}
	}
	if os.Getenv(asCaddy) != "" {
		caddycmd.Main()
		return
	}
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

// asCaddy is the variable that makes the test binary a Caddy, for tests that need a process.
const asCaddy = "CADDY_BROADCAST_TEST_AS_CADDY"

// server is Caddy, running in this process.
type server struct {
	t     testing.TB
	addr  string // host:port of the site
	admin string // of the admin API
	log   string // path of the log file
}

var nextPort = atomic.Int32{}

// freeAddr returns an address that nothing listens on. Its port is not one that the system gives to others meanwhile.
func freeAddr(t testing.TB) string {
	t.Helper()
	nextPort.CompareAndSwap(0, 10_000+int32(os.Getpid()*199%20_000)) // processes far apart
	for range 1000 {
		addr := fmt.Sprint("127.0.0.1:", nextPort.Add(1))
		if l, err := net.Listen("tcp", addr); err == nil {
			l.Close()
			return addr
		}
	}
	t.Fatal("no port is free")
	return ""
}

// start runs Caddy with a site's directives, or with a whole Caddyfile if it has braces of its own: ADDR, ADMIN and
// LOG stand for what the server gives.
func start(t testing.TB, config string) *server {
	t.Helper()
	s := &server{t: t, addr: freeAddr(t), admin: freeAddr(t), log: filepath.Join(t.TempDir(), "log")}
	if err := s.load(config); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := caddy.Stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// Only our own lines are at debug level: with the others' Caddy's TLS app emits events that race with its own start.
const frame = `{
	admin ADMIN
	persist_config off
	log {
		output file LOG
	}
	log ours {
		output file LOG
		level DEBUG
		include http.handlers.broadcast
	}
	GLOBAL
}
http://ADDR {
	SITE
}`

// load replaces the configuration. Lines of config above a line "---" are global options.
func (s *server) load(config string) error {
	s.t.Helper()
	global, site, ok := strings.Cut(config, "---")
	if !ok {
		global, site = "", config
	}
	config = strings.NewReplacer("GLOBAL", global, "SITE", site).Replace(frame)
	config = strings.NewReplacer("ADDR", s.addr, "ADMIN", s.admin, "LOG", s.log).Replace(config)
	cfg, err := adapt(config)
	if err != nil {
		return err
	}
	return caddy.Load(cfg, true)
}

func adapt(config string) ([]byte, error) {
	cfg, warnings, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(config), map[string]any{"filename": "Caddyfile"})
	if err == nil && len(warnings) > 0 && !strings.Contains(warnings[0].Message, "not formatted") {
		err = errors.New(warnings[0].String())
	}
	return cfg, err
}

// untilAnswered does what a client does whose connection was lost before it was answered: a listener that goes, the old
// configuration's or a refused one's, takes along those that wait in its queue.
func untilAnswered(ask func() error) (err error) {
	for range 10 {
		if err = ask(); !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, io.EOF) {
			break
		}
	}
	return err
}

// tryDial is for handshakes that may be refused.
func (s *server) tryDial(path string, o *websocket.DialOptions) (c *websocket.Conn, resp *http.Response, err error) {
	s.t.Helper()
	err = untilAnswered(func() (err error) {
		c, resp, err = websocket.Dial(s.t.Context(), "ws://"+s.addr+path, o)
		return err
	})
	return c, resp, err
}

func (s *server) dial(path string, o *websocket.DialOptions) *websocket.Conn {
	s.t.Helper()
	c, _, err := s.tryDial(path, o)
	if err != nil {
		s.t.Fatal(err)
	}
	c.SetReadLimit(-1)
	s.t.Cleanup(func() { c.CloseNow() })
	return c
}

func (s *server) send(c *websocket.Conn, text string) {
	s.t.Helper()
	if err := c.Write(s.t.Context(), websocket.MessageText, []byte(text)); err != nil {
		s.t.Fatal(err)
	}
}

// expect reads texts.
func (s *server) expect(c *websocket.Conn, texts ...string) {
	s.t.Helper()
	for _, want := range texts {
		_, got, err := c.Read(s.t.Context())
		if err != nil || string(got) != want {
			s.t.Fatalf("got %q and %v, not %q", got, err, want)
		}
	}
}

// expectClose reads until the connection is closed, which must be with the code.
func (s *server) expectClose(c *websocket.Conn, want websocket.StatusCode) {
	s.t.Helper()
	for {
		_, _, err := c.Read(s.t.Context())
		if err == nil {
			continue
		}
		if got := websocket.CloseStatus(err); got != want {
			s.t.Fatalf("closed with %v, not %v", err, want)
		}
		return
	}
}

// post sends a POST and returns the status and the body.
func (s *server) post(url, contentType, body string, header ...string) (int, string) {
	s.t.Helper()
	return s.do(http.MethodPost, url, body, append(header, "Content-Type", contentType)...)
}

func (s *server) do(method, url, body string, header ...string) (int, string) {
	s.t.Helper()
	r, err := http.NewRequest(method, "http://"+url, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	var resp *http.Response
	err = untilAnswered(func() (err error) {
		r.Body, _ = r.GetBody()
		resp, err = http.DefaultClient.Do(r)
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	p, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp.StatusCode, string(p)
}

type totals struct {
	Connections, Channels int
	Messages, Deliveries  uint64
	Seq, Bytes, Writes    uint64
	Backlog               int64
	Uptime                float64
	ID                    string
	DeliveredBytes        uint64 `json:"delivered_bytes"`
	History               int
	HistoryBytes          int `json:"history_bytes"`
}

func (s *server) totals() (v totals) {
	s.t.Helper()
	status, body := s.do(http.MethodGet, s.admin+"/broadcast", "")
	d := json.NewDecoder(strings.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); status != 200 || err != nil {
		s.t.Fatalf("GET /broadcast: %d %s %v", status, body, err)
	}
	return v
}

func (s *server) waitTotals(done func(totals) bool) {
	s.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		v := s.totals()
		if done(v) {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("it does not come: %+v", v)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestOneLine(t *testing.T) {
	s := start(t, `broadcast /ws
		respond "the page"`)
	a, b := s.dial("/ws", nil), s.dial("/ws", nil)
	s.send(a, "hello")
	s.expect(a, "hello")
	s.expect(b, "hello")
	if err := b.Write(t.Context(), websocket.MessageBinary, []byte{0, 0xff}); err != nil {
		t.Fatal(err)
	}
	if kind, got, err := a.Read(t.Context()); err != nil || kind != websocket.MessageBinary || string(got) != "\x00\xff" {
		t.Fatalf("binary: %v %q %v", kind, got, err)
	}
	s.expect(b, "\x00\xff")

	if status, body := s.do("GET", s.addr+"/ws", ""); status != 200 || body != "the page" {
		t.Errorf("a plain GET does not go to the next handler: %d %q", status, body)
	}
	if status, body := s.do("PUT", s.addr+"/ws", "x"); status != 200 || body != "the page" {
		t.Errorf("a PUT does not go to the next handler: %d %q", status, body)
	}
	a.Close(websocket.StatusNormalClosure, "")
	s.waitTotals(func(v totals) bool { return v.Connections == 1 })
	v := s.totals()
	if v.Messages != 2 || v.Bytes != 7 || v.Channels != 1 || v.Deliveries != 4 || v.DeliveredBytes != 22 || !strings.HasSuffix(v.ID, "-2") {
		t.Errorf("totals: %+v", v)
	}
}

func TestQuickstart(t *testing.T) {
	config, err := os.ReadFile("examples/quickstart/Caddyfile")
	if err != nil {
		t.Fatal(err)
	}
	body := string(config)
	body = body[strings.Index(body, "{")+1 : strings.LastIndex(body, "}")]
	s := start(t, body)
	status, page := s.do("GET", s.addr+"/", "")
	if status != 200 || !strings.Contains(page, "new WebSocket(") {
		t.Fatalf("the page: %d %.200q", status, page)
	}
	if regexp.MustCompile(`(src|href)="https?:`).MatchString(page) {
		t.Error("the page loads things from elsewhere")
	}
	c := s.dial("/ws", nil)
	if status, body := s.post(s.admin+"/broadcast/publish", "application/x-www-form-urlencoded", "hello"); status != 200 {
		t.Fatal(status, body)
	}
	s.expect(c, "hello")
}

// TestEveryMessageOnce is the promise: whoever publishes, in whatever way, every connection sees its channels'
// messages once, all in the same order, and none of another channel.
func TestEveryMessageOnce(t *testing.T) {
	s := start(t, `broadcast /all a b c
		broadcast /own/* {path.1}
		broadcast /both/* {path.1} b {
			compression on 1
		}`)
	const each, readers = 250, 100
	paths := []string{"/all", "/own/a", "/own/b", "/own/c", "/both/a", "/both/c"}
	channels := []string{"abc", "a", "b", "c", "ab", "bc"}
	got := make([][]string, readers)
	var reading, publishing sync.WaitGroup
	for i := range readers {
		o := &websocket.DialOptions{}
		if i%2 == 0 {
			o.CompressionMode = websocket.CompressionNoContextTakeover
		}
		c := s.dial(paths[i%len(paths)], o)
		reading.Go(func() {
			var left int // the channels that have not ended
			for range channels[i%len(paths)] {
				left++
			}
			for left > 0 {
				_, p, err := c.Read(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				if strings.HasSuffix(string(p), "end") {
					left--
				}
				got[i] = append(got[i], string(p))
			}
		})
	}
	// Two publish on sockets, one by POST, one by the admin API, each on a channel and then the next.
	sent := make([]map[string][]string, 4)
	for p := range sent {
		sent[p] = make(map[string][]string)
		sockets := make(map[byte]*websocket.Conn)
		for _, ch := range []byte("abc") {
			c := s.dial("/own/"+string(ch), nil)
			sockets[ch] = c
			go func() { // takes its echoes
				for {
					if _, _, err := c.Read(t.Context()); err != nil {
						return
					}
				}
			}()
		}
		publishing.Go(func() {
			for i := range each {
				ch := "abc"[(i+p)%3]
				m := fmt.Sprintf("%c %d %d", ch, p, i)
				sent[p][string(ch)] = append(sent[p][string(ch)], m)
				switch p {
				case 0, 1:
					if err := sockets[ch].Write(t.Context(), websocket.MessageText, []byte(m)); err != nil {
						t.Error(err)
					}
				case 2:
					if status, body := s.post(s.addr+"/own/"+string(ch), "text/plain", m); status != 200 {
						t.Error(status, body)
					}
				case 3:
					if status, body := s.post(s.admin+"/broadcast/publish?channel="+string(ch), "text/plain", m); status != 200 {
						t.Error(status, body)
					}
				}
			}
		})
	}
	publishing.Wait()
	s.waitTotals(func(v totals) bool { return v.Messages == 4*each })
	for _, ch := range "abc" {
		s.post(s.admin+"/broadcast/publish?channel="+string(ch), "text/plain", fmt.Sprintf("%c end", ch))
	}
	reading.Wait()

	all := got[0]
	if len(all) != 4*each+3 {
		t.Fatalf("%d messages, not %d", len(all), 4*each+3)
	}
	for p := range sent { // what one publisher sent on one channel keeps its order
		for ch, want := range sent[p] {
			var have []string
			for _, m := range all {
				if strings.HasPrefix(m, fmt.Sprintf("%s %d ", ch, p)) {
					have = append(have, m)
				}
			}
			if p > 1 && !slices.Equal(have, want) || len(have) != len(want) {
				t.Errorf("publisher %d on %s: %v, not %v", p, ch, have, want)
			}
		}
	}
	for i := range got {
		var want []string
		for _, m := range all {
			if strings.Contains(channels[i%len(paths)], m[:1]) {
				want = append(want, m)
			}
		}
		if !slices.Equal(got[i], want) {
			t.Fatalf("connection %d on %s got %d messages, not %d, or in another order", i, paths[i%len(paths)], len(got[i]), len(want))
		}
	}
}

// TestSlowClient: a client that does not read delays nobody, costs no more than its backlog, and is closed with 1013.
func TestSlowClient(t *testing.T) {
	t.Run("plain", func(t *testing.T) { testSlowClient(t, false) })
	t.Run("TLS", func(t *testing.T) { testSlowClient(t, true) })
}

func testSlowClient(t *testing.T, secure bool) {
	_, port, _ := net.SplitHostPort(freeAddr(t))
	const route = `broadcast /ws {
		max_message 1MiB
		max_backlog 1MiB
	}`
	s := start(t, `auto_https off
		---
		`+route+`
	}
	https://localhost:`+port+` {
		`+certificate(t)+`
		`+route)
	url := "ws://" + s.addr + "/ws"
	if secure {
		url = "wss://localhost:" + port + "/ws"
	}
	dialer := ws.Dialer{TLSConfig: &tls.Config{InsecureSkipVerify: true}}
	slow, _, _, err := dialer.Dial(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	quick := s.dial("/ws", nil)
	data := strings.Repeat("x", 256<<10)
	for n, subscribers := 0, 2; subscribers == 2; n++ {
		if n == 400 {
			t.Fatal("the slow one is never given up")
		}
		status, body := s.post(s.admin+"/broadcast/publish", "text/plain", data)
		if status != 200 {
			t.Fatal(status, body)
		}
		var answer struct{ Subscribers int }
		if err := json.Unmarshal([]byte(body), &answer); err != nil {
			t.Fatal(err)
		}
		subscribers = answer.Subscribers
		s.expect(quick, data)
		if v := s.totals(); v.Backlog > 2<<20 {
			t.Fatalf("the backlog is %d bytes", v.Backlog)
		}
	}
	for {
		h, err := ws.ReadHeader(slow)
		if err != nil {
			t.Fatal(err)
		}
		if h.OpCode != ws.OpClose {
			if _, err := io.CopyN(io.Discard, slow, h.Length); err != nil {
				t.Fatal(err)
			}
			continue
		}
		p := make([]byte, h.Length)
		if _, err := io.ReadFull(slow, p); err != nil {
			t.Fatal(err)
		}
		if code, text := ws.ParseCloseFrameData(p); code != 1013 {
			t.Fatalf("closed with %d %s", code, text)
		}
		break
	}
	slow.Close()
	s.waitTotals(func(v totals) bool { return v.Connections == 1 && v.Backlog == 0 })
}

// TestComeAndGo leaves no goroutine, channel or count behind.
func TestComeAndGo(t *testing.T) {
	s := start(t, `broadcast /ws/* {path.1}`)
	warm := s.dial("/ws/warm", nil)
	warm.CloseNow()
	s.waitTotals(func(v totals) bool { return v.Connections == 0 })
	http.DefaultClient.CloseIdleConnections()
	before := runtime.NumGoroutine()

	n := 10_000
	if testing.Short() {
		n = 1000
	}
	done := make(chan struct{})
	var publishing, wg sync.WaitGroup
	publishing.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				s.post(s.admin+"/broadcast/publish?channel=0", "text/plain", "x")
			}
		}
	})
	for w := range 8 {
		wg.Go(func() {
			for i := range n / 8 {
				c, _, _, err := ws.Dial(t.Context(), fmt.Sprintf("ws://%s/ws/%d", s.addr, w*(i%7)))
				if err != nil {
					t.Error(err)
					return
				}
				switch i % 3 {
				case 0: // says goodbye and hears it
					wsutil.WriteClientMessage(c, ws.OpClose, ws.NewCloseFrameBody(1000, ""))
					io.Copy(io.Discard, c)
				case 1: // resets
					c.(*net.TCPConn).SetLinger(0)
				}
				c.Close()
			}
		})
	}
	wg.Wait()
	close(done)
	publishing.Wait()
	s.waitTotals(func(v totals) bool { return v.Connections == 0 && v.Channels == 0 && v.Backlog == 0 })
	http.DefaultClient.CloseIdleConnections()
	for deadline := time.Now().Add(20 * time.Second); runtime.NumGoroutine() > before; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			buf := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, before %d\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
		}
	}
}

// TestReload: connections outlive a change of the configuration, and lose nothing; without the module they are told.
func TestReload(t *testing.T) {
	s := start(t, `broadcast /ws`)
	a, b := s.dial("/ws", nil), s.dial("/ws", nil)
	id := s.totals().ID
	for i := range 5 {
		if err := s.load(fmt.Sprintf("broadcast {\n max_channels %d\n}\n---\nheader X-Round %d\nbroadcast /ws", 10+i, i)); err != nil {
			t.Fatal(err)
		}
		s.send(a, fmt.Sprint("round ", i))
		s.expect(b, fmt.Sprint("round ", i))
	}
	if now := s.totals().ID; strings.Split(now, "-")[0] != strings.Split(id, "-")[0] {
		t.Errorf("another hub: %s, then %s", id, now)
	}
	if err := s.load("broadcast /ws {\n origins ://\n}"); err == nil {
		t.Error("a bad configuration was loaded")
	}
	s.send(a, "still here")
	s.expect(b, "still here")

	if err := s.load(`respond "no more"`); err != nil {
		t.Fatal(err)
	}
	s.expectClose(b, websocket.StatusServiceRestart)
	if status, body := s.do("GET", s.admin+"/broadcast", ""); status != 404 {
		t.Errorf("the admin API without the module: %d %s", status, body)
	}
}

func TestOptions(t *testing.T) {
	s := start(t, `broadcast /read {
			publish off
		}
		broadcast /write {
			subscribe off
			greeting "you may write"
		}
		broadcast /quiet {
			echo off
			max_message 100B
			user {query.name}
			greeting "hello {query.greet} on {http.request.uri.path}"
		}
		broadcast /post {
			transports post
		}
		broadcast /socket {
			transports websocket
			origins https://app.example.com
		}
		broadcast /room/* news {path.1}
		broadcast /query {query.q}
		respond "next"`)
	read, write, quiet := s.dial("/read", nil), s.dial("/write", nil), s.dial("/quiet?name=Ann&greet=Ann%ff", nil)
	s.expect(write, "you may write")
	s.expect(quiet, "hello Ann\uFFFD on /quiet")
	other := s.dial("/quiet", nil)
	s.expect(other, "hello  on /quiet")

	s.send(quiet, "one")
	s.expect(read, "one")
	s.send(write, "two")
	s.expect(read, "two")
	s.expect(quiet, "two")
	s.expect(other, "one", "two")
	s.send(read, "I may not")
	s.expectClose(read, websocket.StatusPolicyViolation)
	s.send(quiet, strings.Repeat("x", 100))
	s.expect(other, strings.Repeat("x", 100))
	s.send(quiet, strings.Repeat("x", 101))
	s.expectClose(quiet, websocket.StatusMessageTooBig)

	both := s.dial("/room/7", nil)
	s.send(both, "on the first channel")
	s.expect(both, "on the first channel")
	long := strings.Repeat("x", 255)
	for _, c := range []struct {
		path, body, header string
		status             int
		answer             string
	}{
		{"/read", "x", "", 403, ""},
		{"/quiet", strings.Repeat("x", 101), "", 413, ""},
		{"/quiet", "\xff", "", 400, ""},
		{"/quiet", "\xff", "Content-Type: application/octet-stream", 200, `{"id":"*-*"}`},
		{"/quiet", "x", "Content-Type: a b", 400, ""},
		{"/quiet", "x", "Idempotency-Key: " + long + "x", 400, ""},
		{"/room/7", "data=x&channel=8", "Content-Type: application/x-www-form-urlencoded", 403, ""},
		{"/room/7", "data=to%207%0aby+form&channel=7&event=e", "Content-Type: application/x-www-form-urlencoded", 200, `{"id":"*-*"}`},
		{"/room/7", "no data=field", "Content-Type: application/x-www-form-urlencoded", 200, `{"id":"*-*"}`},
		{"/quiet?event=a%0ab", "x", "", 400, ""},
		{"/quiet", "x", "Origin: https://evil.example", 403, ""},
		{"/quiet", "x", "Origin: http://" + s.addr, 200, `{"id":"*-*"}`},
		{"/socket", "x", "", 200, "next"},
		{"/post", "x", "", 200, `{"id":"*-*"}`},
		{"/room/7?channel=7", "to 7", "", 200, `{"id":"*-*"}`},
		{"/room/7?channel=news", "to news", "", 200, `{"id":"*-*"}`},
		{"/room/7?channel=8", "to 8", "", 403, ""},
		{"/room/", "x", "", 400, ""},
		{"/query", "x", "", 400, ""},
		{"/query?q=" + long, "x", "", 200, `{"id":"*-*"}`},
		{"/query?q=" + long + "x", "x", "", 400, ""},
		{"/query?q=%ff", "x", "", 400, ""},
		{"/query?q=a%00", "x", "", 400, ""},
	} {
		name, value, _ := strings.Cut(c.header, ": ")
		var header []string
		if name != "" {
			header = []string{name, value}
		}
		status, answer := s.do("POST", s.addr+c.path, c.body, header...)
		answer = regexp.MustCompile(`"\w+-\d+"`).ReplaceAllString(strings.TrimSpace(answer), `"*-*"`)
		if status != c.status || answer != c.answer {
			t.Errorf("POST %.40s %s: %d %q, not %d %q", c.path, c.header, status, answer, c.status, c.answer)
		}
	}
	s.expect(both, "to 7\nby form", "no data=field", "to 7", "to news")
	_, first := s.post(s.addr+"/room/7", "text/plain", "once", "Idempotency-Key", "k")
	_, second := s.post(s.addr+"/room/7", "text/plain", "once", "Idempotency-Key", "k")
	if status, answer := s.post(s.addr+"/room/7", "text/plain", "once more", "Idempotency-Key", "k"); status != 422 {
		t.Errorf("another message with the key: %d %s", status, answer)
	}
	if _, admin := s.post(s.admin+"/broadcast/publish?channel=news", "text/plain", "by admin", "Idempotency-Key", "k"); admin == first {
		t.Error("the admin API shares the clients' keys")
	}
	_, other7 := s.post(s.addr+"/room/7?channel=7", "text/plain", "another", "Idempotency-Key", "k")
	if first != second || first == other7 {
		t.Errorf("with a key: %s, then %s, on another channel %s", first, second, other7)
	}
	s.expect(both, "once", "by admin", "another")

	for _, c := range []struct {
		path, origin string
		status       int
	}{
		{"/socket", "https://app.example.com", 101},
		{"/socket", "https://evil.example", 403},
		{"/socket", "http://" + s.addr, 101},
		{"/query", "", 400},
		{"/post", "", 200},
	} {
		o := &websocket.DialOptions{HTTPHeader: http.Header{}}
		if c.origin != "" {
			o.HTTPHeader.Set("Origin", c.origin)
		}
		conn, resp, err := websocket.Dial(t.Context(), "ws://"+s.addr+c.path, o)
		if resp == nil || resp.StatusCode != c.status {
			t.Errorf("GET %s from %s: %v %v, not %d", c.path, c.origin, resp, err, c.status)
		}
		if conn != nil {
			conn.CloseNow()
		}
	}
}

func TestLimits(t *testing.T) {
	s := start(t, `broadcast {
			max_connections 2
			max_channels 2
		}
		---
		broadcast /ws/* {path.1}
		handle_errors {
			respond "sorry: {err.message}" {err.status_code}
		}`)
	s.dial("/ws/a", nil)
	refused := func(path string) {
		t.Helper()
		_, resp, err := s.tryDial(path, nil)
		if err == nil || resp == nil || resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" {
			t.Fatalf("over a limit: %v %v", resp, err)
		}
		if body, _ := io.ReadAll(resp.Body); !strings.HasPrefix(string(body), "sorry: too many") {
			t.Errorf("handle_errors did not run: %q", body)
		}
	}
	b := s.dial("/ws/b", nil)
	refused("/ws/a")
	b.CloseNow()
	s.waitTotals(func(v totals) bool { return v.Connections == 1 && v.Channels == 1 })
	if err := s.load("broadcast {\nmax_channels 1\n}\n---\nbroadcast /ws/* {path.1}\nhandle_errors {\nrespond \"sorry: {err.message}\" {err.status_code}\n}"); err != nil {
		t.Fatal(err)
	}
	refused("/ws/b")
	s.dial("/ws/a", nil)
	s.expectMetrics(`refused_total{limit="connections"} 1`, `refused_total{limit="channels"} 1`, `refused_total{limit="memory"} 0`)
}

// TestEvents: what becomes of connections is emitted, in order, and Caddy's events can be published.
func TestEvents(t *testing.T) {
	s := start(t, `events {
			on broadcast.subscribed broadcast ops
			on broadcast.unsubscribed broadcast ops
			on broadcast.closed broadcast ops
			on cert_obtained broadcast {event.data.identifier}
		}
		---
		broadcast /ws/* {path.1} {
			user {query.user}
			join room:*
		}`)
	_, next := s.stream("http://" + s.admin + "/broadcast/stream?channel=ops&channel=example.com")
	next()
	next()
	type event struct {
		Channel, Event string
		Data           struct {
			Type, Source string
			Data         map[string]any
		}
	}
	var waiting []event
	expect := func(name, channels string, more ...string) {
		t.Helper()
		if len(waiting) == 0 {
			_, frame, _ := strings.Cut(next(), "data: ")
			if err := json.Unmarshal([]byte(frame), &waiting); err != nil {
				t.Fatalf("%q: %v", frame, err)
			}
		}
		e := waiting[0]
		waiting = waiting[1:]
		d := e.Data.Data
		got := ""
		if names, ok := d["channels"].([]any); ok {
			got = fmt.Sprint(names...)
		}
		if e.Event != name || e.Data.Type != name || e.Data.Source != "broadcast" || got != channels || d["user"] != "ann" || d["remote"] != "127.0.0.1" ||
			d["transport"] != "websocket" || !strings.HasPrefix(fmt.Sprint(d["connection"]), "c") {
			t.Errorf("not %s of %s: %+v", name, channels, e)
		}
		for i := 0; i < len(more); i += 2 {
			if fmt.Sprint(d[more[i]]) != more[i+1] {
				t.Errorf("%s: %s is %v", name, more[i], d[more[i]])
			}
		}
	}
	c := s.dial("/ws/news?user=ann", &websocket.DialOptions{Subprotocols: []string{"broadcast.v1"}})
	expect("broadcast.subscribed", "news")
	s.send(c, `{"join":{"channel":"room:7"},"ref":1}`)
	expect("broadcast.subscribed", "room:7")
	s.send(c, `{"leave":{"channel":"news"},"ref":1}`)
	expect("broadcast.unsubscribed", "news")
	c.CloseNow()
	expect("broadcast.unsubscribed", "room:7")
	expect("broadcast.closed", "", "reason", "client")

	active := caddy.ActiveContext()
	app, err := active.AppIfConfigured("events")
	if err != nil {
		t.Fatal(err)
	}
	if len(waiting) > 0 {
		t.Errorf("more events: %+v", waiting)
	}
	app.(*caddyevents.App).Emit(active, "cert_obtained", map[string]any{"identifier": "example.com"})
	if got := next(); !strings.Contains(got, `"channel":"example.com","event":"cert_obtained"`) || !strings.Contains(got, `"specversion":"1.0"`) {
		t.Errorf("the event is %s", got)
	}
	s.expectMetrics(`published_total{source="event"} 6`, "events_dropped_total 0")
}

// slowHandler is a handler of events that holds them up.
type slowHandler struct{}

func (slowHandler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "events.handlers.slow", New: func() caddy.Module { return new(slowHandler) }}
}
func (slowHandler) UnmarshalCaddyfile(*caddyfile.Dispenser) error   { return nil }
func (slowHandler) Handle(ctx context.Context, _ caddy.Event) error { <-ctx.Done(); return nil }

func init() { caddy.RegisterModule(slowHandler{}) }

// TestSlowEventHandlers hold up nobody: events are dropped, and counted.
func TestSlowEventHandlers(t *testing.T) {
	s := start(t, `events {
			on broadcast.subscribed slow
			on broadcast.unsubscribed slow
			on broadcast.closed slow
		}
		---
		broadcast /ws`)
	for range 400 {
		c := s.dial("/ws", nil)
		s.send(c, "hello")
		s.expect(c, "hello")
		c.CloseNow()
	}
	s.waitTotals(func(v totals) bool { return v.Connections == 0 })
	s.expectMetrics(fmt.Sprint("events_dropped_total ", 3*400-1-1024))
}

// TestReplay: a new subscriber gets the last messages, then those that come. The bounds apply to what is kept already.
func TestReplay(t *testing.T) {
	config := func(global string) string {
		return "broadcast {\n" + global + "\n}\n---\nbroadcast /ws/* {path.1} news {\nreplay 3\ngreeting hello\n}\nbroadcast /live news"
	}
	s := start(t, config("history 10 1h\nhistory_bytes 1MiB"))
	for i, channel := range []string{"a", "news", "b", "a", "news", "a"} {
		s.post(s.admin+"/broadcast/publish?channel="+channel, "text/plain", fmt.Sprint(channel, i))
	}
	if v := s.totals(); v.History != 6 || v.HistoryBytes < 6*2 || v.Channels != 0 {
		t.Errorf("kept: %+v", v)
	}
	a, b, live := s.dial("/ws/a", nil), s.dial("/ws/b", nil), s.dial("/live", nil)
	s.post(s.admin+"/broadcast/publish?channel=news", "text/plain", "now")
	s.expect(a, "hello", "a3", "news4", "a5", "now")
	s.expect(b, "hello", "news1", "b2", "news4", "now")
	s.expect(live, "now")
	if err := s.load(config("history 1")); err != nil {
		t.Fatal(err)
	}
	s.expect(s.dial("/ws/a", nil), "hello", "a5", "now")
	if err := s.load(config("")); err != nil {
		t.Fatal(err)
	}
	if v := s.totals(); v.History != 0 || v.HistoryBytes != 0 {
		t.Errorf("kept, with history off: %+v", v)
	}
}

// stream opens an event stream and returns what it says after its head, a block at a time.
func (s *server) stream(url string, header ...string) (resp *http.Response, next func() string) {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), "GET", url, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	r.Header.Set("Accept", "text/event-stream")
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true, DisableCompression: true,
	}}
	s.t.Cleanup(client.CloseIdleConnections)
	err = untilAnswered(func() (err error) {
		resp, err = client.Do(r)
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { resp.Body.Close() })
	in := bufio.NewReader(resp.Body)
	return resp, func() (block string) {
		s.t.Helper()
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				return err.Error()
			}
			if line == "\n" {
				return block
			}
			block += line
		}
	}
}

func (s *server) publish(query, body string) (id string) {
	s.t.Helper()
	status, answer := s.post(s.admin+"/broadcast/publish?"+query, "text/plain", body)
	var v struct{ ID string }
	if err := json.Unmarshal([]byte(answer), &v); status != 200 || err != nil {
		s.t.Fatal(status, answer)
	}
	return v.ID
}

func TestEventStreams(t *testing.T) {
	_, port, _ := net.SplitHostPort(freeAddr(t))
	s := start(t, `broadcast {
			history 100
		}
		auto_https off
		---
		log
		encode
		header X-Early yes
		header >X-Late yes
		broadcast /events news sport {
			origins https://app.example.com
		}
		broadcast /last news {
			replay 2
		}
		broadcast /any {
			origins *
		}
		broadcast /publish {
			subscribe off
		}
		broadcast /sockets {
			transports websocket post
		}
		respond next
	}
	https://localhost:`+port+` {
		`+certificate(t)+`
		broadcast /events news sport`)
	site, secure := "http://"+s.addr, "https://localhost:"+port
	first := s.publish("channel=news", "before")

	retry := regexp.MustCompile(`^retry: [1-5]\d\d\d\n$`)
	var streams []func() string
	for _, c := range []struct {
		url    string
		header []string
		major  int
	}{
		{site + "/events", nil, 1},
		{site + "/events", []string{"Accept-Encoding", "gzip"}, 1},
		{secure + "/events", nil, 2},
	} {
		resp, next := s.stream(c.url, c.header...)
		h := resp.Header
		if resp.StatusCode != 200 || resp.ProtoMajor != c.major || h.Get("Content-Type") != "text/event-stream" || h.Get("Content-Encoding") != "" ||
			h.Get("Cache-Control") != "no-store, no-transform" || c.major == 1 && (h.Get("X-Early") != "yes" || h.Get("X-Late") != "yes") ||
			h.Get("Server") != "Caddy" || len(resp.TransferEncoding) > 0 {
			t.Errorf("%s: %s %v %v", c.url, resp.Proto, resp.Status, h)
		}
		if got := next(); !retry.MatchString(got) {
			t.Errorf("%s begins with %q", c.url, got)
		}
		if got := next(); got != "id: "+first+"\n" {
			t.Errorf("%s goes on with %q", c.url, got)
		}
		streams = append(streams, next)
	}
	second := s.publish("channel=sport&event=goal", "one\ntwo")
	third := s.publish("channel=news", "")
	s.publish("channel=other", "")
	fourth := s.publish("channel=news", strings.Repeat("x", 100_000))
	blocks := []string{
		"id: " + second + "\nevent: goal\ndata: one\ndata: two\n",
		"id: " + third + "\ndata: \n",
		"id: " + fourth + "\ndata: " + strings.Repeat("x", 100_000) + "\n",
	}
	for i, next := range streams {
		for _, want := range blocks {
			if got := next(); got != want {
				t.Fatalf("stream %d: got %.100q, not %.100q", i, got, want)
			}
		}
	}
	for _, c := range []struct {
		url    string
		header []string
		want   []string
	}{
		{site + "/events", []string{"Last-Event-ID", second}, append([]string{"id: " + second + "\n"}, blocks[1:]...)},
		{site + "/events?last_id=" + second, nil, blocks[1:]},
		{site + "/events?last_id=" + first, []string{"Last-Event-ID", third}, blocks[2:]},
		{site + "/events", []string{"Last-Event-ID", "nonsense"}, []string{"event: gap\nid: " + fourth + "\ndata: {\"channels\":[\"news\",\"sport\"],\"id\":\"" + fourth + "\"}\n"}},
		{secure + "/events", []string{"Last-Event-ID", first}, blocks},
		{site + "/last", nil, []string{blocks[1], blocks[2]}},
	} {
		_, next := s.stream(c.url, c.header...)
		next() // retry
		for i, want := range c.want {
			got := next()
			if i == 0 && strings.HasPrefix(got, "id: ") && !strings.Contains(got, "data") && got != want {
				got = next() // the position
			}
			if got != want {
				t.Errorf("%s %q: got %.100q, not %.100q", c.url, c.header, got, want)
			}
		}
	}

	for _, c := range []struct {
		path, origin string
		status       int
		allow        string
		credentials  string
	}{
		{"/events", "", 200, "", ""},
		{"/events", site, 200, "", ""},
		{"/events", "https://app.example.com", 200, "https://app.example.com", "true"},
		{"/events", "https://evil.example", 403, "", ""},
		{"/any", "https://evil.example", 200, "*", ""},
		{"/publish", "", 403, "", ""},
		{"/sockets", "", 200, "", ""},
	} {
		var header []string
		if c.origin != "" {
			header = []string{"Origin", c.origin}
		}
		resp, next := s.stream(site+c.path, header...)
		if resp.StatusCode != c.status || resp.Header.Get("Access-Control-Allow-Origin") != c.allow || resp.Header.Get("Access-Control-Allow-Credentials") != c.credentials {
			t.Errorf("%s from %q: %s %v", c.path, c.origin, resp.Status, resp.Header)
		}
		if c.path == "/sockets" && next() != "EOF" {
			t.Error("an event stream on a route without")
		}
		resp.Body.Close()
	}
	for origin, want := range map[string]int{"https://app.example.com": 204, "https://evil.example": 403} {
		if status, _ := s.do("OPTIONS", s.addr+"/events", "", "Origin", origin, "Access-Control-Request-Method", "POST"); status != want {
			t.Errorf("a preflight from %s: %d", origin, status)
		}
	}
	if status, body := s.do("OPTIONS", s.addr+"/events", ""); status != 200 || body != "next" {
		t.Errorf("OPTIONS: %d %s", status, body)
	}

	// Streams stay through a reload, and end with the hub.
	last := s.publish("channel=news", "last")
	for i, next := range streams {
		if got := next(); got != "id: "+last+"\ndata: last\n" {
			t.Errorf("stream %d: %q", i, got)
		}
	}
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	for i, next := range streams {
		if got := next(); !retry.MatchString(got) {
			t.Errorf("stream %d ends with %q", i, got)
		}
		if got := next(); got != "EOF" {
			t.Errorf("stream %d: %q after its end", i, got)
		}
	}
	if log, _ := os.ReadFile(s.log); bytes.Contains(log, []byte("panic")) || bytes.Contains(log, []byte("superfluous")) {
		t.Errorf("the log: %s", log)
	}
}

// TestV1 speaks broadcast.v1.
func TestV1(t *testing.T) {
	s := start(t, `broadcast {
			history 100
			max_channels 5
		}
		---
		broadcast /ws news {
			join room:* {query.me}:*
			user {query.me}
			greeting "not for these"
			max_message 1000
		}
		broadcast /read news {
			publish off
		}
		broadcast /quiet news {
			echo off
			join *
		}`)
	dial := func(path string) *websocket.Conn {
		return s.dial(path, &websocket.DialOptions{Subprotocols: []string{"x", "broadcast.v1"}})
	}
	// read reads a frame, with IDs and the connection's number made alike.
	ids := make(map[string]int)
	read := func(c *websocket.Conn) string {
		t.Helper()
		_, p, err := c.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		text := regexp.MustCompile(`[A-Z2-7]{8}-\d+`).ReplaceAllStringFunc(string(p), func(id string) string {
			if _, ok := ids[id]; !ok {
				ids[id] = len(ids)
			}
			return fmt.Sprint("id", ids[id])
		})
		return regexp.MustCompile(`"connection":"c\d+"`).ReplaceAllString(text, `"connection":"c"`)
	}
	talk := func(c *websocket.Conn, send string, want ...string) {
		t.Helper()
		if send != "" {
			s.send(c, send)
		}
		for _, w := range want {
			if got := read(c); got != w {
				t.Fatalf("after %s: got %s, not %s", send, got, w)
			}
		}
	}
	hello := func(id string, resumed bool) string {
		return fmt.Sprintf(`[{"hello":{"connection":"c","channels":["news"],"id":"%s","resumed":%v,"heartbeat":25}}]`, id, resumed)
	}
	c := dial("/ws?me=ann")
	talk(c, "", hello("id0", false))
	talk(c, `{"publish":{"data":{"a":[1,null]},"event":"e"},"ref":1}`,
		`[{"id":"id1","channel":"news","event":"e","data":{"a":[1,null]}}]`, `[{"ack":{"ref":1,"id":"id1"}}]`)
	talk(c, `{"publish":{"data":"text\n\"","channel":"news"}}`, `[{"id":"id2","channel":"news","data":"text\n\""}]`)
	talk(c, `{"publish":{"data":"AP8=","encoding":"base64"},"ref":"x"}`,
		`[{"id":"id3","channel":"news","data":"AP8=","encoding":"base64"}]`, `[{"ack":{"ref":"x","id":"id3"}}]`)
	talk(c, `{"join":{"channel":"room:7"},"ref":2}`, `[{"ack":{"ref":2,"channel":"room:7","id":"id3","resumed":false}}]`)
	talk(c, `[{"publish":{"channel":"room:7","data":1,"key":"k"},"ref":3}, {"publish":{"channel":"room:7","data":1,"key":"k"},"ref":4}, {"publish":{"channel":"room:7","data":2,"key":"k"},"ref":5}]`,
		`[{"id":"id4","channel":"room:7","data":1}]`,
		`[{"ack":{"ref":3,"id":"id4"}},{"ack":{"ref":4,"id":"id4"}},{"error":{"ref":5,"code":"conflict","message":"the idempotency key is that of another message"}}]`)
	talk(c, `{"leave":{"channel":"room:7"},"ref":6}`, `[{"ack":{"ref":6}}]`)
	s.publish("channel=room:7", "not for c")
	talk(c, `{"join":{"channel":"ann:x"}}`, `[{"ack":{"channel":"ann:x","id":"id5","resumed":false}}]`)
	s.publish("channel=room:7", "nor this")
	talk(c, fmt.Sprintf(`{"join":{"channel":"room:7","last_id":"%s"}}`, idOf(ids, 4)),
		`[{"ack":{"channel":"room:7","id":"id4","resumed":true}},{"id":"id5","channel":"room:7","data":"not for c"},{"id":"id6","channel":"room:7","data":"nor this"}]`)
	talk(c, `{"leave":{"channel":"room:7"},"ref":7}`, `[{"ack":{"ref":7}}]`)
	talk(c, `{"join":{"channel":"room:7","last_id":"x"}}`,
		`[{"ack":{"channel":"room:7","id":"id6","resumed":false}},{"gap":{"channels":["room:7"],"id":"id6"}}]`)

	for _, bad := range []struct{ send, code, message string }{
		{`{`, "invalid", ""},
		{`[{]`, "invalid", ""},
		{`{}`, "invalid", "a request is one of publish, join and leave"},
		{`{"publish":{"data":1},"join":{"channel":"room:8"}}`, "invalid", "a request is one of publish, join and leave"},
		{`{"publish":{"data":1},"more":1}`, "invalid", `json: unknown field "more"`},
		{`{"publish":{}}`, "invalid", "has no data"},
		{`{"publish":{"data":1}} {}`, "invalid", "more than one JSON value"},
		{`{"publish":{"data":1},"ref":[]}`, "invalid", "the ref is not a number or a string of 64 bytes at most"},
		{`{"publish":{"data":1,"event":"a\u0000"}}`, "invalid", "the event has a control character"},
		{`{"publish":{"data":1,"channel":"room:8"}}`, "forbidden", `the client is not on the channel "room:8"`},
		{`{"publish":{"data":"` + strings.Repeat("x", 1001) + `"}}`, "too_big", "the data has 1001 bytes, more than 1000"},
		{`{"join":{"channel":""}}`, "invalid", "the channel is empty"},
		{`{"join":{"channel":"other"}}`, "forbidden", `the channel "other" may not be joined on this route`},
		{`{"leave":{"channel":"other"}}`, "invalid", `the channel "other": the connection is not on the channel`},
		{`[` + strings.Repeat(`{},`, 256) + `{}]`, "invalid", "a frame of 257 requests, more than 256"},
	} {
		s.send(c, bad.send)
		got := read(c)
		var v []struct {
			Error struct{ Code, Message string }
		}
		if err := json.Unmarshal([]byte(got), &v); err != nil || len(v) != 1 || v[0].Error.Code != bad.code || bad.message != "" && v[0].Error.Message != bad.message {
			t.Errorf("%.60s: %s", bad.send, got)
		}
	}
	talk(c, `{"join":{"channel":"room:8"}}`, `[{"ack":{"channel":"room:8","id":"id6","resumed":false}}]`)
	talk(c, `{"join":{"channel":"room:9"}}`, `[{"ack":{"channel":"room:9","id":"id6","resumed":false}}]`)
	talk(c, `{"join":{"channel":"room:10"},"ref":8}`, `[{"error":{"ref":8,"code":"limit","message":"too many channels"}}]`)

	reader := dial("/read?last_id=" + idOf(ids, 2))
	talk(reader, "", hello("id2", true), `[{"id":"id3","channel":"news","data":"AP8=","encoding":"base64"}]`)
	talk(reader, `{"publish":{"data":1}}`, `[{"error":{"code":"forbidden","message":"publishing is off on this route"}}]`)
	lost := dial("/read?last_id=x-1")
	talk(lost, "", strings.TrimSuffix(hello("id6", false), "]")+`,{"gap":{"channels":["news"],"id":"id6"}}]`)

	quiet := dial("/quiet")
	talk(quiet, "", hello("id6", false))
	talk(quiet, `{"publish":{"data":"mine"},"ref":1}`, `[{"ack":{"ref":1,"id":"id7"}}]`)
	for _, c := range []*websocket.Conn{c, reader, lost} {
		talk(c, "", `[{"id":"id7","channel":"news","data":"mine"}]`)
	}
	if err := c.Write(t.Context(), websocket.MessageBinary, []byte("{}")); err != nil {
		t.Fatal(err)
	}
	s.expectClose(c, websocket.StatusUnsupportedData)

	// A raw client of the same route hears the same, and is not resumed: it could not be told of a gap.
	raw := s.dial("/read?last_id="+idOf(ids, 2), nil)
	s.publish("channel=news", "to all")
	s.expect(raw, "to all")
	talk(reader, "", `[{"id":"id8","channel":"news","data":"to all"}]`)
}

func idOf(ids map[string]int, n int) string {
	for id, i := range ids {
		if i == n {
			return id
		}
	}
	return ""
}

func TestAdmin(t *testing.T) {
	s := start(t, `broadcast /ws default news`)
	c := s.dial("/ws", nil)
	id := regexp.MustCompile(`"id":"\w+-\d+"`)
	const lines = "application/x-ndjson"
	for _, v := range []struct {
		method, path, contentType, body string
		status                          int
		answer                          string
	}{
		{"POST", "/publish", "", "plain", 200, `{ID,"channel":"default","subscribers":1}`},
		{"POST", "/publish?channel=news&event=e", "text/plain", "to news", 200, `{ID,"channel":"news","subscribers":1}`},
		{"POST", "/publish?channel=nobody", "text/plain", "x", 200, `{ID,"channel":"nobody","subscribers":0}`},
		{"POST", "/publish", "application/octet-stream", "\xff", 200, `{ID,"channel":"default","subscribers":1}`},
		{"POST", "/publish", "text/plain", "\xff", 400, `not UTF-8`},
		{"POST", "/publish?channel=" + strings.Repeat("x", 256), "text/plain", "x", 400, `the channel has 256 bytes, more than 255`},
		{"POST", "/publish", "text/plain", strings.Repeat("x", 1<<20+1), 413, `larger than 1048576 bytes`},
		{"POST", "/publish", lines, `{"data":"one"}` + "\n\n" + `{"channel":"news","event":"e","data":{"a": 1}}` + "\r\n" + `{"data":"AP8=","encoding":"base64"}`, 200,
			`{ID,"channel":"default","subscribers":1}` + "\n" + `{ID,"channel":"news","subscribers":1}` + "\n" + `{ID,"channel":"default","subscribers":1}`},
		{"POST", "/publish", lines, `{"data":"by key","key":"k"}` + "\n" + `{"data":"by key","key":"k"}`, 200,
			`{ID,"channel":"default","subscribers":1}` + "\n" + `{ID,"channel":"default","subscribers":1}`},
		{"POST", "/publish", lines, `{"data":1,"key":"\u0000"}`, 400, `line 1: the key has a control character`},
		{"POST", "/publish", "application/x-www-form-urlencoded", "channel=news&data=by+form", 200, `{ID,"channel":"news","subscribers":1}`},
		{"POST", "/publish", lines, `{"data":"lost?"}` + "\n" + `{"data":}`, 400, `line 2: invalid character`},
		{"POST", "/publish", lines, `{"channel":"","data":1}`, 400, `line 1: the channel is empty`},
		{"POST", "/publish", lines, `{"text":1}`, 400, `line 1: json: unknown field`},
		{"POST", "/publish", lines, `{"channel":"a"}`, 400, `line 1: has no data`},
		{"POST", "/publish", lines, `{"data":1}{"data":2}`, 400, `line 1: has more than one JSON value`},
		{"POST", "/publish", lines, `{"data":"?","encoding":"base64"}`, 400, `line 1: the data: illegal base64`},
		{"POST", "/publish", lines, `{"data":1,"encoding":"base64"}`, 400, `line 1: the data is not a string`},
		{"POST", "/publish", lines, `{"data":"x","encoding":"hex"}`, 400, `line 1: the encoding`},
		{"POST", "/publish", lines, "\n", 400, `the body has no lines`},
		{"GET", "/publish", "", "", 405, `method GET is not allowed, only POST`},
		{"POST", "", "", "", 405, `method POST is not allowed, only GET`},
	} {
		status, answer := s.do(v.method, s.admin+"/broadcast"+v.path, v.body, "Content-Type", v.contentType)
		if status != v.status {
			t.Errorf("%s %.40s %.60q: %d %q, not %d", v.method, v.path, v.body, status, answer, v.status)
			continue
		}
		if status == 200 {
			answer = id.ReplaceAllString(strings.TrimSpace(answer), "ID")
			if answer != v.answer {
				t.Errorf("%s %.40s %.60q: %q, not %q", v.method, v.path, v.body, answer, v.answer)
			}
			continue
		}
		var e struct{ Error string }
		if err := json.Unmarshal([]byte(answer), &e); err != nil || !strings.Contains(e.Error, v.answer) {
			t.Errorf("%s %.40s %.60q: %q, not %q", v.method, v.path, v.body, answer, v.answer)
		}
	}
	s.expect(c, "plain", "to news", "\xff", "one", `{"a": 1}`, "\x00\xff", "by key", "by form")
}

// TestHandlersInFront: what other handlers do to a response is done to a handshake too.
// TestAdminLists: who is connected, on what, and how to part with them.
func TestAdminLists(t *testing.T) {
	s := start(t, `broadcast {
			history 2
		}
		---
		broadcast /ws/* news room:{path.1} {
			user {query.user}
		}`)
	url := s.admin + "/broadcast"
	get := func(path string, v any) {
		t.Helper()
		status, body := s.do("GET", url+path, "")
		if err := json.Unmarshal([]byte(body), v); status != 200 || err != nil {
			t.Fatalf("%s: %d %s", path, status, body)
		}
	}
	_, all := s.stream("http://" + url + "/stream")
	_, some := s.stream("http://"+url+"/stream?channel=news&channel=room:2&channel=news", "Last-Event-ID", "ignored? no: a gap")
	for _, next := range []func() string{all, some} {
		next()
		next()
	}
	ann := s.dial("/ws/1?user=ann", nil)
	_, ben := s.stream("http://" + s.addr + "/ws/2?user=ben")
	ben()
	ben()
	s.dial("/ws/2", nil)
	first := s.publish("channel=news&event=e", "hello")
	second := s.publish("channel=other", "x")
	s.expect(ann, "hello")
	want := `{"id":"` + first + `","channel":"news","event":"e","data":"hello"}`
	if got := all(); got != "id: "+first+"\ndata: ["+want+"]\n" { // or both at once
		if got != "id: "+second+"\ndata: ["+want+`,{"id":"`+second+`","channel":"other","data":"x"}]`+"\n" {
			t.Errorf("the stream of all has %q", got)
		}
	} else if got := all(); !strings.Contains(got, `"channel":"other"`) {
		t.Errorf("the stream of all has %q", got)
	}
	if got := some(); got != "id: "+first+"\ndata: ["+want+"]\n" {
		t.Errorf("the stream of some has %q", got)
	}

	type channel struct {
		Channel              string
		Subscribers, History int
		LastID               string `json:"last_id"`
		Users                map[string]int
	}
	var channels []channel
	get("/channels", &channels)
	if got := fmt.Sprint(channels); got != fmt.Sprintf("[{news 4 1 %s map[]} {other 0 1 %s map[]} {room:1 1 0  map[]} {room:2 3 0  map[]}]", first, second) {
		t.Errorf("channels: %s", got)
	}
	channels = nil
	get("/channels?prefix=room:&limit=1", &channels)
	if got := fmt.Sprint(channels); got != "[{room:1 1 0  map[]}]" {
		t.Errorf("channels: %s", got)
	}
	channels = nil
	get("/channels?prefix=room:&after=room:1", &channels)
	if got := fmt.Sprint(channels); got != "[{room:2 3 0  map[]}]" {
		t.Errorf("channels: %s", got)
	}
	var one channel
	get("/channels/room:2", &one)
	if got := fmt.Sprint(one); got != "{room:2 3 0  map[ben:1]}" {
		t.Errorf("one channel: %s", got)
	}

	type connection struct {
		ID, User, Remote, Transport string
		Channels                    []string
		Since                       time.Time
		Sent, Backlog               int
	}
	list := func(query string) (text string, list []connection) {
		t.Helper()
		get("/connections"+query, &list)
		for _, c := range list {
			if c.Remote == "" || time.Since(c.Since) > time.Minute || time.Since(c.Since) < 0 {
				t.Errorf("%+v", c)
			}
			text += fmt.Sprintln(c.User, c.Transport, c.Channels)
		}
		return text, list
	}
	const annLine, benLine, nobody = "ann websocket [news room:1]\n", "ben sse [news room:2]\n", " websocket [news room:2]\n"
	got, cs := list("")
	if got != " admin [*]\n admin [news room:2]\n"+annLine+benLine+nobody || cs[2].Sent != len("hello")+2 {
		t.Errorf("connections: %s", got)
	}
	for query, want := range map[string]string{
		"?user=ann":                           annLine,
		"?channel=room:2&user=ben":            benLine,
		"?after=" + cs[2].ID:                  benLine + nobody,
		"?after=" + cs[1].ID + "&limit=2":     annLine + benLine,
		"?channel=nobody+is+here":             "",
		"?channel=room:2&after=" + cs[1].ID:   benLine + nobody,
		"?limit=1&user=ben&after=" + cs[4].ID: "",
	} {
		if got, _ := list(query); got != want {
			t.Errorf("%s: %s", query, got)
		}
	}
	resp, err := http.Get("http://" + url + "/connections?limit=2&channel=news")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if link := resp.Header.Get("Link"); link != `</broadcast/connections?after=`+cs[2].ID+`&channel=news&limit=2>; rel="next"` {
		t.Errorf("goes on at %s", link)
	}

	for _, c := range []struct {
		method, path string
		status       int
	}{
		{"GET", "/channels/nobody", 404},
		{"GET", "/channels?limit=0", 400},
		{"GET", "/connections?limit=x", 400},
		{"GET", "/connections?after=7", 400},
		{"POST", "/channels", 405},
		{"POST", "/connections", 405},
		{"GET", "/connections/c1", 405},
		{"DELETE", "/connections", 400},
		{"DELETE", "/connections/7", 400},
		{"DELETE", "/connections/c999", 404},
		{"DELETE", "/connections?user=nobody", 404},
		{"DELETE", "/connections/" + cs[2].ID, 200},
		{"DELETE", "/connections?user=ben", 200},
		{"GET", "/stream?channel=", 400},
		{"POST", "/stream", 405},
	} {
		if status, body := s.do(c.method, url+c.path, ""); status != c.status {
			t.Errorf("%s %s: %d %s", c.method, c.path, status, body)
		}
	}
	s.expectClose(ann, websocket.StatusPolicyViolation)
	for ben() != "EOF" {
	}
	if got, _ := list("?after=" + cs[1].ID); got != nobody {
		t.Errorf("after the kicks: %s", got)
	}
}

// TestRatesAndQuotas: who is too fast, or too many, is told, and others are not disturbed.
func TestRatesAndQuotas(t *testing.T) {
	config := `servers {
			trusted_proxies static private_ranges
		}
		---
		broadcast /fast {
			rate 2/m 3
			user {query.user}
		}
		broadcast /few few {
			max_connections 4 per_ip 2
		}`
	s := start(t, config)
	other := s.dial("/fast", nil)
	raw := s.dial("/fast", nil)
	for range 4 {
		s.send(raw, "x")
	}
	s.expectClose(raw, websocket.StatusPolicyViolation)
	s.expect(other, "x", "x", "x")

	pings := s.dial("/fast", nil)
	end := make(chan error, 1)
	go func() {
		_, _, err := pings.Read(t.Context())
		end <- err
	}()
	for range 5 { // as a keep-alive would
		if err := pings.Ping(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for pings.Ping(t.Context()) == nil { // for ever
	}
	if err := <-end; websocket.CloseStatus(err) != websocket.StatusPolicyViolation {
		t.Errorf("pings without end: %v", err)
	}

	v1 := s.dial("/fast", &websocket.DialOptions{Subprotocols: []string{"broadcast.v1"}})
	v1.Read(t.Context())
	for i := range 25 {
		if v1.Write(t.Context(), websocket.MessageText, []byte(fmt.Sprintf(`{"publish":{"data":"y"},"ref":%d}`, i))) != nil {
			break
		}
	}
	acks, errs := 0, 0
	for {
		_, p, err := v1.Read(t.Context())
		if err != nil {
			if websocket.CloseStatus(err) != websocket.StatusPolicyViolation {
				t.Errorf("broadcast.v1 is closed with %v", err)
			}
			break
		}
		acks += strings.Count(string(p), `{"ack":`)
		errs += strings.Count(string(p), `"code":"rate","message":"too many requests"`)
	}
	if acks != 3 || errs != 20 {
		t.Errorf("broadcast.v1: %d acks and %d errors", acks, errs)
	}
	s.expect(other, "y", "y", "y")

	post := func(user string) (int, string) {
		resp, err := http.Post("http://"+s.addr+"/fast?user="+user, "text/plain", strings.NewReader("z"))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode, resp.Header.Get("Retry-After")
	}
	for range 3 {
		if status, _ := post("ann"); status != 200 {
			t.Errorf("a POST within the burst: %d", status)
		}
	}
	if status, after := post("ann"); status != 429 || after != "30" {
		t.Errorf("a POST too many: %d, Retry-After %s", status, after)
	}
	if status, _ := post("ben"); status != 200 {
		t.Errorf("another user's POST: %d", status)
	}

	// Quotas.
	var open []*websocket.Conn
	dial := func(ip string, want int) {
		t.Helper()
		c, resp, err := s.tryDial("/few", &websocket.DialOptions{HTTPHeader: http.Header{"X-Forwarded-For": {ip}}})
		if resp == nil || resp.StatusCode != want {
			t.Fatalf("from %s: %v %v, not %d", ip, resp, err, want)
		}
		if c != nil {
			t.Cleanup(func() { c.CloseNow() })
			open = append(open, c)
		} else if !regexp.MustCompile(`^([1-9]|10)$`).MatchString(resp.Header.Get("Retry-After")) {
			t.Errorf("Retry-After: %s", resp.Header.Get("Retry-After"))
		}
	}
	dial("1.1.1.1", 101)
	dial("1.1.1.1", 101)
	dial("1.1.1.1", 503)
	if err := s.load(config + "\nrespond changed"); err != nil {
		t.Fatal(err)
	}
	dial("1.1.1.1", 503)
	dial("2.2.2.2", 101)
	resp, _ := s.stream("http://"+s.addr+"/few", "X-Forwarded-For", "3.3.3.3")
	if resp.StatusCode != 200 {
		t.Errorf("a stream: %s", resp.Status)
	}
	dial("4.4.4.4", 503)
	open[0].CloseNow()
	s.waitTotals(func(v totals) bool { return v.Connections == 4 })
	dial("1.1.1.1", 101)
	dial("2.2.2.2", 503)
}

// TestRefusedConfig: a configuration that cannot be started changes nothing.
func TestRefusedConfig(t *testing.T) {
	config := `broadcast {
			history 5
			max_connections 2
		}
		---
		broadcast /ws`
	s := start(t, config)
	c := s.dial("/ws", nil)
	for range 5 {
		s.publish("channel=kept", "x")
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0") // without the option that lets Caddy share it
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for range 20 { // Caddy starts apps in no particular order
		err := s.load(`broadcast {
				history 1
				history_bytes 1KiB
				max_connections 1
			}
			---
			broadcast /ws
		}
		http://` + taken.Addr().String() + ` {
			respond hi`)
		if err == nil {
			t.Fatal("a configuration with a port that is taken is loaded")
		}
	}
	if v := s.totals(); v.History != 5 {
		t.Errorf("%d messages are kept of 5", v.History)
	}
	s.dial("/ws", nil) // the second
	s.publish("", "still here")
	s.expect(c, "still here")
	if _, resp, err := s.tryDial("/ws", nil); err == nil || resp == nil || resp.StatusCode != 503 {
		t.Errorf("the third: %v %v", resp, err)
	}
}

// TestManyReloads: two thousand clients of all kinds notice nothing of a hundred reloads, which change options and
// routes, while messages are published.
func TestManyReloads(t *testing.T) {
	clients, reloads := 2000, 100
	if info, ok := debug.ReadBuildInfo(); testing.Short() || ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		clients, reloads = 200, 20
	}
	config := func(i int) string {
		return fmt.Sprintf(`broadcast {
			history %d
			max_connections %d
			coalesce %dms
		}
		---
		broadcast /ws {
			ping_interval %ds
			max_backlog %dMiB
		}
		broadcast /other%d other`, i%10, 2*clients+i, i%3, 10+i%5, 1+i%3, i%7)
	}
	s := start(t, config(0))
	const mark, end = "<message>", "<the end>"
	var reading sync.WaitGroup
	counts := make([]int, clients)
	for i := range clients {
		c, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		request := "GET /ws HTTP/1.1\r\nHost: " + s.addr + "\r\n"
		if i%3 == 0 {
			request += "Accept: text/event-stream\r\n\r\n"
		} else {
			request += "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
			if i%3 == 1 {
				request += "Sec-WebSocket-Protocol: broadcast.v1\r\n"
			}
			request += "\r\n"
		}
		io.WriteString(c, request)
		reading.Go(func() { // counts marks, whatever is around them
			buf := make([]byte, 4096)
			tail := ""
			for {
				n, err := c.Read(buf)
				text := tail + string(buf[:n])
				counts[i] += strings.Count(text, mark)
				if strings.Contains(text, end) {
					return
				}
				tail = text[max(0, len(text)-len(mark)+1):]
				if err != nil {
					t.Errorf("client %d: %v", i, err)
					return
				}
			}
		})
	}
	s.waitTotals(func(v totals) bool { return v.Connections == clients })
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	goroutines := runtime.NumGoroutine()

	ctx, cancel := caddy.NewContext(caddy.ActiveContext())
	defer cancel()
	h := broadcast.From(ctx)
	published := 0
	between := make(chan struct{}, 1000) // a message was published
	publish := func(data string) {
		if _, err := h.Publish(broadcast.Message{Data: []byte(data)}); err != nil {
			t.Error(err)
		}
		published++
		between <- struct{}{}
	}
	stop := make(chan struct{})
	var publishing sync.WaitGroup
	publishing.Go(func() {
		ticker := time.NewTicker(2 * time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				publish(mark)
			case <-stop:
				return
			}
		}
	})
	for i := range reloads {
		for range 5 {
			<-between
		}
		if err := s.load(config(i + 1)); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	publishing.Wait()
	publish(end)
	reading.Wait()
	for i, n := range counts {
		if n != published-1 {
			t.Fatalf("client %d got %d of %d messages", i, n, published-1)
		}
	}
	if v := s.totals(); v.Connections != clients {
		t.Errorf("%d connections of %d are left", v.Connections, clients)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	t.Logf("%d messages; heap %d KiB before, %d after", published, before.HeapAlloc>>10, after.HeapAlloc>>10)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 32<<20 {
		t.Errorf("the heap has grown by %d bytes", grown)
	}
	for deadline := time.Now().Add(20 * time.Second); runtime.NumGoroutine() > goroutines-clients+200; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines, before %d with the %d of the clients", runtime.NumGoroutine(), goroutines, clients)
		}
	}
}

// TestCloseOnReload: connections of a route that says so are closed when the configuration changes, others are not.
func TestCloseOnReload(t *testing.T) {
	config := `broadcast /close {
			close_on_reload
		}
		broadcast /stay`
	s := start(t, config)
	gone, stays := s.dial("/close", nil), s.dial("/stay", nil)
	v1 := s.dial("/close", &websocket.DialOptions{Subprotocols: []string{"broadcast.v1"}})
	_, stream := s.stream("http://" + s.addr + "/close")
	stream()
	stream()
	if err := s.load(config + "\nrespond changed"); err != nil {
		t.Fatal(err)
	}
	s.expectClose(gone, websocket.StatusServiceRestart)
	s.expectClose(v1, websocket.StatusServiceRestart)
	if got := stream(); !strings.HasPrefix(got, "retry") {
		t.Errorf("the stream says %q", got)
	}
	s.publish("", "still here")
	s.expect(stays, "still here")
	s.expect(s.dial("/close", nil))
	s.waitLog(`"reason":"restart"`)
}

// TestPublishOnly: a route that only publishes takes it for all of its channels, by every transport.
func TestPublishOnly(t *testing.T) {
	s := start(t, `broadcast /in a b {
			subscribe off
			user {query.user}
		}
		broadcast /out a b`)
	out := s.dial("/out", nil)
	v1 := s.dial("/in", &websocket.DialOptions{Subprotocols: []string{"broadcast.v1"}})
	v1.Read(t.Context())
	s.send(v1, `[{"publish":{"data":"to a"}},{"publish":{"channel":"b","data":"to b"}},{"join":{"channel":"a"},"ref":1}]`)
	s.expect(v1, `[{"error":{"ref":1,"code":"forbidden","message":"the channel \"a\" may not be joined on this route"}}]`)
	s.post(s.addr+"/in?channel=b", "text/plain", "posted to b")
	s.expect(out, "to a", "to b", "posted to b")
	for _, user := range []string{strings.Repeat("x", 256), "a%00", "%ff"} {
		if status, _ := s.post(s.addr+"/in?user="+user, "text/plain", "x"); status != 400 {
			t.Errorf("the user %.10s: %d", user, status)
		}
		if _, resp, err := s.tryDial("/in?user="+user, nil); err == nil || resp == nil || resp.StatusCode != 400 {
			t.Errorf("the user %.10s: %v %v", user, resp, err)
		}
	}
}

// TestV1WithoutWebSocket: broadcast.v1 as an event stream, and what its clients post; and channels that are joined with
// the handshake.
func TestV1WithoutWebSocket(t *testing.T) {
	s := start(t, `broadcast {
			history 10
		}
		---
		broadcast /ws news {
			join room:* user:{query.user}
			user {query.user}
			max_message 100
			rate 100/h 6
		}
		broadcast /read news {
			publish off
		}`)
	query := "?protocol=broadcast.v1&join=room:1&join=user:ann&join=news&join=secret&join=%00&user=ann"
	_, next := s.stream("http://" + s.addr + "/ws" + query)
	next()
	id := `"[A-Z2-7]{8}-\d+"`
	expect := func(got, want string) {
		t.Helper()
		if !regexp.MustCompile("^(?:" + strings.ReplaceAll(regexp.QuoteMeta(want), "ID", id) + ")$").MatchString(got) {
			t.Errorf("got %s, not %s", got, want)
		}
	}
	data := func() string {
		_, frame, _ := strings.Cut(strings.TrimSpace(next()), "data: ")
		return frame
	}
	hello := `[{"hello":{"connection":"c1","channels":["news","room:1","user:ann"],"id":ID,"resumed":false,"heartbeat":25}},` +
		`{"error":{"code":"forbidden","message":"the channel \"secret\" may not be joined on this route"}},` +
		`{"error":{"code":"invalid","message":"the channel has a control character"}}]`
	expect(data(), hello)
	c := s.dial("/ws"+query, &websocket.DialOptions{Subprotocols: []string{"broadcast.v1"}})
	_, frame, err := c.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	expect(string(frame), strings.Replace(hello, "c1", "c2", 1))

	post := func(path, body, want string) {
		t.Helper()
		status, answer := s.post(s.addr+path, "text/plain;charset=UTF-8", body)
		if status != 200 {
			t.Errorf("%s: %d %s", body, status, answer)
		}
		expect(answer, want)
	}
	post("/ws"+query, `[{"publish":{"data":{"a": 1},"event":"e"},"ref":1},{"publish":{"channel":"room:7","data":"x","key":"k"},"ref":"r"}]`,
		`[{"ack":{"ref":1,"id":ID}},{"ack":{"ref":"r","id":ID}}]`)
	expect(data(), `[{"id":ID,"channel":"news","event":"e","data":{"a": 1}}]`)
	s.send(c, `{"publish":{"channel":"room:1","data":"y","key":"k"},"ref":2}`)
	for _, read := range []func() string{data, func() string { _, p, _ := c.Read(t.Context()); return string(p) }} {
		for all := ""; !strings.Contains(all, `"y"`); {
			all += read()
		}
	}
	post("/ws"+query, `{"publish":{"channel":"room:1","data":"y","key":"k"},"ref":3}`, `[{"ack":{"ref":3,"id":ID}}]`) // by the same user
	post("/ws"+query, `{"publish":{"channel":"room:1","data":"z","key":"k"},"ref":3}`,
		`[{"error":{"ref":3,"code":"conflict","message":"the idempotency key is that of another message"}}]`)
	post("/ws"+query, `{"join":{"channel":"room:1"},"ref":4}`,
		`[{"error":{"ref":4,"code":"invalid","message":"only a WebSocket can join and leave; name the channels with ?join= in the stream's address"}}]`)
	post("/ws"+query, `{"publish":{"channel":"secret","data":"z"},"ref":5}`,
		`[{"error":{"ref":5,"code":"forbidden","message":"the client is not on the channel \"secret\""}}]`)
	post("/ws"+query, `{"publish":{"data":"z"},"ref":6}`, `[{"error":{"ref":6,"code":"rate","message":"too many requests"}}]`)
	post("/read"+query, `{"publish":{"data":"z"},"ref":7}`, `[{"error":{"ref":7,"code":"forbidden","message":"publishing is off on this route"}}]`)
	post("/ws?protocol=broadcast.v1&user=ben", `{"publish":{"data":"`+strings.Repeat("x", 101)+`"},"ref":8}`,
		`[{"error":{"ref":8,"code":"too_big","message":"the data has 101 bytes, more than 100"}}]`)
	if status, _ := s.post(s.addr+"/ws"+query, "text/plain", strings.Repeat(" ", 5000)); status != 413 {
		t.Errorf("a long body: %d", status)
	}
	if status, _ := s.do("POST", s.addr+"/ws"+query, "{}", "Origin", "https://evil.example"); status != 403 {
		t.Errorf("from another page: %d", status)
	}
	if v := s.totals(); v.Messages != 3 {
		t.Errorf("%d messages were published, not 3", v.Messages)
	}
}

// TestServesClient: the client for browsers.
func TestServesClient(t *testing.T) {
	s := start(t, `broadcast /ws
		respond next`)
	get := func(path string, header ...string) *http.Response {
		t.Helper()
		r, err := http.NewRequest("GET", "http://"+s.addr+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { resp.Body.Close() })
		return resp
	}
	resp := get("/ws?client", "Origin", "https://elsewhere.example")
	body, _ := io.ReadAll(resp.Body)
	h := resp.Header
	if resp.StatusCode != 200 || h.Get("Content-Type") != "text/javascript; charset=utf-8" || h.Get("Access-Control-Allow-Origin") != "*" ||
		!strings.HasPrefix(h.Get("Cache-Control"), "public, max-age=") || !bytes.Contains(body, []byte("as connect")) {
		t.Errorf("%s %v %.100s", resp.Status, h, body)
	}
	if resp := get("/ws?client", "If-None-Match", h.Get("Etag")); resp.StatusCode != 304 {
		t.Errorf("again: %s", resp.Status)
	}
	for _, path := range []string{"/ws?client=7", "/ws?x&client", "/ws", "/?client"} {
		if body, _ := io.ReadAll(get(path).Body); string(body) != "next" {
			t.Errorf("%s: %.50s", path, body)
		}
	}
}

// TestCommands runs `caddy broadcast …` against a running Caddy.
func TestCommands(t *testing.T) {
	s := start(t, `broadcast /ws/* room:{path.1} {
			user {query.user}
		}`)
	command := func(stdin string, args ...string) *exec.Cmd {
		cmd := exec.Command(os.Args[0], append([]string{"broadcast"}, append(args, "--address", s.admin)...)...)
		cmd.Env = append(os.Environ(), asCaddy+"=1")
		cmd.Stdin = strings.NewReader(stdin)
		return cmd
	}
	alike := func(s string) string {
		s = regexp.MustCompile(`[A-Z2-7]{8}-\d+`).ReplaceAllString(s, "ID")
		s = regexp.MustCompile(`\d\d:\d\d:\d\d\.\d+`).ReplaceAllString(s, "TIME")
		return regexp.MustCompile(` +`).ReplaceAllString(s, " ")
	}
	run := func(stdin string, args ...string) (out string, good bool) {
		t.Helper()
		cmd := command(stdin, args...)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		p, err := cmd.Output()
		if err != nil {
			if exit := new(exec.ExitError); !errors.As(err, &exit) || exit.ExitCode() != 1 {
				t.Errorf("%q: %v", args, err)
			}
			return stderr.String(), false
		}
		return alike(string(p)), true
	}
	tail := command("", "tail")
	seen, err := tail.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := tail.Start(); err != nil {
		t.Fatal(err)
	}
	defer tail.Wait()
	defer tail.Process.Kill()
	s.waitTotals(func(v totals) bool { return v.Connections == 1 })

	ann, ben := s.dial("/ws/1?user=ann", nil), s.dial("/ws/2?user=ben", nil)
	for _, c := range []struct {
		stdin string
		args  []string
		want  string
	}{
		{"", []string{"publish", "hello", "--channel", "room:1"}, "ID to 1\n"},
		{"from stdin", []string{"publish", "--channel", "room:1", "--event", "e\u00e4"}, "ID to 1\n"},
		{"", []string{"publish", `{"a":1}`, "--as", "json", "--channel", "room:1", "--json"}, `{"id":"ID","channel":"room:1","subscribers":1}` + "\n"},
		{"one\n\ntwo\r\nthree", []string{"publish", "--lines", "--channel", "room:1"}, "ID to 1\nID to 1\nID to 1\nID to 1\n"},
		{"", []string{"channels"}, "CHANNEL SUBSCRIBERS HISTORY LAST ID\nroom:1 1 0 \nroom:2 1 0 \n"},
		{"", []string{"channels", "room:2", "--json"}, `{"channel":"room:2","subscribers":1,"history":0}` + "\n"},
		{"", []string{"connections", "--user", "nobody"}, "ID USER REMOTE TRANSPORT SINCE SENT BACKLOG CHANNELS\n"},
		{"", []string{"connections", "--channel", "room:2"}, "ID USER REMOTE TRANSPORT SINCE SENT BACKLOG CHANNELS\nc3 ben 127.0.0.1 websocket 0s 0 0 room:2\n"},
		{"", []string{"kick", "--user", "ben"}, "closed 1\n"},
		{"", []string{"publish", "\x1b[31mred", "--channel", "room:1"}, "ID to 1\n"},
	} {
		out, good := run(c.stdin, c.args...)
		out = regexp.MustCompile(` \d+s `).ReplaceAllString(out, " 0s ")
		if !good || out != c.want {
			t.Errorf("%q: %v %q, not %q", c.args, good, out, c.want)
		}
	}
	s.expect(ann, "hello", "from stdin", `{"a":1}`, "one", "", "two", "three", "\x1b[31mred")
	for _, more := range [][]string{nil, {"--admin", "--channel", "room:9"}} {
		args := append([]string{"bench", "http://" + s.addr + "/ws/9", "--connections", "20", "--duration", "300ms", "--rate", "100", "--json"}, more...)
		out, good := run("", args...)
		var v struct{ Connections, Messages, Deliveries, Missing int }
		if err := json.Unmarshal([]byte(out), &v); !good || err != nil || v.Connections != 20 || v.Messages < 5 || v.Deliveries != 20*v.Messages {
			t.Errorf("%q: %v %s", args, good, out)
		}
	}
	if out, good := run("", "bench", "http://"+s.addr+"/ws/9", "--connections", "2", "--duration", "50ms"); !good || !strings.Contains(out, "2 connections in") {
		t.Errorf("bench: %v %q", good, out)
	}
	s.expectClose(ben, websocket.StatusPolicyViolation)
	ui := command("", "ui", "--listen", "localhost:0")
	shown, err := ui.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := ui.Start(); err != nil {
		t.Fatal(err)
	}
	defer ui.Wait()
	defer ui.Process.Kill()
	url, err := bufio.NewReader(shown).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	if status, body := s.do("GET", strings.TrimPrefix(strings.TrimSpace(url), "http://")+"/broadcast", ""); status != 200 || !strings.Contains(body, `"uptime"`) {
		t.Errorf("ui: %d %s", status, body)
	}
	in := bufio.NewReader(seen)
	for _, want := range []string{"hello", "e\u00e4 from stdin", `{"a":1}`, "one", "", "two", "three", `\x1b[31mred`} {
		line, err := in.ReadString('\n')
		want = "TIME room:1 " + want + "\n"
		if line = alike(line); line != want {
			t.Errorf("tail: %q and %v, not %q", line, err, want)
		}
	}
	for _, c := range []struct {
		stdin, want string
		args        []string
	}{
		{"", "must be text, json or binary", []string{"publish", "x", "--as", "xml"}},
		{"", "is not JSON", []string{"publish", "{", "--as", "json"}},
		{"{}\n{\n", "line 2 is not JSON", []string{"publish", "--lines", "--as", "json"}},
		{"", "not an argument", []string{"publish", "x", "--lines"}},
		{"", "whom?", []string{"kick"}},
		{"", "is not the ID", []string{"kick", "x"}},
		{"", "no such connection", []string{"kick", "c99"}},
		{"", "control character", []string{"tail", "a\x01"}},
		{"", "is not the address", []string{"bench", "localhost"}},
		{"", "this machine alone", []string{"ui", "--listen", "0.0.0.0:0"}},
		{"", "the handshake is answered 200", []string{"bench", "http://" + s.addr + "/none"}},
	} {
		if out, good := run(c.stdin, c.args...); good || !strings.Contains(out, c.want) {
			t.Errorf("%q: %v %q lacks %q", c.args, good, out, c.want)
		}
	}
}

// TestDashboard: the dashboard and the docs ask for metrics that there are.
func TestDashboard(t *testing.T) {
	s := start(t, `broadcast /ws`)
	s.dial("/ws", nil)
	s.publish("", "x")
	_, body := s.do("GET", s.admin+"/metrics", "")
	for _, name := range []string{"docs/grafana.json", "docs/metrics.md"} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		names := regexp.MustCompile(`caddy_broadcast_\w+`).FindAllString(string(text), -1)
		if len(names) < 10 || name == "docs/grafana.json" && !json.Valid(text) {
			t.Errorf("%s has %d metrics", name, len(names))
		}
		for _, n := range names {
			if !regexp.MustCompile(`(?m)^`+n+`[ {]`).MatchString(body) && !strings.Contains(body, "# TYPE "+n+" ") {
				t.Errorf("%s asks for %s", name, n)
			}
		}
	}
}

// TestMetrics: Caddy's own metrics have the hub's, through reloads.
// expectMetrics waits until Caddy's metrics have these lines.
func (s *server) expectMetrics(want ...string) {
	s.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		_, body := s.do("GET", s.admin+"/metrics", "")
		missing := ""
		for _, w := range want {
			if !strings.Contains(body, "\ncaddy_broadcast_"+w+"\n") {
				missing = w
			}
		}
		if missing == "" {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("lacks %s:\n%s", missing, strings.Join(regexp.MustCompile(`(?m)^caddy_broadcast.*$`).FindAllString(body, -1), "\n"))
		}
	}
}

func TestMetrics(t *testing.T) {
	config := `broadcast /ws {
			max_message 100
		}
		broadcast /read {
			publish off
		}`
	s := start(t, config)
	expect := s.expectMetrics
	expect("channels 0", "deliveries_total 0", `closed_total{reason="slow"} 0`, "fanout_seconds_count 0")
	a, b, policy := s.dial("/ws", nil), s.dial("/ws", nil), s.dial("/read", nil)
	s.stream("http://" + s.addr + "/ws")
	s.send(a, "hello")
	s.expect(b, "hello")
	s.publish("", "from admin")
	s.post(s.addr+"/ws", "text/plain", "posted")
	s.expect(b, "from admin", "posted")
	expect(`connections{transport="websocket"} 3`, `connections{transport="sse"} 1`, "channels 1", "deliveries_total 12",
		`published_total{source="websocket"} 1`, `published_total{source="admin"} 1`, `published_total{source="post"} 1`, "backlog_bytes 0")
	if err := s.load(config + "\nrespond changed"); err != nil {
		t.Fatal(err)
	}
	s.send(policy, "not allowed")
	s.expectClose(policy, websocket.StatusPolicyViolation)
	s.send(a, strings.Repeat("x", 101))
	s.expectClose(a, websocket.StatusMessageTooBig)
	b.Close(websocket.StatusNormalClosure, "")
	s.stream("http://"+s.addr+"/ws", "Last-Event-ID", "x-1")
	expect(`connections{transport="websocket"} 0`, `connections{transport="sse"} 2`, `closed_total{reason="policy"} 1`, `closed_total{reason="too_big"} 1`,
		`closed_total{reason="client"} 1`, "gaps_total 1", "deliveries_total 12")
}

func TestHandlersInFront(t *testing.T) {
	s := start(t, `servers {
			metrics
		}
		---
		log
		encode
		header X-Early yes
		header >X-Late yes
		basic_auth /private {
			Ann $2a$04$PkcVHxbMrnOUnST5f4gKJONzph1TgD9FoBQt0dxs7scnXU5EI3QUK
		}
		templates /ws
		broadcast /ws
		broadcast /private {
			user {http.auth.user.id}
			greeting "hello {http.auth.user.id}"
		}`)
	c, resp, err := websocket.Dial(t.Context(), "ws://"+s.addr+"/ws", &websocket.DialOptions{
		Subprotocols: []string{"soap", "wamp"},
		HTTPHeader:   http.Header{"Accept-Encoding": {"gzip"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	if c.Subprotocol() != "soap" {
		t.Errorf("subprotocol %q", c.Subprotocol())
	}
	for name, want := range map[string]string{"X-Early": "yes", "X-Late": "yes", "Server": "Caddy"} {
		if got := resp.Header.Get(name); got != want {
			t.Errorf("%s is %q", name, got)
		}
	}
	s.send(c, "hello")
	s.expect(c, "hello")

	if _, resp, err := websocket.Dial(t.Context(), "ws://"+s.addr+"/private", nil); err == nil || resp.StatusCode != 401 {
		t.Errorf("without a password: %v %v", resp, err)
	}
	private := s.dial("/private", &websocket.DialOptions{HTTPHeader: http.Header{"Authorization": {"Basic QW5uOmhpY2N1cA=="}}})
	s.expect(private, "hello Ann")
	if _, resp, err := websocket.Dial(t.Context(), "ws://"+s.addr+"/ws", &websocket.DialOptions{Subprotocols: []string{"a/b"}}); err == nil || resp.StatusCode != 400 {
		t.Errorf("a bad subprotocol: %v %v", resp, err)
	}
	for _, want := range []string{`"status":101`, `"status":401`, `"status":400`, `"channels":["default"],"user":"Ann"`} {
		s.waitLog(want)
	}
	log, _ := os.ReadFile(s.log)
	if bytes.Contains(log, []byte("panic")) || bytes.Contains(log, []byte("superfluous")) {
		t.Errorf("the log: %s", log)
	}
	if _, body := s.do("GET", s.admin+"/metrics", ""); !strings.Contains(body, `code="101"`) {
		t.Error("Caddy's metrics do not know of the handshake")
	}
}

// certificate makes one and returns the directive that uses it. (With "tls internal" Caddy makes it while it starts,
// with a data race of its own.)
func certificate(t testing.TB) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		DNSNames:     []string{"localhost"},
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, block := range map[string]*pem.Block{
		"cert.pem": {Type: "CERTIFICATE", Bytes: cert},
		"key.pem":  {Type: "PRIVATE KEY", Bytes: secret},
	} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return "tls " + filepath.Join(dir, "cert.pem") + " " + filepath.Join(dir, "key.pem")
}

func TestTLS(t *testing.T) {
	_, port, _ := net.SplitHostPort(freeAddr(t))
	s := start(t, `auto_https off
		---
		broadcast /ws
	}
	https://localhost:`+port+` {
		`+certificate(t)+`
		broadcast /ws {
			compression on
		}`)
	plain := s.dial("/ws", nil)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	var secure []*websocket.Conn
	for range 20 {
		c, _, err := websocket.Dial(t.Context(), "wss://localhost:"+port+"/ws", &websocket.DialOptions{
			HTTPClient: client, CompressionMode: websocket.CompressionNoContextTakeover,
		})
		if err != nil {
			t.Fatal(err)
		}
		defer c.CloseNow()
		c.SetReadLimit(-1)
		secure = append(secure, c)
	}
	var want []string
	for i := range 200 {
		m := fmt.Sprint(i, strings.Repeat(" and on", i))
		want = append(want, m)
		s.send(secure[0], m)
	}
	for _, c := range append(secure, plain) {
		s.expect(c, want...)
	}
}

// tunnel is a WebSocket inside HTTP/2 or 3, as a client has it.
type tunnel struct {
	io.Reader
	io.Writer
	resp *http.Response
	end  func()
}

// dialTunnel asks for a WebSocket by an extended CONNECT.
func (s *server) dialTunnel(rt http.RoundTripper, url string, header ...string) *tunnel {
	s.t.Helper()
	r, w := io.Pipe()
	ctx, cancel := context.WithCancel(s.t.Context())
	req, err := http.NewRequestWithContext(ctx, "CONNECT", url, r)
	if err != nil {
		s.t.Fatal(err)
	}
	req.ContentLength = -1
	if _, h3 := rt.(*http3.Transport); h3 {
		req.Proto = "websocket"
	} else {
		req.Header.Set(":protocol", "websocket")
	}
	req.Header.Set("Sec-WebSocket-Version", "13")
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := rt.RoundTrip(req)
	if err != nil {
		cancel()
		s.t.Fatal(err)
	}
	c := &tunnel{resp.Body, w, resp, sync.OnceFunc(func() { w.Close(); resp.Body.Close(); cancel() })}
	s.t.Cleanup(c.end)
	return c
}

// closeOf reads until a close frame, answers it, and returns its code.
func (s *server) closeOf(c *tunnel) ws.StatusCode {
	s.t.Helper()
	for {
		head, err := ws.ReadHeader(c)
		payload := make([]byte, head.Length)
		if err == nil {
			_, err = io.ReadFull(c, payload)
		}
		if err != nil {
			s.t.Fatalf("no close frame: %v", err)
		}
		if head.OpCode == ws.OpClose {
			code, _ := ws.ParseCloseFrameData(payload)
			wsutil.WriteClientMessage(c, ws.OpClose, payload) // it may be the answer to ours, and too late
			return code
		}
	}
}

// http2 returns a client of HTTP/2 that knows extended CONNECT: net/http's own refuses the header that asks for it.
func (s *server) http2() http.RoundTripper {
	//lint:ignore SA1019 see above
	tr := &http2.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	//lint:ignore SA1019 see above
	s.t.Cleanup(tr.CloseIdleConnections)
	return tr
}

func (s *server) expectTunnel(c *tunnel, texts ...string) {
	s.t.Helper()
	for _, want := range texts {
		got, _, err := wsutil.ReadServerData(c)
		if err != nil || string(got) != want {
			s.t.Fatalf("got %.100q and %v, not %.100q", got, err, want)
		}
	}
}

// TestTunnels: WebSockets inside HTTP/2 (RFC 8441) and HTTP/3 (RFC 9220) are like those on HTTP/1.1.
func TestTunnels(t *testing.T) {
	for _, version := range []int{2, 3} {
		t.Run(fmt.Sprint("HTTP/", version), func(t *testing.T) { testTunnels(t, version) })
	}
}

func testTunnels(t *testing.T, version int) {
	_, port, _ := net.SplitHostPort(freeAddr(t))
	crt := certificate(t)
	config := `servers {
			metrics
			timeouts {
				read_body_idle 1s
				write_idle 1s
			}
		}
		auto_https off
		---
		broadcast /ws
	}
	https://localhost:` + port + ` {
		` + crt + `
		log
		encode
		header X-Early yes
		header >X-Late yes
		basic_auth /private {
			Ann $2a$04$PkcVHxbMrnOUnST5f4gKJONzph1TgD9FoBQt0dxs7scnXU5EI3QUK
		}
		broadcast /ws {
			compression on 1B
			max_message 1000
			max_backlog 64KiB
			write_timeout 2s
			ping_interval 1s
			greeting hello
		}
		broadcast /private
		broadcast /silent silent {
			ping_interval 1h
		}
		handle_errors {
			respond "{err.status_code}"
		}`
	s := start(t, config)
	config2 := &tls.Config{InsecureSkipVerify: true}
	transport := func() http.RoundTripper {
		if version == 3 {
			tr := &http3.Transport{TLSClientConfig: config2}
			t.Cleanup(func() { tr.Close() })
			return tr
		}
		return s.http2()
	}
	rt := transport()
	url := "https://localhost:" + port
	plain := s.dial("/ws", nil)
	var silent []*tunnel // outlive Caddy's idle timeouts, which are shorter than this test
	for range 97 {
		silent = append(silent, s.dialTunnel(rt, url+"/silent"))
	}

	c := s.dialTunnel(rt, url+"/ws", "Sec-WebSocket-Protocol", "soap", "Accept-Encoding", "gzip")
	h := c.resp.Header
	if c.resp.StatusCode != 200 || c.resp.ProtoMajor != version || h.Get("Sec-Websocket-Protocol") != "soap" || h.Get("X-Early") != "yes" ||
		h.Get("X-Late") != "yes" || h.Get("Sec-Websocket-Accept") != "" || h.Get("Upgrade") != "" || h.Get("Content-Encoding") != "" {
		t.Fatalf("%s %s %v", c.resp.Proto, c.resp.Status, h)
	}
	s.expectTunnel(c, "hello")
	var texts []string
	for i := range 100 {
		texts = append(texts, fmt.Sprint(i, strings.Repeat(" and on", i)))
	}
	for i, text := range texts {
		if i%2 == 0 {
			s.send(plain, text)
		} else if err := wsutil.WriteClientText(c, []byte(text)); err != nil {
			t.Fatal(err)
		}
		s.expect(plain, text)
	}
	s.expectTunnel(c, texts...)

	// Refusals.
	for _, r := range []struct {
		path, name, value string
		status            int
	}{
		{"/ws", "Origin", "https://evil.example", 403},
		{"/ws", "Sec-WebSocket-Version", "12", 400},
		{"/ws", "Sec-WebSocket-Protocol", "a/b", 400},
		{"/private", "X", "y", 401},
	} {
		if got := s.dialTunnel(rt, url+r.path, r.name, r.value).resp.StatusCode; got != r.status {
			t.Errorf("%s with %s %s: %d, not %d", r.path, r.name, r.value, got, r.status)
		}
	}
	// permessage-deflate
	packed := s.dialTunnel(rt, url+"/ws", "Sec-WebSocket-Extensions", "permessage-deflate; client_no_context_takeover; server_no_context_takeover")
	if ext := packed.resp.Header.Get("Sec-Websocket-Extensions"); !strings.HasPrefix(ext, "permessage-deflate") {
		t.Errorf("extensions %q", ext)
	}
	s.expectTunnel(packed, "hello")
	s.send(plain, strings.Repeat("x", 500))
	s.expect(plain, strings.Repeat("x", 500))
	s.expectTunnel(c, strings.Repeat("x", 500))
	if head, err := ws.ReadHeader(packed); err != nil || !head.Rsv1() || head.Length > 50 {
		t.Errorf("the deflated frame: %+v %v", head, err)
	}
	packed.end()

	// Each close has its code, and the stream ends after it.
	closes := func(c *tunnel, want ws.StatusCode, send func(*tunnel)) {
		t.Helper()
		send(c)
		if code := s.closeOf(c); code != want {
			t.Errorf("closed with %d, not %d", code, want)
		}
		if _, err := io.Copy(io.Discard, c); err != nil {
			t.Errorf("after the close frame: %v", err)
		}
	}
	open := func() *tunnel { return s.dialTunnel(rt, url+"/ws") }
	closes(open(), 1009, func(c *tunnel) { wsutil.WriteClientText(c, make([]byte, 1001)) })
	closes(open(), 1007, func(c *tunnel) { wsutil.WriteClientText(c, []byte{0xff}) })
	closes(open(), 1002, func(c *tunnel) { c.Write([]byte{0x81, 1, 'x'}) })
	closes(open(), 1000, func(c *tunnel) { wsutil.WriteClientMessage(c, ws.OpClose, ws.NewCloseFrameBody(1000, "")) })
	open().end() // without a word

	// One that does not read costs only itself: neither those on its connection, nor others.
	s.waitTotals(func(v totals) bool { return v.Connections == 2+len(silent) })
	stuck := s.dialTunnel(rt, url+"/ws")
	for i := 0; s.totals().Connections == 3+len(silent); i++ {
		if i == 200 {
			s.publish("channel=silent", "hello")
			for _, c := range silent {
				s.expectTunnel(c, "hello")
			}
		}
		s.send(plain, strings.Repeat("y", 1000))
		s.expect(plain, strings.Repeat("y", 1000))
		s.expectTunnel(c, strings.Repeat("y", 1000))
	}
	stuck.end()

	// A reload changes nothing for them, an end is told.
	s.publish("channel=silent", "still here")
	for _, c := range silent {
		s.expectTunnel(c, "still here")
		c.end()
	}
	if err := s.load(strings.Replace(config, "X-Early", "X-Changed", 1)); err != nil {
		t.Fatal(err)
	}
	s.send(plain, "after the reload")
	s.expectTunnel(c, "after the reload")
	for _, want := range []string{`"status":200`, `"status":403`, `"status":401`, fmt.Sprint(`"http":`, version)} {
		s.waitLog(want)
	}
	closes(c, 1012, func(*tunnel) {
		if err := caddy.Stop(); err != nil {
			t.Error(err)
		}
	})
	if log, _ := os.ReadFile(s.log); bytes.Contains(log, []byte("panic")) || bytes.Contains(log, []byte("superfluous")) {
		t.Errorf("the log: %s", log)
	}
}

// TestExit: when the process is told to end, clients of every transport are told why, and it ends.
func TestExit(t *testing.T) {
	sigterm := func(_ *server, cmd *exec.Cmd) { cmd.Process.Signal(syscall.SIGTERM) }
	stop := func(s *server, _ *exec.Cmd) {
		if status, body := s.do("POST", s.admin+"/stop", ""); status != 200 {
			t.Error(status, body)
		}
	}
	t.Run("SIGTERM", func(t *testing.T) { testExit(t, "", sigterm) })
	t.Run("caddy stop", func(t *testing.T) { testExit(t, "", stop) })
	t.Run("upgrade of the binary, spread", func(t *testing.T) { testExit(t, "broadcast {\n shutdown_delay 500ms\n history 100\n }", sigterm) })
}

// startProcess starts a Caddy as a process, and returns when it listens on the addresses.
func startProcess(t *testing.T, binary, file string, addrs ...string) (cmd *exec.Cmd, ended chan error) {
	t.Helper()
	cmd = exec.Command(binary, "run", "--config", file, "--adapter", "caddyfile")
	cmd.Env = append(os.Environ(), asCaddy+"=1")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended = make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() { cmd.Process.Kill() })
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		up := 0 // the servers, for the admin API is there before them
		for _, addr := range addrs {
			if c, err := net.Dial("tcp", addr); err == nil {
				c.Close()
				up++
			}
		}
		if up == len(addrs) {
			return cmd, ended
		}
		if time.Now().After(deadline) {
			t.Fatal("it does not start")
		}
	}
}

// testExit has a process end, and another take its place.
func testExit(t *testing.T, global string, stop func(*server, *exec.Cmd)) {
	s := &server{t: t, addr: freeAddr(t), admin: freeAddr(t), log: filepath.Join(t.TempDir(), "log")}
	_, port, _ := net.SplitHostPort(freeAddr(t))
	config := strings.NewReplacer("GLOBAL", "auto_https off\n"+global, "SITE", `broadcast /ws
	}
	https://localhost:`+port+` {
		`+certificate(t)+`
		broadcast /ws`).Replace(frame)
	config = strings.NewReplacer("ADDR", s.addr, "ADMIN", s.admin, "LOG", s.log).Replace(config)
	file := filepath.Join(t.TempDir(), "Caddyfile")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(t.TempDir(), "caddy")
	upgrade := func() { // as `caddy upgrade` does it: a new file of the same name
		os.Remove(binary)
		if p, err := os.ReadFile(os.Args[0]); err != nil {
			t.Fatal(err)
		} else if err := os.WriteFile(binary, p, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	upgrade()
	cmd, ended := startProcess(t, binary, file, s.addr, "localhost:"+port)
	last := s.publish("", "before")
	config2 := &tls.Config{InsecureSkipVerify: true}
	h3 := &http3.Transport{TLSClientConfig: config2}
	defer h3.Close()
	var sockets []*websocket.Conn
	for range 20 {
		sockets = append(sockets, s.dial("/ws", nil))
	}
	var streams []func() string
	for _, url := range []string{"http://" + s.addr, "https://localhost:" + port} {
		_, next := s.stream(url + "/ws")
		next()
		next()
		streams = append(streams, next)
	}
	tunnels := []*tunnel{s.dialTunnel(s.http2(), "https://localhost:"+port+"/ws"), s.dialTunnel(h3, "https://localhost:"+port+"/ws")}

	begin := time.Now()
	var stopping sync.WaitGroup
	stopping.Go(func() { stop(s, cmd) }) // Caddy answers when its servers have stopped
	defer stopping.Wait()
	for _, c := range sockets {
		s.expectClose(c, websocket.StatusServiceRestart)
	}
	for _, next := range streams {
		if got := next(); !strings.HasPrefix(got, "retry: ") {
			t.Errorf("a stream ends with %q", got)
		}
		if got := next(); got != "EOF" {
			t.Errorf("%q after a stream's end", got)
		}
	}
	for i, c := range tunnels {
		if code := s.closeOf(c); code != 1012 {
			t.Errorf("tunnel %d ends with %v", i, code)
		}
		c.end()
	}
	select {
	case err := <-ended:
		t.Logf("ended after %v: %v", time.Since(begin).Round(time.Millisecond), err)
	case <-time.After(10 * time.Second):
		t.Fatal("it does not end")
	}

	upgrade()
	startProcess(t, binary, file, s.addr, "localhost:"+port)
	c := s.dial("/ws?last_id="+last, &websocket.DialOptions{Subprotocols: []string{"broadcast.v1"}})
	if _, hello, err := c.Read(t.Context()); err != nil || !strings.Contains(string(hello), `{"gap":`) {
		t.Errorf("who comes back is told %s, %v", hello, err)
	}
}

// waitLog waits until the log has a text.
func (s *server) waitLog(want string) {
	s.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if log, _ := os.ReadFile(s.log); bytes.Contains(log, []byte(want)) {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("the log lacks %s", want)
		}
	}
}

// warnings is how often TestWarnings has run: what it looks for is said once a process.
var warnings atomic.Int32

// TestWarnings: what is rarely meant is said in the log, once.
func TestWarnings(t *testing.T) {
	s := &server{t: t, addr: freeAddr(t), admin: freeAddr(t), log: filepath.Join(t.TempDir(), "log")}
	_, port, _ := net.SplitHostPort(s.admin)
	s.admin = "0.0.0.0:" + port
	round := warnings.Add(1)
	t.Cleanup(func() { caddy.Stop() })
	for i := range 3 {
		if err := s.load(fmt.Sprintf(`broadcast /ws warned:%d {
				origins *
			}
			broadcast /read read {
				origins *
				publish off
			}
			header X-Round %d`, os.Getpid()+int(round), i)); err != nil {
			t.Fatal(err)
		}
	}
	s.waitLog("may publish here as that visitor")
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	reached := false
	for _, a := range addrs {
		if ip, ok := a.(*net.IPNet); ok && !ip.IP.IsLoopback() && ip.IP.To4() != nil {
			for range 3 {
				s.do("GET", net.JoinHostPort(ip.IP.String(), port)+"/broadcast", "")
			}
			reached = true
		}
	}
	if reached && round == 1 {
		s.waitLog("reachable from elsewhere")
	}
	log, err := os.ReadFile(s.log)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"may publish here", "reachable from elsewhere"} {
		if n := bytes.Count(log, []byte(text)); n > 1 {
			t.Errorf("%q is said %d times", text, n)
		}
	}
}

func TestCaddyfile(t *testing.T) {
	for _, c := range []struct{ config, json string }{
		{`broadcast /ws`, `{"handler":"broadcast"}`},
		{`broadcast`, `{"handler":"broadcast"}`},
		{`broadcast /ws news {path.1}`, `{"channels":["news","{http.request.uri.path.1}"],"handler":"broadcast"}`},
		{`broadcast * {
			channel news user:{http.auth.user.id}
			user {http.auth.user.id}
			publish off
			subscribe on
			transports websocket post
			origins https://app.example.com *.example.org
			echo off
			greeting "hello there"
			replay 5
			ping_interval 1m
			write_timeout 1.5s
			max_message 1MB
			max_backlog 2MiB
			slow drop
			compression on 1KiB
		}`, `{"channels":["news","user:{http.auth.user.id}"],"compression":{"min_size":1024},"echo":false,"greeting":"hello there",` +
			`"handler":"broadcast","max_backlog":2097152,"max_message":1000000,"origins":["https://app.example.com","*.example.org"],` +
			`"ping_interval":60000000000,"publish":false,"replay":5,"slow":"drop","subscribe":true,"transports":["websocket","post"],` +
			`"user":"{http.auth.user.id}","write_timeout":1500000000}`},
		{"broadcast {\ncompression on\n}", `{"compression":{},"handler":"broadcast"}`},
		{"broadcast {\ncompression off\n}", `{"handler":"broadcast"}`},
		{"broadcast {\nrate 10\nmax_connections 100\nclose_on_reload\njoin room:* {query.me}:*\n}",
			`{"close_on_reload":true,"handler":"broadcast","join":["room:*","{http.request.uri.query.me}:*"],"max_connections":100,"rate":{"messages":10}}`},
		{"broadcast {\nrate 10/m 20\nmax_connections 100 per_ip 5\ntransports sse\n}",
			`{"handler":"broadcast","max_connections":100,"max_per_ip":5,"rate":{"burst":20,"messages":10,"per":60000000000},"transports":["sse"]}`},
	} {
		got, err := adapt(":80 {\n" + c.config + "\n}")
		if err != nil {
			t.Errorf("%s: %v", c.config, err)
			continue
		}
		var v struct {
			Apps struct {
				HTTP struct {
					Servers map[string]struct {
						Routes []struct{ Handle []json.RawMessage }
					}
				}
			}
		}
		if err := json.Unmarshal(got, &v); err != nil {
			t.Fatal(err)
		}
		if h := v.Apps.HTTP.Servers["srv0"].Routes[0].Handle[0]; string(h) != c.json {
			t.Errorf("%s:\n got %s\nwant %s", c.config, h, c.json)
		}
		var cfg caddy.Config
		if err := json.Unmarshal(got, &cfg); err != nil {
			t.Fatal(err)
		}
		if err := caddy.Validate(&cfg); err != nil {
			t.Errorf("%s: %v", c.config, err)
		}
	}

	got, err := adapt("{\nbroadcast {\nhistory 100 10m\nhistory_bytes 1MiB\ncoalesce 5ms\nshutdown_delay 3s\nmax_connections 1000\nmax_channels 10\nmax_memory 1GiB\n}\n}\n:80 {\nbroadcast /ws\nrespond hi\n}")
	if err != nil {
		t.Fatal(err)
	}
	if want := `"broadcast":{"coalesce":5000000,"history":100,"history_max_age":600000000000,"history_bytes":1048576,"max_memory":1073741824,"max_connections":1000,"max_channels":10,"shutdown_delay":3000000000}`; !bytes.Contains(got, []byte(want)) {
		t.Errorf("%s lacks %s", got, want)
	}
	if bytes.Index(got, []byte(`"handler":"broadcast"`)) > bytes.Index(got, []byte(`"handler":"static_response"`)) {
		t.Error("broadcast is not ordered before respond")
	}

	formatted := "example.com {\n\tbroadcast /ws {\n\t\tchannel news {path.1}\n\t\tpublish off\n\t}\n}\n"
	if got := caddyfile.Format([]byte(strings.ReplaceAll(formatted, "\t", "  "))); string(got) != formatted {
		t.Errorf("fmt: %s", got)
	}
}

func TestCaddyfileErrors(t *testing.T) {
	for _, c := range []struct {
		option string
		line   int
		want   string
	}{
		{"chanel a", 3, "unrecognized option chanel"},
		{"echo on\necho off", 4, "the option echo is given twice, first on line 3"},
		{"publish off\nsubscribe off", 2, "publish and subscribe are both off"},
		{"publish off\ntransports post", 2, "the only transport is post"},
		{"publish maybe", 3, `publish is "maybe", must be on or off`},
		{"publish", 3, "wrong argument count"},
		{"user", 3, "wrong argument count"},
		{"user a b", 3, "wrong argument count"},
		{"channel", 3, "wrong argument count"},
		{"channel a a", 2, `channel "a" is named twice`},
		{"channel \"\"", 2, `channel "" is empty`},
		{"channel " + strings.Repeat("x", 256), 2, "has 256 bytes, more than 255"},
		{"transports websocket carrier_pigeon", 2, `transport "carrier_pigeon" is not one of`},
		{"transports post post", 2, `transport "post" is named twice`},
		{"origins https://a.*.org", 2, "* stands alone"},
		{"ping_interval soon", 3, `ping_interval is "soon", must be a duration`},
		{"ping_interval 0", 3, "ping_interval is 0"},
		{"ipv6_prefix 0", 3, "ipv6_prefix is 0, must be 1 to 128"},
		{"ipv6_prefix 129", 2, "ipv6_prefix is 129, must be 1 to 128"},
		{"ping_interval 10ms", 2, "ping_interval is 10ms, must be 1s to 1h"},
		{"write_timeout -1s", 2, "write_timeout is -1s"},
		{"max_message big", 3, `max_message: "big" is no size`},
		{"max_message 0", 3, "max_message: is 0"},
		{"max_message 1GiB", 2, "max_message is 1073741824 bytes, must be 1 to 67108864"},
		{"max_backlog 1KiB", 2, "max_backlog is 1024 bytes, must be at least 65536"},
		{"max_backlog 18EiB", 3, "max_backlog:"},
		{"max_message 1MiB\nmax_backlog 512KiB", 2, "less than the 1048576 of max_message"},
		{"replay all", 3, `replay is "all", must be a whole number`},
		{"replay -1", 2, "replay is -1"},
		{"replay 1\nsubscribe off", 2, "nobody to replay to"},
		{"slow down", 2, `slow is "down", must be close or drop`},
		{"compression", 3, "must be off, on, or on <min_size>"},
		{"compression on lots", 3, `compression: "lots" is no size`},
		{"compression off 1KiB", 3, "must be off"},
		{"ping_interval 1500ms", 2, "ping_interval is 1.5s, must be whole seconds"},
		{"rate", 3, "rate"},
		{"close_on_reload yes", 3, "wrong argument count"},
		{"rate fast", 3, `rate is "fast", must be a number`},
		{"rate 5/d", 3, `rate is "5/d", must be a number from 1 on, with /s, /m or /h`},
		{"rate 0", 3, `rate is "0", must be a number`},
		{"rate 5 0", 3, `rate's burst is "0"`},
		{"max_connections many", 3, `max_connections is "many", must be a whole number`},
		{"max_connections 5 per_user 1", 3, "must be <n> [per_ip <n>]"},
		{"max_connections -1", 2, "max_connections is -1, must not be negative"},
		{"publish off\n\trate 5", 2, "publish is off, so there is no rate to limit"},
		{"subscribe off\n\tjoin a", 2, "subscribe is off, so there is nobody who could join"},
		{"subscribe off\n\ttransports sse", 2, "subscribe is off and the only transport is sse"},
		{"echo {\non\n}", 3, ""},
	} {
		_, err := adapt(":80 {\nbroadcast /ws {\n" + c.option + "\n}\n}")
		if err == nil {
			t.Errorf("%q is taken", c.option)
			continue
		}
		if !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), fmt.Sprintf("Caddyfile:%d", c.line)) {
			t.Errorf("%q: %v; want line %d, %s", c.option, err, c.line, c.want)
		}
	}
	if _, err := adapt(":80 {\nbroadcast /ws a {\nchannel b\n}\n}"); err == nil || !strings.Contains(err.Error(), "named twice") || !strings.Contains(err.Error(), "Caddyfile:3") {
		t.Errorf("channels in two places: %v", err)
	}
	for config, want := range map[string]string{
		"broadcast fast":                          "Caddyfile:2",
		"broadcast {\nhurry on\n}":                "Caddyfile:3",
		"broadcast {\nmax_channels many\n}":       "Caddyfile:3",
		"broadcast {\nmax_channels -1\n}":         "Caddyfile:2",
		"broadcast {\nmax_memory 1KiB\n}":         "Caddyfile:2",
		"events {\non * broadcast a b\n}":         "Caddyfile:3",
		"broadcast {\nhistory\n}":                 "Caddyfile:3",
		"broadcast {\nhistory 10 0s\n}":           "Caddyfile:3",
		"broadcast {\nhistory -1\n}":              "Caddyfile:2",
		"broadcast {\nhistory_bytes much\n}":      "Caddyfile:3",
		"broadcast {\ncoalesce 2s\n}":             "Caddyfile:2",
		"broadcast {\n}\nbroadcast {\n}":          "Caddyfile:4",
		"broadcast {\ncoalesce 0\ncoalesce 1s\n}": "Caddyfile:4",
	} {
		if _, err := adapt("{\n" + config + "\n}\n:80 {\nbroadcast\n}"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v; want %s", config, err, want)
		}
	}

	// The same from JSON, where there are no lines.
	for config, want := range map[string]string{
		`{"publish":false,"subscribe":false}`: "both off",
		`{"max_backlog":1}`:                   "max_backlog is 1",
		`{"ping_interval":"-1s"}`:             "ping_interval is -1s",
		`{"origins":["://"]}`:                 "origin",
		`{"echos":true}`:                      "unknown field",
		`{"compression":{"min_size":-1}}`:     "min_size is -1",
		`{"rate":{}}`:                         "rate: messages must be at least 1",
		`{"max_per_ip":-1}`:                   "per_ip is -1",
	} {
		handler := strings.Replace(config, "{", `{"handler":"broadcast",`, 1)
		var cfg caddy.Config
		raw := `{"admin":{"disabled":true},"apps":{"http":{"servers":{"a":{"listen":[":80"],"routes":[{"handle":[` + handler + `]}]}}}}}`
		if err := json.Unmarshal([]byte(raw), &cfg); err != nil {
			t.Fatal(err)
		}
		if err := caddy.Validate(&cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %s", config, err, want)
		}
	}
}

func FuzzCaddyfile(f *testing.F) {
	f.Add("broadcast /ws a b {\n\tchannel c\n\torigins https://*.example.com\n\tmax_message 1MiB\n}")
	f.Add("broadcast {\n\tcompression on 1KiB\n\tping_interval 1d\n\tpublish off\n\tslow drop\n}")
	f.Add("broadcast {\n\tgreeting `a\nb`\n\techo {\n\t}\n}")
	f.Fuzz(func(t *testing.T, input string) {
		tokens, err := caddyfile.Tokenize([]byte(input), "Caddyfile")
		if err != nil || len(tokens) == 0 {
			return
		}
		var h broadcast.Handler
		if err := h.UnmarshalCaddyfile(caddyfile.NewDispenser(tokens)); err != nil {
			if !strings.Contains(err.Error(), "Caddyfile:") {
				t.Fatalf("the error names no place: %v", err)
			}
			return
		}
		// What is taken survives as JSON.
		first, err := json.Marshal(h)
		if err != nil {
			t.Fatal(err)
		}
		var again broadcast.Handler
		if err := caddy.StrictUnmarshalJSON(first, &again); err != nil {
			t.Fatal(err)
		}
		if second, _ := json.Marshal(again); !bytes.Equal(first, second) {
			t.Fatalf("%s becomes %s", first, second)
		}
	})
}

// clock is a Caddy app of somebody else's that publishes.
type clock struct {
	hub *broadcast.Hub
}

func (clock) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "clock", New: func() caddy.Module { return new(clock) }}
}

func (c *clock) Provision(ctx caddy.Context) error {
	c.hub = broadcast.From(ctx)
	return nil
}

func (c *clock) Start() error {
	_, err := c.hub.Publish(broadcast.Message{Channel: "time", Event: "tick", Data: []byte("it is five")})
	fmt.Println("published:", err)
	return err
}

func (c *clock) Stop() error { return nil }

func init() { caddy.RegisterModule(clock{}) }

// A Caddy app gets the hub when it is provisioned, and publishes when it likes:
//
//	func (c *clock) Provision(ctx caddy.Context) error {
//		c.hub = broadcast.From(ctx)
//		return nil
//	}
//
//	func (c *clock) Start() error {
//		_, err := c.hub.Publish(broadcast.Message{Channel: "time", Event: "tick", Data: []byte("it is five")})
//		fmt.Println("published:", err)
//		return err
//	}
func ExampleFrom() {
	err := caddy.Run(&caddy.Config{
		Admin:   &caddy.AdminConfig{Disabled: true},
		AppsRaw: caddy.ModuleMap{"clock": []byte("{}")},
	})
	fmt.Println("running:", err)
	caddy.Stop()
	// Output:
	// published: <nil>
	// running: <nil>
}

func TestGoAPI(t *testing.T) {
	s := start(t, `broadcast /ws time`)
	c := s.dial("/ws", nil)
	ctx, cancel := caddy.NewContext(caddy.ActiveContext())
	defer cancel()
	hub := broadcast.From(ctx)
	id, err := hub.Publish(broadcast.Message{Channel: "time", Event: "tick", Data: []byte("it is five")})
	if err != nil || id != s.totals().ID {
		t.Fatal(id, err)
	}
	s.expect(c, "it is five")
	if _, err := hub.Publish(broadcast.Message{Channel: "time", Data: []byte{0xff}, Binary: true}); err != nil {
		t.Fatal(err)
	}
	s.expect(c, "\xff")
	if _, err := hub.Publish(broadcast.Message{Channel: "time", Data: []byte(`{"hour":5}`), JSON: true}); err != nil {
		t.Fatal(err)
	}
	s.expect(c, `{"hour":5}`)
	for _, m := range []broadcast.Message{
		{Data: []byte("{"), JSON: true},
		{Data: []byte("{}"), JSON: true, Binary: true},
		{Data: []byte{0xff}},
		{Channel: "a\n"},
		{Event: strings.Repeat("x", 256)},
	} {
		if _, err := hub.Publish(m); err == nil {
			t.Errorf("%+v is published", m)
		}
	}
}
