package doctor

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"
)

// idle looks at what happens to connections on which nothing is published. The server pings them, and the client answers
// as a browser does.
var idle = Check{
	Name: "idle", About: "whether idle connections stay open, a WebSocket and an event stream at once", needs: aSocket,
	run: func(ctx context.Context, x *exam) []Finding {
		if x.Idle <= 0 {
			return []Finding{skipped("idle connections were not looked at (--idle 0)")}
		}
		c, _, err := x.open(ctx)
		if err != nil {
			return []Finding{problem("another WebSocket does not open: %v", err)}
		}
		defer c.close()
		began := time.Now()
		watched := []*quiet{{what: "the WebSocket", ended: c.ended, err: &c.err, last: &c.last, pings: &c.pings, began: began}}
		if s, _, err := x.stream(ctx); err == nil { // why it does not open is the finding of another check
			defer s.close()
			watched = append(watched, &quiet{what: "the event stream", ended: s.ended, err: &s.err, last: &s.last, pings: &s.pings, began: began})
		}
		x.leaveAlone(ctx, watched)
		var all []Finding
		for _, q := range watched {
			if q.took > 0 {
				all = append(all, x.cutOff(q))
			}
		}
		if len(all) == 0 {
			all = append(all, x.stayed(watched))
		}
		return all
	},
}

// quiet is a connection that is left alone.
type quiet struct {
	what        string
	ended       chan struct{}
	err         *error
	last, pings *atomic.Int64
	began       time.Time
	took        time.Duration // until its end, or 0
	silent      time.Duration // before its end
}

// leaveAlone waits for the time of idleness, or until all connections have ended.
func (x *exam) leaveAlone(ctx context.Context, watched []*quiet) {
	if x.Progress != nil {
		defer x.Progress(func() string {
			return fmt.Sprintf("idle for %.0f of %.0f s", time.Since(watched[0].began).Seconds(), x.Idle.Seconds())
		})()
	}
	ctx, cancel := context.WithTimeout(ctx, x.Idle)
	defer cancel()
	for _, q := range watched {
		select {
		case <-q.ended:
		case <-ctx.Done():
		}
		// Also those that ended while another was waited for: what they sent last is when they were last alive.
		select {
		case <-q.ended:
			q.note(time.Now())
		default:
		}
	}
}

// note records the end of a connection.
func (q *quiet) note(now time.Time) {
	q.took = max(now.Sub(q.began), 1)
	q.silent = now.Sub(time.Unix(0, q.last.Load()))
}

// cutOff says what has ended a connection.
func (x *exam) cutOff(q *quiet) Finding {
	err := *q.err
	if closed := new(websocket.CloseError); errors.As(err, &closed) && closed.Code != websocket.CloseAbnormalClosure {
		return advice("the server closed %s after %s with code %d (%s)", q.what, seconds(q.took), closed.Code, visible(closed.Text)).fixedBy(
			"see the table of close codes: docs/transports.md, Close codes")
	}
	if q.silent < q.took/2 || q.silent < time.Second/2 {
		return problem("something on the way ends %s after %s, although it is not silent", q.what, seconds(q.took)).fixedBy(
			"remove the limit on how long a request may take", caddyfile("reverse_proxy of a proxy, in place of another value", "stream_timeout 0"),
			caddyfile("the global options, in place of another value", "servers {\n\ttimeouts {\n\t\twrite 0\n\t}\n}"))
	}
	ping := max(1, int(q.silent.Seconds()/2))
	lines := []Lines{
		caddyfile("broadcast "+x.path(), fmt.Sprintf("ping_interval %ds", ping)),
		nginx("location "+x.path(), "proxy_read_timeout 1h;"),
		caddyfile("reverse_proxy of a proxy, in place of another value", "stream_timeout 0"),
	}
	return problem("something on the way ends %s after %s in which nothing was sent; the server pings every %s", q.what, seconds(q.silent), seconds(x.heartbeat)).fixedBy(
		"ping more often, or raise the limit", lines...)
}

// stayed says that nothing was cut off.
func (x *exam) stayed(watched []*quiet) Finding {
	var names, silent []string
	for _, q := range watched {
		names = append(names, q.what)
		if q.pings.Load() == 0 && x.heartbeat > 0 && x.Idle > x.heartbeat*3/2 && time.Since(time.Unix(0, q.last.Load())) > x.heartbeat*3/2 {
			silent = append(silent, q.what)
		}
	}
	all := names[0] + " is"
	if len(names) > 1 {
		all = strings.Join(names, " and ") + " are"
	}
	if len(silent) > 0 {
		return problem("on %s no ping comes within %s, although the server sends one every %s: a proxy in front holds them back",
			strings.Join(silent, " and "), seconds(x.Idle), seconds(x.heartbeat)).fixedBy("have the proxy forward what comes at once",
			nginx("location "+x.path(), "proxy_buffering off;"))
	}
	if x.Idle < x.heartbeat {
		return ok("after %s %s open; the server pings every %s, so a longer --idle says more", seconds(x.Idle), all, seconds(x.heartbeat))
	}
	return ok("after %s %s open; the server pings every %s", seconds(x.Idle), all, seconds(x.heartbeat))
}

// seconds returns a time as a person says it.
func seconds(d time.Duration) string {
	if d > 10*time.Second {
		return d.Round(time.Second).String()
	}
	return d.Round(100 * time.Millisecond).String()
}
