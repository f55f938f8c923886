package integration

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
)

func TestOneLine(t *testing.T) {
	s := caddytest.Start(t, `broadcast /ws
		respond "the page"`)
	a, b := s.Dial("/ws", nil), s.Dial("/ws", nil)
	s.Send(a, "hello")
	s.Expect(a, "hello")
	s.Expect(b, "hello")
	if err := b.Write(t.Context(), websocket.MessageBinary, []byte{0, 0xff}); err != nil {
		t.Fatal(err)
	}
	if kind, got, err := a.Read(t.Context()); err != nil || kind != websocket.MessageBinary || string(got) != "\x00\xff" {
		t.Fatalf("binary: %v %q %v", kind, got, err)
	}
	s.Expect(b, "\x00\xff")

	if status, body := s.Do("GET", s.Addr+"/ws", ""); status != 200 || body != "the page" {
		t.Errorf("a plain GET does not go to the next handler: %d %q", status, body)
	}
	if status, body := s.Do("PUT", s.Addr+"/ws", "x"); status != 200 || body != "the page" {
		t.Errorf("a PUT does not go to the next handler: %d %q", status, body)
	}
	a.Close(websocket.StatusNormalClosure, "")
	s.WaitTotals(func(v caddytest.Totals) bool { return v.Connections == 1 })
	v := s.Totals()
	if v.Messages != 2 || v.Bytes != 7 || v.Channels != 1 || v.Deliveries != 4 || v.DeliveredBytes != 22 || !strings.HasSuffix(v.ID, "-2") {
		t.Errorf("totals: %+v", v)
	}
}

func TestQuickstart(t *testing.T) {
	t.Chdir("../..") // the Caddyfile's paths are relative to the README's checkout
	config, err := os.ReadFile("examples/quickstart/Caddyfile")
	if err != nil {
		t.Fatal(err)
	}
	body := string(config)
	body = body[strings.Index(body, "{")+1 : strings.LastIndex(body, "}")]
	s := caddytest.Start(t, body)
	status, page := s.Do("GET", s.Addr+"/", "")
	if status != 200 || !strings.Contains(page, "new WebSocket(") {
		t.Fatalf("the page: %d %.200q", status, page)
	}
	if regexp.MustCompile(`(src|href)="https?:`).MatchString(page) {
		t.Error("the page loads things from elsewhere")
	}
	c := s.Dial("/ws", nil)
	if status, body := s.Post(s.Admin+"/broadcast/publish", "application/x-www-form-urlencoded", "hello"); status != 200 {
		t.Fatal(status, body)
	}
	s.Expect(c, "hello")
}

// The routes of TestEveryMessageOnce, and the channels of each, which have names of one letter.
var (
	oncePaths    = []string{"/all", "/own/a", "/own/b", "/own/c", "/both/a", "/both/c"}
	onceChannels = []string{"abc", "a", "b", "c", "ab", "bc"}
)

// TestEveryMessageOnce is the promise: whoever publishes, in whatever way, every connection sees its channels'
// messages once, all in the same order, and none of another channel.
func TestEveryMessageOnce(t *testing.T) {
	s := caddytest.Start(t, `broadcast /all a b c
		broadcast /own/* {path.1}
		broadcast /both/* {path.1} b {
			compression on 1
		}`)
	const each, readers = 250, 100
	got := make([][]string, readers)
	var reading, publishing sync.WaitGroup
	for i := range readers {
		o := &websocket.DialOptions{}
		if i%2 == 0 {
			o.CompressionMode = websocket.CompressionNoContextTakeover
		}
		c := s.Dial(oncePaths[i%len(oncePaths)], o)
		reading.Go(func() { got[i] = readToEnds(t, c, len(onceChannels[i%len(onceChannels)])) })
	}
	// Two publish on sockets, one by POST, one by the admin API, each on a channel and then the next.
	sent := make([]map[string][]string, 4)
	for p := range sent {
		sent[p] = make(map[string][]string)
		sockets := dialEachChannel(t, s)
		publishing.Go(func() {
			for i := range each {
				ch := "abc"[(i+p)%3]
				m := fmt.Sprintf("%c %d %d", ch, p, i)
				sent[p][string(ch)] = append(sent[p][string(ch)], m)
				publishInWay(t, s, p, sockets[ch], string(ch), m)
			}
		})
	}
	publishing.Wait()
	s.WaitTotals(func(v caddytest.Totals) bool { return v.Messages == 4*each })
	for _, ch := range "abc" {
		s.Post(s.Admin+"/broadcast/publish?channel="+string(ch), "text/plain", fmt.Sprintf("%c end", ch))
	}
	reading.Wait()

	all := got[0]
	if len(all) != 4*each+3 {
		t.Fatalf("%d messages, not %d", len(all), 4*each+3)
	}
	for p := range sent {
		wantOrderOf(t, p, sent[p], all)
	}
	for i := range got {
		channels := onceChannels[i%len(onceChannels)]
		want := slices.DeleteFunc(slices.Clone(all), func(m string) bool { return !strings.Contains(channels, m[:1]) })
		if !slices.Equal(got[i], want) {
			t.Fatalf("connection %d on %s got %d messages, not %d, or in another order", i, oncePaths[i%len(oncePaths)], len(got[i]), len(want))
		}
	}
}

