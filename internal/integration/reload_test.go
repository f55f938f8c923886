package integration

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/coder/websocket"

	broadcast "github.com/caddy-broadcast/caddy-broadcast"
	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
)

// TestReload: connections outlive a change of the configuration, and lose nothing; without the module they are told.
func TestReload(t *testing.T) {
	s := caddytest.Start(t, `broadcast /ws`)
	a, b := s.Dial("/ws", nil), s.Dial("/ws", nil)
	id := s.Totals().ID
	for i := range 5 {
		if err := s.Load(fmt.Sprintf("broadcast {\n max_channels %d\n}\n---\nheader X-Round %d\nbroadcast /ws", 10+i, i)); err != nil {
			t.Fatal(err)
		}
		s.Send(a, fmt.Sprint("round ", i))
		s.Expect(b, fmt.Sprint("round ", i))
	}
	if now := s.Totals().ID; strings.Split(now, "-")[0] != strings.Split(id, "-")[0] {
		t.Errorf("another hub: %s, then %s", id, now)
	}
	if err := s.Load("broadcast /ws {\n origins ://\n}"); err == nil {
		t.Error("a bad configuration was loaded")
	}
	s.Send(a, "still here")
	s.Expect(b, "still here")

	if err := s.Load(`respond "no more"`); err != nil {
		t.Fatal(err)
	}
	s.ExpectClose(b, websocket.StatusServiceRestart)
	if status, body := s.Do("GET", s.Admin+"/broadcast", ""); status != 404 {
		t.Errorf("the admin API without the module: %d %s", status, body)
	}
}

