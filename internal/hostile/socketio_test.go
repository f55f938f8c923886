package hostile_test

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/coder/websocket"

	"github.com/gobwas/ws"

	"github.com/caddy-broadcast/caddy-broadcast/internal/frame/frametest"
)

const socketIOPath = "/socket.io/?"

// ask sends a request, and returns the status and the body.
func (s *server) ask(t *testing.T, method, query, body, header string) string {
	t.Helper()
	r, err := http.NewRequest(cmp.Or(method, "GET"), "http://"+s.addr+socketIOPath+query, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if name, value, ok := strings.Cut(header, ": "); ok {
		r.Header.Set(name, value)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	p, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Error(err)
	}
	return fmt.Sprintf("%d %s", resp.StatusCode, p)
}

// poller is a client that polls, with the query of its session.
type poller struct {
	s   *server
	own string
}

func (s *server) poll(t *testing.T) *poller {
	t.Helper()
	const query = "EIO=4&transport=polling"
	body := s.ask(t, "", query, "", "")
	_, rest, ok := strings.Cut(body, `0{"sid":"`)
	sid, _, _ := strings.Cut(rest, `"`)
	if !ok {
		t.Fatal(body)
	}
	return &poller{s, query + "&sid=" + sid}
}

func (p *poller) get(t *testing.T) string { t.Helper(); return p.s.ask(t, "", p.own, "", "") }
func (p *poller) post(t *testing.T, b string) string {
	t.Helper()
	return p.s.ask(t, "POST", p.own, b, "")
}

// lives: the session goes on.
func (p *poller) lives(t *testing.T) {
	t.Helper()
	if got := p.post(t, asks); got != "200 ok" {
		t.Error(got)
	}
	for got := ""; !strings.Contains(got, connected); {
		if got = p.get(t); !strings.HasPrefix(got, "200 ") {
			t.Fatal(got)
		}
	}
	p.post(t, "1")
}

// polls has a client send packets in a POST.
func (r *packets) polls(t *testing.T, s *server) {
	p := s.poll(t)
	if !r.early {
		p.post(t, "40")
	}
	encoded := make([]string, len(r.send))
	for i, packet := range r.send {
		if encoded[i] = packet; strings.HasPrefix(packet, "b") {
			encoded[i] = "bZGF0YQ=="
			if len(packet) > 100 {
				encoded[i] = "b" + strings.Repeat("A", (len(packet)-1)/3*4)
			}
		}
	}
	got := p.post(t, strings.Join(encoded, "\x1e"))
	if r.want == "" {
		if got != badRequest && (r.code != 1009 || !strings.HasPrefix(got, "413 ")) {
			t.Error(got)
		}
		if got := p.get(t); got != unknownSession {
			t.Error("after its end:", got)
		}
		return
	}
	if got != "200 ok" {
		t.Error(got)
	}
	for got := ""; !strings.Contains(got, r.want); {
		if got = p.get(t); !strings.HasPrefix(got, "200 ") {
			t.Fatal(got)
		}
	}
	p.post(t, "1")
}

// dials has a client send packets by a WebSocket.
func (r *packets) dials(t *testing.T, s *server) {
	p := s.socket(t, "EIO=4&transport=websocket")
	if !r.early {
		io.WriteString(p, frameOf("40"))
	}
	go func() {
		for _, packet := range r.send {
			io.WriteString(p, frameOf(packet))
		}
	}()
	if r.want == "" {
		if got, want := p.end(t), cmp.Or(r.code, 1002); got != want {
			t.Errorf("closed with %d, not %d", got, want)
		}
		return
	}
	p.expect(t, r.want)
	io.WriteString(p, frameOf("1"))
	if got := p.end(t); got != 1000 {
		t.Errorf("closed with %d", got)
	}
}

// socket opens a WebSocket.
func (s *server) socket(t *testing.T, query string) *peer {
	t.Helper()
	p := dial(t, s.addr)
	io.WriteString(p, strings.Replace(with("\r\n"), "/ws", socketIOPath+query, 1))
	if resp := p.answer(t); resp.StatusCode != 101 {
		t.Fatal(resp.Status)
	}
	return p
}

// expect reads until a packet comes that begins as it should.
func (p *peer) expect(t *testing.T, want string) {
	t.Helper()
	for {
		f, err := frametest.Read(p.r)
		if err != nil || f.Header.OpCode == ws.OpClose {
			t.Fatalf("%q does not come, but %v %q", want, err, f.Payload)
		}
		if strings.HasPrefix(string(f.Payload), want) {
			return
		}
	}
}

// innocent is a page that gets each number, in order, by WebSocket or by polling.
func (s *server) innocent(ctx context.Context, t *testing.T, polls bool) (got int) {
	var next func() []string
	var pong func()
	if polls {
		p := s.poll(t)
		p.post(t, "40")
		defer p.post(t, "1")
		pong = func() { p.post(t, "3") }
		next = func() []string { return strings.Split(strings.TrimPrefix(p.get(t), "200 "), "\x1e") }
	} else {
		c, _, err := websocket.Dial(ctx, "ws://"+s.addr+socketIOPath+"EIO=4&transport=websocket", nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer c.CloseNow()
		c.Write(ctx, websocket.MessageText, []byte("40"))
		pong = func() { c.Write(ctx, websocket.MessageText, []byte("3")) }
		next = func() []string {
			_, p, err := c.Read(ctx)
			if err != nil {
				return []string{err.Error()}
			}
			return []string{string(p)}
		}
	}
	first := true
	for {
		for _, packet := range next() {
			text, ok := strings.CutPrefix(packet, `42["message","`)
			text = strings.TrimSuffix(text, `"]`)
			var n int
			_, err := fmt.Sscan(text, &n)
			switch {
			case packet == "2":
				pong()
			case strings.HasPrefix(packet, "0{") || strings.HasPrefix(packet, "40"):
			case text == "last":
				return got
			case !ok || err != nil || !first && n != got:
				t.Errorf("the page, polling %v, got %q, not %d", polls, packet, got)
				return got
			default:
				got, first = n+1, false
			}
		}
	}
}

// TestHostileSocketIO is TestHostile for clients of Socket.IO.
func TestHostileSocketIO(t *testing.T) {
	s := start(t)
	var got [2]int
	var pages []func(context.Context)
	for i := range got {
		pages = append(pages, func(ctx context.Context) { got[i] = s.innocent(ctx, t, i == 0) })
	}
	o := s.attack(t, pages, func(play func(string, func(*testing.T))) {
		for _, r := range sessions() {
			play("polling/"+r.name, func(t *testing.T) { r.polls(t, s) })
			play("websocket/"+r.name, func(t *testing.T) { r.dials(t, s) })
		}
		for _, r := range requests() {
			play(r.name, func(t *testing.T) { r.run(t, s) })
		}
		for name, f := range plays {
			play(name, func(t *testing.T) { f(t, s) })
		}
	})
	if got[0] != o.published || got[1] != o.published {
		t.Errorf("the pages got %d and %d messages of %d", got[0], got[1], o.published)
	}
}

// run sends the request to a session that polls.
func (r request) run(t *testing.T, s *server) {
	p := s.poll(t)
	_, sid, _ := strings.Cut(p.own, "sid=")
	if got := s.ask(t, r.method, strings.Replace(r.query, "SID", sid, 1), r.body, r.header); !strings.HasPrefix(got, r.want) {
		t.Errorf("got %q, want %q", got, r.want)
	}
	if r.lives {
		p.lives(t)
	} else if got := p.get(t); got != unknownSession {
		t.Error("after its end:", got)
	}
}

// plays are clients that do more than to send.
var plays = map[string]func(*testing.T, *server){
	"two GETs": func(t *testing.T, s *server) {
		p := s.poll(t)
		got := make(chan string, 2)
		for range 2 {
			go func() { got <- p.get(t) }()
		}
		// One waits until the other comes, and whichever that is ends the session.
		if a, b := <-got, <-got; a != badRequest && b != badRequest || a != "200 1" && b != "200 1" {
			t.Error(a, b)
		}
		if got := p.get(t); got != unknownSession {
			t.Error(got)
		}
	},
	"two POSTs": func(t *testing.T, s *server) {
		p := s.poll(t)
		c := dial(t, s.addr)
		fmt.Fprintf(c, "POST %s%s HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n4", socketIOPath, p.own)
		// The first one may not have been noticed yet.
		eventually(t, "the session ends", func() bool { return p.post(t, "3") != "200 ok" })
		io.WriteString(c, "0")
		if got := p.get(t); got != unknownSession {
			t.Error(got)
		}
	},
	"a GET that breaks": func(t *testing.T, s *server) {
		p := s.poll(t)
		c := dial(t, s.addr)
		fmt.Fprintf(c, "GET %s%s HTTP/1.1\r\nHost: h\r\n\r\n", socketIOPath, p.own)
		c.Close()
		eventually(t, "the session ends", func() bool { return p.post(t, "3") == unknownSession })
	},
	"a POST that breaks": func(t *testing.T, s *server) {
		p := s.poll(t)
		c := dial(t, s.addr)
		fmt.Fprintf(c, "POST %s%s HTTP/1.1\r\nHost: h\r\nContent-Length: 200\r\n\r\n40", socketIOPath, p.own)
		c.CloseWrite()
		eventually(t, "the session ends", func() bool { return p.get(t) == unknownSession })
	},
	"an upgrade of a session that is none": func(t *testing.T, s *server) {
		p := dial(t, s.addr)
		io.WriteString(p, strings.Replace(with("\r\n"), "/ws", socketIOPath+"EIO=4&transport=websocket&sid=none", 1))
		if resp := p.answer(t); resp.StatusCode != 400 {
			t.Error(resp.Status)
		}
	},
	"polling with an upgrade": func(t *testing.T, s *server) {
		p := dial(t, s.addr)
		io.WriteString(p, strings.Replace(with("\r\n"), "/ws", socketIOPath+"EIO=4&transport=polling", 1))
		if resp := p.answer(t); resp.StatusCode != 400 {
			t.Error(resp.Status)
		}
	},
	"upgrades that fail": func(t *testing.T, s *server) {
		p := s.poll(t)
		p.post(t, "40")
		query := strings.Replace(p.own, "polling", "websocket", 1)
		for _, sends := range []string{
			frameOf("5"), frameOf("3probe"), frameOf("2"), frameOf(""), frameOf("bprobe"), frameOf(`42["x"]`), frameOf("2probe") + frameOf("2probe"),
			frameOf("2probe") + frameOf("1"), mask(0x83, ""), mask(0x01, "2") + mask(0x01, "x"),
		} {
			c := s.socket(t, query)
			io.WriteString(c, sends)
			if got := c.end(t); got != 1002 {
				t.Errorf("%q: closed with %d", sends, got)
			}
		}
		c := s.socket(t, query)
		io.WriteString(c, mask(0x81, strings.Repeat("2probe", 1000))[:3000]) // half of a long one
		c.end(t)
		c = s.socket(t, query)
		io.WriteString(c, frameOf("2probe"))
		c.Close()
		p.lives(t)
	},
	"a second upgrade": func(t *testing.T, s *server) {
		p := s.poll(t)
		p.post(t, "40")
		query := strings.Replace(p.own, "polling", "websocket", 1)
		c := s.socket(t, query)
		io.WriteString(c, frameOf("2probe")+frameOf("5")+frameOf(asks))
		c.expect(t, connected)
		d := dial(t, s.addr)
		io.WriteString(d, strings.Replace(with("\r\n"), "/ws", socketIOPath+query, 1))
		if resp := d.answer(t); resp.StatusCode != 400 {
			t.Error(resp.Status)
		}
		if got, more := p.get(t), p.post(t, "3"); got != badRequest || more != badRequest {
			t.Error(got, more)
		}
		io.WriteString(c, frameOf("41/chat,")+frameOf(asks))
		c.expect(t, connected)
	},
	"frames": func(t *testing.T, s *server) {
		var all sync.WaitGroup
		defer all.Wait()
		for sends, want := range map[string]int{
			mask(0x81, strings.Repeat("x", 3*maxMessage)): 1009, mask(0x81, "4\xff"): 1007, mask(0x83, ""): 1002, mask(0x81, "1"): 1000, goodbye(1001, ""): 1001,
		} {
			c := s.socket(t, "EIO=4&transport=websocket")
			all.Go(func() {
				go io.WriteString(c, sends)
				if got := c.end(t); got != want {
					t.Errorf("%.20q: closed with %d, not %d", sends, got, want)
				}
			})
		}
	},
	"a thousand sessions without CONNECT": func(t *testing.T, s *server) {
		var all sync.WaitGroup
		for range 10 {
			all.Go(func() {
				for range 100 {
					s.poll(t).post(t, "1")
				}
			})
		}
		all.Wait()
	},
	"a client that takes nothing": func(t *testing.T, s *server) {
		p := s.poll(t)
		p.post(t, "40")
		acks := strings.TrimSuffix(strings.Repeat("421[\"join\"]\x1e", 1000), "\x1e")
		eventually(t, "the session ends", func() bool { return p.post(t, acks) != "200 ok" })
	},
}
