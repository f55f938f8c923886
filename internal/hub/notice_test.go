package hub_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/eventstream"
	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/protocol/raw"
	v1 "github.com/caddy-broadcast/caddy-broadcast/internal/protocol/v1"
)

// noticed is a client that takes everything, at once or, if stuck is set, when that is closed.
type noticed struct {
	bytes.Buffer
	stuck chan struct{}
}

func (n *noticed) TryWrite(p []byte) (int, error) {
	if n.stuck != nil {
		return 0, nil
	}
	return n.Buffer.Write(p)
}
func (n *noticed) Write(p []byte, _ time.Duration) (int, error) {
	if n.stuck != nil {
		<-n.stuck
	}
	return n.Buffer.Write(p)
}
func (n *noticed) Close() {}

// TestNotices: a notice comes between the messages before and after it, to the connections that listen for those of its channel,
// in their formats, if these have a form for it.
func TestNotices(t *testing.T) {
	for _, c := range []struct {
		format hub.Format
		want   string
	}{
		{v1.Format{}, `{"about":{"n":1}}`},
		{v1.StreamFormat{}, "data: [{\"about\":{\"n\":1}}]\n\n"},
		{eventstream.Format{}, "event: about\ndata: {\"n\":1}\n\n"},
		{raw.Format{}, ""},
	} {
		for _, channels := range [][]string{{"a"}, {"a", "b"}} {
			t.Run(fmt.Sprintf("%T %v", c.format, channels), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					h := hub.New(hub.Config{})
					o := &hub.ConnOptions{Format: c.format, PingInterval: time.Hour, WriteTimeout: time.Second, MaxBacklog: hub.MinBacklog, OneWay: true}
					var sinks [3]noticed
					var conns [3]*hub.Conn
					for i := range sinks {
						conns[i], _, _ = h.Connect(hub.Subscriber{Channels: channels}, o)
						conns[i].Start(&sinks[i], nil)
					}
					notice := func(n int) *hub.Notice {
						return &hub.Notice{Name: "about", Channel: "a", Data: fmt.Appendf(nil, `{"n":%d}`, n)}
					}
					h.Notify(notice(0))
					conns[0].Listen(notice(9))
					conns[1].Listen(&hub.Notice{Name: "about", Channel: "b", Data: []byte("{}")}) // another channel, or one that it is not on
					h.Publish(&hub.Message{Channel: "a", Data: []byte("before")})
					h.Notify(notice(1))
					h.Publish(&hub.Message{Channel: "a", Data: []byte("after")})
					synctest.Wait()
					got := sinks[0].String()
					if strings.Contains(got, `{"n":0}`) || strings.Contains(got, `{"n":9}`) != (c.want != "") {
						t.Errorf("%q", got)
					}
					before, at, after := strings.Index(got, "before"), strings.LastIndex(got, c.want), strings.Index(got, "after")
					if c.want != "" && !(before < at && at < after) || before < 0 || after < 0 {
						t.Errorf("%q", got)
					}
					for _, s := range sinks[1:] {
						if strings.Contains(s.String(), `{"n":`) {
							t.Errorf("one that does not listen got %q", s.String())
						}
					}
					h.Close(hub.ReasonRestart, "", 0, time.Second)
				})
			})
		}
	}
}

// TestNoticesAreKept: a backlog that drops its oldest messages drops no notices, as what they tell would be wrong without one.
func TestNoticesAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hub.New(hub.Config{})
		o := &hub.ConnOptions{
			Format: v1.Format{}, PingInterval: time.Hour, WriteTimeout: time.Minute, MaxBacklog: hub.MinBacklog, OneWay: true, DropOldest: true,
		}
		s := &noticed{stuck: make(chan struct{})}
		c, _, _ := h.Connect(hub.Subscriber{Channels: []string{"a"}}, o)
		c.Listen(&hub.Notice{Name: "about", Channel: "a", Data: []byte(`{"n":0}`)})
		c.Start(s, nil)
		synctest.Wait()
		for i := range 20 {
			h.Publish(&hub.Message{Channel: "a", Data: bytes.Repeat([]byte("x"), hub.MinBacklog/4)})
			h.Notify(&hub.Notice{Name: "about", Channel: "a", Data: fmt.Appendf(nil, `{"n":%d}`, i+1)})
		}
		synctest.Wait()
		close(s.stuck)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if n := strings.Count(s.String(), `{"about":{"n":`); n != 21 || !strings.Contains(s.String(), `{"gap":`) {
			t.Errorf("%d notices, with a gap: %v", n, strings.Contains(s.String(), `{"gap":`))
		}
		h.Close(hub.ReasonRestart, "", 0, time.Second)
	})
}

// TestDelayedNotices: a notice comes after what was published before it, also where that waits for the next delivery. One that listens
// meanwhile does not get it, because it has a newer one.
func TestDelayedNotices(t *testing.T) {
	for _, channels := range [][]string{{"a"}, {"a", "b"}} {
		synctest.Test(t, func(t *testing.T) {
			h := hub.New(hub.Config{})
			o := &hub.ConnOptions{Format: v1.Format{}, PingInterval: time.Hour, WriteTimeout: time.Second, MaxBacklog: hub.MinBacklog, OneWay: true, DeliverEvery: 10 * time.Second}
			notice := func(n int) *hub.Notice {
				return &hub.Notice{Name: "about", Channel: "a", Data: fmt.Appendf(nil, `{"n":%d}`, n)}
			}
			var sinks [3]noticed
			listen := func(i int, n int) {
				c, _, _ := h.Connect(hub.Subscriber{Channels: channels}, o)
				c.Start(&sinks[i], nil)
				c.Listen(notice(n))
				synctest.Wait()
			}
			expect := func(i int, want ...string) {
				t.Helper()
				synctest.Wait()
				got := sinks[i].String()
				for _, w := range want {
					before, after, found := strings.Cut(got, w)
					if !found || strings.Contains(before, "{\"n\"") || strings.Contains(before, "data") {
						t.Errorf("client %d: %q instead of %q", i, got, want)
						return
					}
					got = after
				}
				if strings.Contains(got, "{\"n\"") || strings.Contains(got, "data") {
					t.Errorf("client %d: too much: %q", i, got)
				}
			}
			listen(0, 0)
			expect(0, `{"n":0}`)
			h.Notify(notice(1)) // nothing waits
			expect(0, `{"n":0}`, `{"n":1}`)
			h.Publish(&hub.Message{Channel: "a", Data: []byte("first")})
			h.Notify(notice(2))
			h.Publish(&hub.Message{Channel: "a", Data: []byte("second")})
			expect(0, `{"n":0}`, `{"n":1}`)
			listen(1, 12)
			expect(0, `{"n":0}`, `{"n":1}`, `"data":"first"`, `"data":"second"`, `{"n":2}`)
			expect(1, `{"n":12}`)
			h.Publish(&hub.Message{Channel: "a", Data: []byte("third")})
			h.Notify(notice(3))
			h.Close(hub.ReasonRestart, "", 0, time.Minute)
			expect(0, `{"n":0}`, `{"n":1}`, `"data":"first"`, `"data":"second"`, `{"n":2}`, `"data":"third"`, `{"n":3}`)
			expect(1, `{"n":12}`, `"data":"third"`, `{"n":3}`)
		})
	}
}
