// Package eventstream takes event-stream clients in (HTML Standard, section 9.2). Writing is the hub's.
package eventstream

import (
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/post"
	"github.com/caddy-broadcast/caddy-broadcast/internal/socket"
	"github.com/caddy-broadcast/caddy-broadcast/internal/wire"
)

// Route is what the clients of a route have in common.
type Route struct {
	Hub *hub.Hub

	// Options are one-way, and their format is wire.EventStream.
	Options *hub.ConnOptions

	// V1 are the same for clients that ask for broadcast.v1, in the format wire.V1Stream.
	V1 *hub.ConnOptions

	// Poller watches for the clients' end, if it can.
	Poller *socket.Poller
}

// Wants says whether a request asks for an event stream.
func Wants(r *http.Request) bool {
	if r.Method != http.MethodGet {
		return false
	}
	for _, line := range r.Header["Accept"] {
		for media := range strings.SplitSeq(line, ",") {
			media, _, _ = strings.Cut(media, ";")
			if strings.EqualFold(strings.TrimSpace(media), "text/event-stream") {
				return true
			}
		}
	}
	return false
}

// WantsV1 says whether a request that is no WebSocket's asks for broadcast.v1, for which it has no word but the query.
func WantsV1(r *http.Request) bool { return r.URL.Query().Get("protocol") == wire.V1Protocol }

// LastID returns the ID that a request resumes after. The header is the newer one: EventSource sends it when it comes
// back, to the address that it has.
func LastID(r *http.Request) string {
	if id := r.Header.Get("Last-Event-ID"); id != "" {
		return strings.Clone(id)
	}
	return strings.Clone(r.URL.Query().Get("last_id"))
}

// Accept answers the request with an event stream. On HTTP/1 it takes the connection over and returns while the stream
// goes on; where it cannot, and on HTTP/2 and 3, it returns at the stream's end. It calls connected when the stream has
// begun. On an error nothing was answered.
func (route *Route) Accept(w http.ResponseWriter, r *http.Request, s hub.Subscriber, connected func()) error {
	return route.accept(w, r, s, route.Options, func(_ *hub.Conn, welcome hub.Welcome) []byte {
		return wire.EventStream{}.Start(welcome)
	}, connected)
}

// AcceptV1 is Accept with broadcast.v1. Errs are what of the request was refused, as wire.AppendError makes them.
func (route *Route) AcceptV1(w http.ResponseWriter, r *http.Request, s hub.Subscriber, errs []byte, connected func()) error {
	return route.accept(w, r, s, route.V1, func(conn *hub.Conn, welcome hub.Welcome) []byte {
		channels := s.Channels
		if s.All {
			channels = []string{"*"}
		}
		return wire.V1Stream{}.Start(wire.Hello{
			Connection: conn.ID(), Channels: channels, Welcome: welcome, PingInterval: route.V1.PingInterval, Errors: errs,
		})
	}, connected)
}

var (
	errEncoded = errors.New("another handler encodes what is written")

	errHeldBack = errors.New("another handler in front of broadcast, such as intercept or templates, keeps the event stream back: " +
		"exclude this route from it, or let it pass text/event-stream")
)

func (route *Route) accept(w http.ResponseWriter, r *http.Request, s hub.Subscriber, options *hub.ConnOptions,
	start func(*hub.Conn, hub.Welcome) []byte, connected func(),
) error {
	conn, welcome, err := route.Hub.Connect(s, options)
	leaving := errors.Is(err, hub.ErrClosed) || errors.Is(err, hub.ErrRetired)
	if err != nil && !leaving {
		post.RetryLater(w)
		return caddyhttp.Error(http.StatusServiceUnavailable, err)
	}
	setHead(w.Header())
	if leaving {
		// An EventSource gives up for good on any other answer (section 9.2.3).
		w.Write(wire.EventStream{}.Close(hub.ReasonRestart, ""))
		return nil
	}
	started := false
	defer func() {
		if !started { // a writer in front may panic, too
			conn.Done()
		}
	}()

	// Whatever wraps the writer sees the first bytes, and has its say in the head.
	answer := func() error { return answer(w, r, start(conn, welcome), options.WriteTimeout) }
	took := false
	if r.ProtoMajor == 1 && r.ContentLength == 0 && socket.CanHijack(w) { // of a body Caddy would set a deadline yet
		w.Header().Set("Transfer-Encoding", "identity") // what follows is ours: net/http is not to add chunks, and ends with it
		took, err = route.takeOver(w, conn, options, answer)
	} else {
		err = answer()
	}
	if errors.Is(err, errHeldBack) {
		clearHead(w.Header())
		return caddyhttp.Error(http.StatusInternalServerError, err)
	}
	if err != nil {
		return nil // there is nobody to tell
	}
	started = true
	connected()
	if took {
		return nil
	}
	stream := socket.NewStream(w, r, options.WriteTimeout)
	if !conn.Start(stream, nil) {
		stream.Close()
	}
	stream.Wait(r.Context(), conn.Done)
	return nil
}

func setHead(h http.Header) {
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store, no-transform")
	h.Set("X-Accel-Buffering", "no") // nginx in front
}

func clearHead(h http.Header) {
	for _, name := range []string{"Content-Type", "Cache-Control", "X-Accel-Buffering", "Transfer-Encoding"} {
		h.Del(name)
	}
}

// answer sends a stream's head and its first bytes.
func answer(w http.ResponseWriter, r *http.Request, first []byte, timeout time.Duration) error {
	rc := http.NewResponseController(w)
	rc.SetWriteDeadline(time.Now().Add(timeout)) // on HTTP/2 a client may take nothing from the beginning
	defer rc.SetWriteDeadline(time.Time{})
	through, err := socket.Through(w, r, func() error {
		w.WriteHeader(http.StatusOK)
		if _, err := w.Write(first); err != nil {
			return err
		}
		return rc.Flush()
	})
	if err == nil && !through {
		return errHeldBack
	}
	return err
}

// takeOver makes the connection the hub's. If it is not taken, the answer has begun and may go on by w.
func (route *Route) takeOver(w http.ResponseWriter, conn *hub.Conn, options *hub.ConnOptions, answer func() error) (took bool, err error) {
	nc, early, err := socket.Hijack(w, func() error {
		if err := answer(); err != nil {
			return err
		}
		if w.Header().Get("Content-Encoding") != "" {
			return errEncoded
		}
		return nil
	})
	if errors.Is(err, errEncoded) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	s := socket.New(nc, early, (*receiver)(conn), route.Poller)
	s.CutOffAfter(max(options.WriteTimeout, 2*options.PingInterval))
	if !conn.Start(s, nil) {
		s.Close()
		return true, nil
	}
	s.Receive()
	return true, nil
}

// receiver waits for the client's end. What it sends means nothing.
type receiver hub.Conn

func (*receiver) Received([]byte) (more bool) { return true }
func (r *receiver) Ended()                    { (*hub.Conn)(r).Done() }
