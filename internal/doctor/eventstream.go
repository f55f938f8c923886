package doctor

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/tmaxmax/go-sse"

	"github.com/caddy-broadcast/caddy-broadcast/internal/protocol"
	v1 "github.com/caddy-broadcast/caddy-broadcast/internal/protocol/v1"
)

// eventStream looks at an event stream, which clients use where WebSockets are blocked.
var eventStream = Check{
	Name: "event stream", About: "whether event streams come through, without being held back or changed", needs: aRoute,
	run: func(ctx context.Context, x *exam) []Finding {
		s, resp, err := x.stream(ctx)
		if err != nil {
			return []Finding{x.noStream(ctx, resp, err)}
		}
		defer s.close()
		if encoding := resp.Header.Get("Content-Encoding"); encoding != "" {
			return []Finding{advice("a proxy in front compresses the event stream (%s), although its header says no-transform, and may hold events back", visible(encoding)).fixedBy(
				"have the proxy leave it alone", nginx("location "+x.path(), "gzip off;"))}
		}
		return []Finding{ok("it opens over %s, and its first event comes at once", resp.Proto)}
	},
}

// stream is an event stream that speaks broadcast.v1, read by a goroutine.
type stream struct {
	hello   hello
	entries chan entry
	ended   chan struct{}
	err     error // why it ended, after that
	last    atomic.Int64
	pings   atomic.Int64
	close   func()
}

// Errors of event streams.
var (
	errNotStream = errors.New("the response is not an event stream")
	errHeldBack  = errors.New("no event comes")
)

// stream opens an event stream and waits for the hello.
func (x *exam) stream(ctx context.Context) (*stream, response, error) {
	ctx, cancel := context.WithCancel(ctx)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, x.target(protocol.QueryParameter, v1.Name).String(), nil)
	if err != nil {
		cancel()
		return nil, response{}, err
	}
	r.Header = x.header(x.page)
	r.Header.Set("Accept", "text/event-stream")
	r.Header.Set("Accept-Encoding", "gzip") // browsers accept more, but this is what proxies use
	late := time.AfterFunc(x.Wait, cancel)
	var resp *http.Response
	err = twice(func() (err error) {
		resp, err = x.client.Do(r)
		return err
	})
	if err != nil {
		cancel()
		if !late.Stop() {
			err = errHeldBack // not even the head
		}
		return nil, response{}, plainError(err)
	}
	got := response{resp, ""}
	if resp.StatusCode != http.StatusOK || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") {
		// Only what comes first: it may be an event stream under another name, which does not end.
		text := make([]byte, maxText)
		n, _ := resp.Body.Read(text)
		late.Stop()
		cancel()
		resp.Body.Close()
		got.text = string(text[:n])
		return nil, got, errNotStream
	}
	s := &stream{entries: make(chan entry, 64), ended: make(chan struct{})}
	s.close = func() { cancel(); resp.Body.Close() }
	hellos := make(chan hello, 1)
	go s.read(resp, hellos)
	select {
	case s.hello = <-hellos:
		if !late.Stop() { // it came too late, and its request was canceled
			break
		}
		x.epochs[epochOf(s.hello.ID)] = true
		return s, got, nil
	case <-s.ended:
	}
	stopped := late.Stop()
	s.close()
	if !stopped {
		return nil, got, errHeldBack
	}
	return nil, got, fmt.Errorf("it ends before the first event: %w", s.err)
}

// maxEvent is how long an event may be: one that replays the history has all of it.
const maxEvent = 64 << 20

// read reads until the end.
func (s *stream) read(resp *http.Response, hellos chan<- hello) {
	defer close(s.ended)
	in := io.Reader(resp.Body)
	if resp.Header.Get("Content-Encoding") == "gzip" {
		unzipped, err := gzip.NewReader(resp.Body)
		if err != nil {
			s.err = err
			return
		}
		in = unzipped
	}
	s.err = io.EOF
	for event, err := range sse.Read(in, &sse.ReadConfig{MaxEventSize: maxEvent}) {
		if err != nil {
			s.err = err
			return
		}
		s.last.Store(time.Now().UnixNano())
		var frame []entry
		if json.Unmarshal([]byte(event.Data), &frame) != nil {
			continue // not an event of broadcast.v1, so none of ours
		}
		if len(frame) == 0 {
			s.pings.Add(1)
		}
		for _, e := range frame {
			if e.Hello != nil {
				hellos <- *e.Hello
				continue
			}
			select {
			case s.entries <- e:
			default:
			}
		}
	}
}

// await returns the first entry that is what is waited for.
func (s *stream) await(wait time.Duration, is func(entry) bool) (entry, error) {
	return (&webSocket{entries: s.entries, ended: s.ended, err: io.EOF}).await(wait, is)
}

// noStream says why there is no event stream.
func (x *exam) noStream(ctx context.Context, r response, err error) Finding {
	unbuffered := []Lines{
		nginx("location "+x.path(), "proxy_buffering off;"),
		caddyfile("reverse_proxy of the proxy, in place of response_buffers", "flush_interval -1"),
	}
	switch {
	case errors.Is(err, errHeldBack):
		return problem("a proxy in front holds event streams back: no event comes within %s", x.Wait).fixedBy("have the proxy forward what comes at once", unbuffered...)
	case !errors.Is(err, errNotStream):
		return problem("the event stream does not open: %v", err).fixedBy("have the proxies in front forward event streams as they are", unbuffered...)
	case r.StatusCode == http.StatusForbidden && strings.Contains(r.text, "subscribing is off"):
		x.publishOnly = true
		return ok("the route has none, because its clients only publish (subscribe off)")
	case r.StatusCode == http.StatusNoContent:
		return problem("a proxy in front changes the header Accept, so the request for an event stream arrives as another one").fixedBy(
			"have the proxy pass it on", nginx("location "+x.path(), "proxy_set_header Accept $http_accept;"))
	case r.StatusCode == http.StatusInternalServerError:
		return problem("the site cannot send event streams: most likely a directive before the route holds responses back, such as intercept or templates (%s)", visible(r.Status)).fixedBy(
			"put the route into a handle of its own, without these directives", caddyfile("the site", "handle "+x.path()+" {\n\tbroadcast\n}"))
	case r.StatusCode == http.StatusOK && !r.isPage() && strings.HasPrefix(r.text, "retry:"):
		return problem("a proxy in front, or a header directive, changes the Content-Type of event streams to %q, so browsers reject them", visible(r.Header.Get("Content-Type"))).fixedBy(
			"leave it as it is for this route")
	case r.StatusCode == http.StatusNotFound || r.StatusCode < 300:
		return advice("the route does not accept event streams, so clients have no other way where WebSockets are blocked (%s)", visible(r.Status)).fixedBy(
			"remove the option transports of the route, or add sse and post to it", caddyfile("broadcast "+x.path(), "transports websocket sse post"))
	}
	return x.rejection(ctx, r)
}
