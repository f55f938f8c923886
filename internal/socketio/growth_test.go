package socketio_test

import (
	"fmt"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/frame"
	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/protocol"
	"github.com/caddy-broadcast/caddy-broadcast/internal/socketio"
)

// The benchmarks in this file are what things cost beside so many others: ns per operation has to stay the same as the sizes
// grow, except by what the caches of the processor make of it. Nothing is written to sockets.

var crowds, manyRooms = []int{100, 1000, 10_000}, []int{10, 1000, 100_000}

// crowd is a route with clients.
type crowd struct {
	*testing.B
	*socketio.Endpoint
	protocol socketio.Protocol

	left atomic.Int64 // writes to clients until done gets a value
	done chan struct{}
}

// counted is a sink that takes everything, and counts writes.
type counted struct {
	void
	*crowd
}

func (c counted) TryWrite(p []byte) (int, error) {
	if c.left.Add(-1) == 0 {
		c.done <- struct{}{}
	}
	return len(p), nil
}

// publish publishes a message that so many clients get, and waits until they have it: or many messages would share a write.
func (c *crowd) publish(channel string, clients int) {
	c.left.Store(int64(clients))
	if err := c.Hub.PublishWait(&hub.Message{Channel: channel, Event: "update", Data: []byte(`{"price":3}`), Kind: hub.JSON}); err != nil {
		c.Fatal(err)
	}
	<-c.done
}

func newCrowd(b *testing.B) *crowd {
	h := hub.New(hub.Config{})
	b.Cleanup(func() { h.Close(hub.ReasonRestart, "", 0, time.Millisecond) })
	table := socketio.NewTable()
	e := &socketio.Endpoint{Endpoint: &protocol.Endpoint{Hub: h, MaxMessage: 1 << 20}, Table: table, Route: "route", JoinEvent: "join", LeaveEvent: "leave"}
	p := socketio.Protocol{Endpoint: e}
	e.Polling = &hub.ConnOptions{
		Transport: "polling", Format: p.Format(0), PingInterval: time.Hour, WriteTimeout: time.Second,
		MaxBacklog: hub.MinBacklog, Observer: table.Observe(nobody{}),
	}
	return &crowd{B: b, Endpoint: e, protocol: p, done: make(chan struct{}, 1)}
}

func (c *crowd) request() *protocol.Request {
	return &protocol.Request{
		Subscriber: hub.Subscriber{Channels: []string{"main"}}, Publish: []string{"main"},
		MayJoin: func(string) bool { return true },
	}
}

// member is a client with a WebSocket.
type member struct {
	protocol.Session
	conn   *hub.Conn
	reader frame.Reader
}

// connect returns a client that is in the main namespace.
func (c *crowd) connect() *member {
	r := c.request()
	s := c.protocol.Open(c.Endpoint.Endpoint, r)
	options := *c.Polling
	options.Transport = "websocket"
	conn, w, err := c.Hub.Connect(r.Subscriber, &options)
	if err != nil {
		c.Fatal(err)
	}
	conn.Start(counted{crowd: c}, s.Greeting(conn, &options, w))
	m := &member{s, conn, frame.NewReader(1<<20, false)}
	m.send("40")
	return m
}

func (m *member) send(text string) {
	p := []byte{0x81, 0x80 | byte(len(text)), 0, 0, 0, 0}
	if len(text) > 125 {
		p = []byte{0x81, 0x80 | 126, byte(len(text) >> 8), byte(len(text)), 0, 0, 0, 0}
	}
	m.reader.Feed(append(p, text...), receiver{m.Session})
}

// settled waits until the loops have done what was asked of them.
func (c *crowd) settled() { c.Hub.Kick(hub.Filter{Channel: "none"}, hub.ReasonPolicy, "") }

// poll sends a request of a client that polls, and returns the answer.
func (c *crowd) poll(method, query, body string) string {
	r := httptest.NewRequest(method, "/?"+engine+query, strings.NewReader(body))
	req, w := c.request(), httptest.NewRecorder()
	req.Query = r.URL.Query()
	if err := c.Serve(w, r, req, func(string) {}); err != nil {
		c.Fatal(err)
	}
	return w.Body.String()
}