// readToEnds reads until a number of channels have ended.
func readToEnds(t *testing.T, c *websocket.Conn, channels int) (got []string) {
	for channels > 0 {
		_, p, err := c.Read(t.Context())
		if err != nil {
			t.Error(err)
			return got
		}
		if strings.HasSuffix(string(p), "end") {
			channels--
		}
		got = append(got, string(p))
	}
	return got
}

// dialEachChannel opens a socket on each channel, and takes its echoes.
func dialEachChannel(t *testing.T, s *caddytest.Server) map[byte]*websocket.Conn {
	sockets := make(map[byte]*websocket.Conn)
	for _, ch := range []byte("abc") {
		c := s.Dial("/own/"+string(ch), nil)
		sockets[ch] = c
		go func() {
			for {
				if _, _, err := c.Read(t.Context()); err != nil {
					return
				}
			}
		}()
	}
	return sockets
}

// publishInWay publishes on a socket in the ways 0 and 1, by POST in 2, by the admin API in 3.
func publishInWay(t *testing.T, s *caddytest.Server, way int, socket *websocket.Conn, channel, m string) {
	switch way {
	case 0, 1:
		if err := socket.Write(t.Context(), websocket.MessageText, []byte(m)); err != nil {
			t.Error(err)
		}
	case 2:
		if status, body := s.Post(s.Addr+"/own/"+channel, "text/plain", m); status != 200 {
			t.Error(status, body)
		}
	case 3:
		if status, body := s.Post(s.Admin+"/broadcast/publish?channel="+channel, "text/plain", m); status != 200 {
			t.Error(status, body)
		}
	}
}

// wantOrderOf: what one publisher sent on one channel is there, and keeps its order where each message is answered
// before the next.
func wantOrderOf(t *testing.T, publisher int, sent map[string][]string, all []string) {
	t.Helper()
	for ch, want := range sent {
		var have []string
		for _, m := range all {
			if strings.HasPrefix(m, fmt.Sprintf("%s %d ", ch, publisher)) {
				have = append(have, m)
			}
		}
		if publisher > 1 && !slices.Equal(have, want) || len(have) != len(want) {
			t.Errorf("publisher %d on %s: %v, not %v", publisher, ch, have, want)
		}
	}
}

// TestPublishOnly: a route that only publishes takes it for all of its channels, by every transport.
func TestPublishOnly(t *testing.T) {
	s := caddytest.Start(t, `broadcast /in a b {
			subscribe off
			user {query.user}
		}
		broadcast /out a b`)
	out := s.Dial("/out", nil)
	v1 := s.Dial("/in", &websocket.DialOptions{Subprotocols: []string{"broadcast.v1"}})
	v1.Read(t.Context())
	s.Send(v1, `[{"publish":{"data":"to a"}},{"publish":{"channel":"b","data":"to b"}},{"join":{"channel":"a"},"ref":1}]`)
	s.Expect(v1, `[{"error":{"ref":1,"code":"forbidden","message":"the channel \"a\" may not be joined on this route"}}]`)
	s.Post(s.Addr+"/in?channel=b", "text/plain", "posted to b")
	s.Expect(out, "to a", "to b", "posted to b")
	for _, user := range []string{strings.Repeat("x", 256), "a%00", "%ff"} {
		if status, _ := s.Post(s.Addr+"/in?user="+user, "text/plain", "x"); status != 400 {
			t.Errorf("the user %.10s: %d", user, status)
		}
		if _, resp, err := s.TryDial("/in?user="+user, nil); err == nil || resp == nil || resp.StatusCode != 400 {
			t.Errorf("the user %.10s: %v %v", user, resp, err)
		}
	}
}

// TestComeAndGo leaves no goroutine, channel or count behind.
func TestComeAndGo(t *testing.T) {
	s := caddytest.Start(t, `broadcast /ws/* {path.1}`)
	warm := s.Dial("/ws/warm", nil)
	warm.CloseNow()
	s.WaitTotals(func(v caddytest.Totals) bool { return v.Connections == 0 })
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
				s.Post(s.Admin+"/broadcast/publish?channel=0", "text/plain", "x")
			}
		}
	})
	for w := range 8 {
		wg.Go(func() {
			for i := range n / 8 {
				c, _, _, err := ws.Dial(t.Context(), fmt.Sprintf("ws://%s/ws/%d", s.Addr, w*(i%7)))
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
	s.WaitTotals(func(v caddytest.Totals) bool { return v.Connections == 0 && v.Channels == 0 && v.Backlog == 0 })
	http.DefaultClient.CloseIdleConnections()
	for deadline := time.Now().Add(20 * time.Second); runtime.NumGoroutine() > before; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			buf := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, before %d\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
		}
	}
}