// TestRefusedConfig: a configuration that cannot be started changes nothing.
func TestRefusedConfig(t *testing.T) {
	config := `broadcast {
			history 5
			max_connections 2
		}
		---
		broadcast /ws`
	s := caddytest.Start(t, config)
	c := s.Dial("/ws", nil)
	for range 5 {
		s.Publish("channel=kept", "x")
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0") // without the option that lets Caddy share it
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for range 20 { // Caddy starts apps in no particular order
		err := s.Load(`broadcast {
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
	if v := s.Totals(); v.History != 5 {
		t.Errorf("%d messages are kept of 5", v.History)
	}
	s.Dial("/ws", nil) // the second
	s.Publish("", "still here")
	s.Expect(c, "still here")
	if _, resp, err := s.TryDial("/ws", nil); err == nil || resp == nil || resp.StatusCode != 503 {
		t.Errorf("the third: %v %v", resp, err)
	}
}

// manyReloads is how many clients there are, and how many reloads: fewer where it would take long.
func manyReloads() (clients, reloads int) {
	info, ok := debug.ReadBuildInfo()
	if testing.Short() || ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		return 200, 20
	}
	return 2000, 100
}

// reloadConfig is the i-th configuration, which differs from the one before it in options and routes.
func reloadConfig(i, clients int) string {
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

// dialSomeKind opens an event stream, a broadcast.v1 WebSocket or a raw one, in turn, without reading anything.
func dialSomeKind(t *testing.T, addr string, i int) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	request := "GET /ws HTTP/1.1\r\nHost: " + addr + "\r\n"
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
	return c
}

// countMarks reads until an end, and counts marks, whatever is around them.
func countMarks(r io.Reader, mark, end string) (count int, err error) {
	buf := make([]byte, 4096)
	tail := ""
	for {
		n, err := r.Read(buf)
		text := tail + string(buf[:n])
		count += strings.Count(text, mark)
		if strings.Contains(text, end) {
			return count, nil
		}
		tail = text[max(0, len(text)-len(mark)+1):]
		if err != nil {
			return count, err
		}
	}
}

// publishWhile publishes a message every 2 ms while there are reloads, five of them before each, and then an end. It
// returns how many messages there were before the end.
func publishWhile(t *testing.T, mark, end string, reloads int, reload func(i int)) (published int) {
	ctx, cancel := caddy.NewContext(caddy.ActiveContext())
	defer cancel()
	h := broadcast.From(ctx)
	publish := func(data string) {
		if _, err := h.Publish(broadcast.Message{Data: []byte(data)}); err != nil {
			t.Error(err)
		}
	}
	between := make(chan struct{}, 1000) // a message was published
	stop := make(chan struct{})
	var publishing sync.WaitGroup
	publishing.Go(func() {
		ticker := time.NewTicker(2 * time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				publish(mark)
				published++
				between <- struct{}{}
			case <-stop:
				return
			}
		}
	})
	for i := range reloads {
		for range 5 {
			<-between
		}
		reload(i)
	}
	close(stop)
	publishing.Wait()
	publish(end)
	return published
}

// TestManyReloads: two thousand clients of all kinds notice nothing of a hundred reloads, which change options and
// routes, while messages are published.
func TestManyReloads(t *testing.T) {
	clients, reloads := manyReloads()
	s := caddytest.Start(t, reloadConfig(0, clients))
	const mark, end = "<message>", "<the end>"
	var reading sync.WaitGroup
	counts := make([]int, clients)
	for i := range clients {
		c := dialSomeKind(t, s.Addr, i)
		reading.Go(func() {
			var err error
			if counts[i], err = countMarks(c, mark, end); err != nil {
				t.Errorf("client %d: %v", i, err)
			}
		})
	}
	s.WaitTotals(func(v caddytest.Totals) bool { return v.Connections == clients })
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	goroutines := runtime.NumGoroutine()

	published := publishWhile(t, mark, end, reloads, func(i int) {
		if err := s.Load(reloadConfig(i+1, clients)); err != nil {
			t.Fatal(err)
		}
	})
	reading.Wait()
	for i, n := range counts {
		if n != published {
			t.Fatalf("client %d got %d of %d messages", i, n, published)
		}
	}
	if v := s.Totals(); v.Connections != clients {
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
	s := caddytest.Start(t, config)
	gone, stays := s.Dial("/close", nil), s.Dial("/stay", nil)
	v1 := s.Dial("/close", &websocket.DialOptions{Subprotocols: []string{"broadcast.v1"}})
	_, stream := s.Stream("http://" + s.Addr + "/close")
	stream()
	stream()
	if err := s.Load(config + "\nrespond changed"); err != nil {
		t.Fatal(err)
	}
	s.ExpectClose(gone, websocket.StatusServiceRestart)
	s.ExpectClose(v1, websocket.StatusServiceRestart)
	if got := stream(); !strings.HasPrefix(got, "retry") {
		t.Errorf("the stream says %q", got)
	}
	s.Publish("", "still here")
	s.Expect(stays, "still here")
	s.Expect(s.Dial("/close", nil))
	s.WaitLog(`"reason":"restart"`)
}

func TestHandlersInFront(t *testing.T) {
	s := caddytest.Start(t, `servers {
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
	c, resp, err := websocket.Dial(t.Context(), "ws://"+s.Addr+"/ws", &websocket.DialOptions{
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
	s.Send(c, "hello")
	s.Expect(c, "hello")

	if _, resp, err := websocket.Dial(t.Context(), "ws://"+s.Addr+"/private", nil); err == nil || resp.StatusCode != 401 {
		t.Errorf("without a password: %v %v", resp, err)
	}
	private := s.Dial("/private", &websocket.DialOptions{HTTPHeader: http.Header{"Authorization": {"Basic QW5uOmhpY2N1cA=="}}})
	s.Expect(private, "hello Ann")
	if _, resp, err := websocket.Dial(t.Context(), "ws://"+s.Addr+"/ws", &websocket.DialOptions{Subprotocols: []string{"a/b"}}); err == nil || resp.StatusCode != 400 {
		t.Errorf("a bad subprotocol: %v %v", resp, err)
	}
	for _, want := range []string{`"status":101`, `"status":401`, `"status":400`, `"channels":["default"],"user":"Ann"`} {
		s.WaitLog(want)
	}
	log, _ := os.ReadFile(s.Log)
	if bytes.Contains(log, []byte("panic")) || bytes.Contains(log, []byte("superfluous")) {
		t.Errorf("the log: %s", log)
	}
	if _, body := s.Do("GET", s.Admin+"/metrics", ""); !strings.Contains(body, `code="101"`) {
		t.Error("Caddy's metrics do not know of the handshake")
	}
}