// open begins a session by polling, and returns what names it.
func (c *crowd) open() (query string) {
	_, rest, _ := strings.Cut(c.poll("GET", "", ""), `"sid":"`)
	sid, _, _ := strings.Cut(rest, `"`)
	query = "&sid=" + sid
	if got := c.poll("POST", query, "40"); got != "ok" {
		c.Fatal(got)
	}
	if got := c.poll("GET", query, ""); !strings.HasPrefix(got, "40{") {
		c.Fatal(got)
	}
	return query
}

// BenchmarkGrowthDelivery is a message to so many clients, who are in no room, or in one each as well, per delivery.
func BenchmarkGrowthDelivery(b *testing.B) {
	for _, rooms := range []bool{false, true} {
		for _, n := range crowds {
			b.Run(fmt.Sprintf("in rooms=%t/clients=%d", rooms, n), func(b *testing.B) {
				c := newCrowd(b)
				for i := range n {
					m := c.connect()
					if rooms {
						m.send(fmt.Sprintf(`42["join","room:%d"]`, i))
					}
				}
				c.settled()
				b.ResetTimer()
				for range b.N {
					c.publish("main", n)
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/delivery")
			})
		}
	}
}

// BenchmarkGrowthRooms is what happens in one room beside so many others: an event of a client, and joining and leaving.
func BenchmarkGrowthRooms(b *testing.B) {
	for _, n := range manyRooms {
		c := newCrowd(b)
		var m *member
		for i := range n {
			if i%900 == 0 {
				m = c.connect()
			}
			m.send(fmt.Sprintf(`42["join","room:%d"]`, i))
		}
		m = c.connect()
		c.settled()
		m.send(`42["join","own"]`)
		c.settled()
		b.Run(fmt.Sprintf("message/rooms=%d", n), func(b *testing.B) {
			for range b.N {
				c.publish("own", 1)
			}
		})
		b.Run(fmt.Sprintf("join and leave/rooms=%d", n), func(b *testing.B) {
			for range b.N {
				m.send(`42["join","one more"]`)
				m.send(`42["leave","one more"]`)
			}
			c.settled()
		})
	}
}

// BenchmarkGrowthSessions is what one session costs beside so many others: a WebSocket that comes and goes, one that begins by
// polling, and an event by POST, which is found by its session's ID.
func BenchmarkGrowthSessions(b *testing.B) {
	for _, n := range crowds {
		c := newCrowd(b)
		for range n {
			c.connect()
			c.open()
		}
		c.settled()
		b.Run(fmt.Sprintf("WebSocket/sessions=%d", 2*n), func(b *testing.B) {
			for range b.N {
				c.connect().conn.Done()
			}
			c.settled()
		})
		b.Run(fmt.Sprintf("polling/sessions=%d", 2*n), func(b *testing.B) {
			for range b.N {
				c.poll("POST", c.open(), "1")
			}
			c.settled()
		})
		query := c.open()
		c.poll("POST", query, `42["join","own"]`)
		b.Run(fmt.Sprintf("POST/sessions=%d", 2*n), func(b *testing.B) {
			for range b.N {
				c.poll("POST", query, `42["leave","none"]`)
			}
		})
	}
}

// BenchmarkGrowthMemory is the memory of an idle session, without what the socket and net/http take.
func BenchmarkGrowthMemory(b *testing.B) {
	for name, begin := range map[string]func(*crowd) any{
		"WebSocket": func(c *crowd) any { return c.connect() },
		"polling":   func(c *crowd) any { return c.open() },
	} {
		for _, n := range crowds {
			b.Run(fmt.Sprintf("%s/sessions=%d", name, n), func(b *testing.B) {
				for range b.N {
					c := newCrowd(b)
					begin(c)
					c.settled()
					before := heap()
					all := make([]any, n)
					for i := range all {
						all[i] = begin(c)
					}
					c.settled()
					b.ReportMetric(float64(heap()-before)/float64(n), "B/session")
					runtime.KeepAlive(all)
				}
			})
		}
	}
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
