package doctor

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/gorilla/websocket"

	"github.com/caddy-broadcast/caddy-broadcast/internal/adminclient"
)

// delivery looks at whether messages arrive. By the admin API it subscribes its own connections to a channel of their own, on
// which nobody else is. On the route's channel it publishes only if it is asked to.
var delivery = Check{
	Name: "delivery", About: "whether messages arrive: on a channel of its own, by the admin API, and with --publish on the route's", needs: aSocket,
	run: func(ctx context.Context, x *exam) []Finding {
		var all []Finding
		in := x.insideOf(ctx)
		switch {
		case x.publishOnly:
			all = append(all, skipped("clients of the route only publish (subscribe off), so no message was sent to one"))
		case in.err == nil && x.epochs[in.epoch]:
			all = append(all, x.deliverOwn(ctx))
		case in.err == nil:
			all = append(all, skipped("the admin API is that of another hub than the route's, so no message was published by it"))
		case !x.Publish:
			all = append(all, skipped("nothing was published: run it where the admin API can be reached, or publish to the route's subscribers with --publish"))
		}
		if x.Publish {
			all = append(all, x.deliverPublic(ctx))
		}
		return all
	},
}

// errUndelivered is the error of a message that does not arrive in time.
var errUndelivered = errors.New("it does not arrive")

// deliverOwn publishes on a channel of its own.
func (x *exam) deliverOwn(ctx context.Context) Finding {
	c, _, err := x.open(ctx)
	if err != nil {
		return problem("another WebSocket does not open: %v", err)
	}
	defer c.close()
	channel := "doctor:" + rand.Text()
	publish := func() error {
		return adminRequest(ctx, x.Admin, "/broadcast/publish?keep=0&channel="+url.QueryEscape(channel), channel)
	}
	arrives := func(e entry) bool { return e.Channel == channel && e.Data != nil }
	if err := x.join(ctx, c.hello.Connection, channel, c.await); err != nil {
		return problem("the connection cannot be subscribed by the admin API: %v", x.Admin.Explain(err))
	}
	began := time.Now()
	if err := publish(); err != nil {
		return problem("publishing by the admin API fails: %v", x.Admin.Explain(err))
	}
	if _, err := c.await(x.Wait, arrives); err != nil {
		return problem("a message that was published by the admin API does not arrive on the WebSocket within %s", x.Wait).fixedBy(
			"look at the proxies in front: one of them holds back what the server sends")
	}
	took := time.Since(began)
	s, _, err := x.stream(ctx)
	if err != nil { // why is the finding of another check
		return ok("a message arrives on the WebSocket in %s", took.Round(10*time.Microsecond))
	}
	defer s.close()
	if err := x.join(ctx, s.hello.Connection, channel, s.await); err == nil {
		if err = publish(); err == nil {
			_, err = s.await(x.Wait, arrives)
		}
		if err == nil {
			return ok("a message arrives on the WebSocket in %s, and on the event stream", took.Round(10*time.Microsecond))
		}
	}
	return problem("a message arrives on the WebSocket, but not on the event stream within %s: a proxy in front holds it back", x.Wait).fixedBy(
		"have the proxy forward what comes at once", nginx("location "+x.path(), "proxy_buffering off;"))
}

// join subscribes a connection to a channel, and waits until it knows.
func (x *exam) join(ctx context.Context, connection, channel string, await func(time.Duration, func(entry) bool) (entry, error)) error {
	body, err := json.Marshal(map[string]string{"connection": connection, "channel": channel})
	if err != nil {
		return err
	}
	if err := adminRequest(ctx, x.Admin, "/broadcast/subscriptions", string(body)); err != nil {
		return err
	}
	if _, err := await(x.Wait, func(e entry) bool { return strings.Contains(string(e.Subscribed), channel) }); err != nil {
		return fmt.Errorf("%w: %w", errUndelivered, err)
	}
	return nil
}

// adminRequest sends a POST with a text to the admin API.
func adminRequest(ctx context.Context, admin *adminclient.Client, path, body string) error {
	resp, err := admin.Do(ctx, http.MethodPost, path, http.Header{"Content-Type": {"text/plain"}}, strings.NewReader(body))
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// deliverPublic publishes on the first channel of the route, to all of its subscribers, as a client does. The message is not
// kept, so that clients which come later do not get it.
func (x *exam) deliverPublic(ctx context.Context) Finding {
	c, _, err := x.open(ctx)
	if err != nil {
		return problem("another WebSocket does not open: %v", err)
	}
	defer c.close()
	mark := rand.Text()
	began := time.Now()
	text := `{"publish":{"data":{"doctor":"` + mark + `"},"event":"doctor","keep":false},"ref":1}`
	if err := c.conn.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
		return problem("a message cannot be sent: %v", err)
	}
	acked := false
	var rejected error
	_, err = c.await(x.Wait, func(e entry) bool {
		if e.Error != nil {
			rejected = fmt.Errorf("%s (%s)", visible(e.Error.Message), visible(e.Error.Code))
		}
		acked = acked || e.Ack != nil
		return rejected != nil || strings.Contains(string(e.Data), mark)
	})
	return published(c, x, acked, cmp.Or(rejected, err), time.Since(began))
}

// published says what came of a message to the route's channel.
func published(c *webSocket, x *exam, acked bool, err error, took time.Duration) Finding {
	switch {
	case err == nil && len(c.hello.Channels) > 0:
		return ok("a message that the client publishes comes back on %s in %s", visible(c.hello.Channels[0]), took.Round(10*time.Microsecond))
	case acked:
		return ok("a message that the client publishes is accepted, and does not come back, as with echo off or subscribe off")
	}
	return advice("the client cannot publish: %v", err).fixedBy(
		"if clients should publish, remove publish off from the route", caddyfile("broadcast "+x.path(), "publish on"))
}
