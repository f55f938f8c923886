// Package eventstream accepts clients of event streams (HTML Standard, section 9.2). The hub writes to them.
package eventstream

import (
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/protocol"
	"github.com/caddy-broadcast/caddy-broadcast/internal/publish"
	"github.com/caddy-broadcast/caddy-broadcast/internal/socket"
)

// Endpoint is what the event streams of a route have in common.
type Endpoint struct {
	Hub *hub.Hub

	// Offers are what clients can choose from. The first one is for those that ask for none of the others.
	Offers []Offer

	// Poller notices when clients disconnect, where it can.
	Poller *socket.Poller
}

// Offer is a protocol on a route.
type Offer struct {
	Protocol protocol.Streamer
	Options  *hub.ConnOptions // one-way, in the protocol's StreamFormat
}

// Offers returns the offers of a route with those of the protocols that have a form for event streams. Options returns the
// options of connections in a format.
func Offers(protocols protocol.Set, options func(hub.Format) *hub.ConnOptions) (offers []Offer) {
	for _, p := range protocols {
		if p, ok := p.(protocol.Streamer); ok {
			o := options(p.StreamFormat())
			o.OneWay = true
			offers = append(offers, Offer{p, o})
		}
	}
	return offers
}

// IsRequest reports whether a request asks for an event stream.
func IsRequest(r *http.Request) bool {
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

// LastID returns the ID that a request resumes after. The header is newer than the query: EventSource sends it when it
// reconnects, to the address that it was given first.
func LastID(r *http.Request) string {
	if id := r.Header.Get("Last-Event-ID"); id != "" {
		return strings.Clone(id)
	}
	return strings.Clone(r.URL.Query().Get("last_id"))
}

var (
	errEncoded = errors.New("another handler encodes what is written")

	errHeldBack = errors.New("another handler in front of broadcast, such as intercept or templates, keeps the event stream back: " +
		"exclude this route from it, or let it pass text/event-stream")
)

// choose returns the protocol that the client asks for.
func (e *Endpoint) choose(req *protocol.Request) Offer {
	name := req.Query.Get(protocol.QueryParameter)
	for _, o := range e.Offers {
		if o.Protocol.Name() == name {
			return o
		}
	}
	return e.Offers[0]
}

// Accept answers the request with an event stream. On HTTP/1 it takes the connection over and returns while
// the stream goes on; where it cannot, and on HTTP/2 and 3, it returns at the stream's end. It calls connected when the
// stream has started. If it returns an error, it has not answered.
func (e *Endpoint) Accept(w http.ResponseWriter, r *http.Request, req *protocol.Request, connected func()) error {
	offer := e.choose(req)
	greeter := offer.Protocol.OpenStream(req)
	req.Context = r.Context()
	conn, welcome, err := e.Hub.Connect(req.Subscriber, offer.Options)
	if errors.Is(err, hub.ErrClosed) || errors.Is(err, hub.ErrRetired) || errors.Is(err, hub.ErrNotReady) {
		// After any other response than 200 an EventSource does not reconnect (section 9.2.3): a page would be lost for good
		// because the broker was away for a moment.
		setHead(w.Header())
		w.Write(Retry())
		return nil
	}
	if err != nil {
		publish.RetryLater(w)
		return caddyhttp.Error(http.StatusServiceUnavailable, err)
	}
	s := &stream{w: w, r: r, conn: conn, options: offer.Options, first: greeter.Greeting(conn, offer.Options, welcome)}
	defer func() {
		if !s.started { // it failed, or a writer in front has panicked
			conn.Done()
		}
	}()
	setHead(w.Header())
	if s.hijackable() {
		return s.serveHijacked(e.Poller, connected)
	}
	return s.serve(connected)
}

// setHead sets the fields that keep caches, compressing proxies and buffers from holding events back.
func setHead(h http.Header) {
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store, no-transform")
	h.Set("X-Accel-Buffering", "no") // tells nginx in front not to buffer
}

// clearHead removes what setHead and serveHijacked have set, so that it is not in the response to an error.
func clearHead(h http.Header) {
	for _, name := range []string{"Content-Type", "Cache-Control", "X-Accel-Buffering", "Transfer-Encoding"} {
		h.Del(name)
	}
}

// stream is one event stream while it is answered.
type stream struct {
	w       http.ResponseWriter
	r       *http.Request
	conn    *hub.Conn
	options *hub.ConnOptions
	first   []byte
	started bool // the connection is the hub's, and ends by itself
}

// hijackable reports whether the connection can be taken over. That of a request with a body cannot: when Caddy is done
// with the body it would still set a deadline.
func (s *stream) hijackable() bool {
	return s.r.ProtoMajor == 1 && s.r.ContentLength == 0 && socket.CanHijack(s.w)
}

// serveHijacked answers and takes the connection over.
func (s *stream) serveHijacked(poller *socket.Poller, connected func()) error {
	// What follows the head is ours. With any Transfer-Encoding that it does not know net/http adds no chunks, and ends the
	// connection with the stream.
	s.w.Header().Set("Transfer-Encoding", "identity")
	conn, early, err := socket.Hijack(s.w, func() error {
		if err := s.respond(); err != nil {
			return err
		}
		if s.w.Header().Get("Content-Encoding") != "" { // a handler in front has to write what follows, too
			return errEncoded
		}
		return nil
	})
	switch {
	case errors.Is(err, errEncoded):
		return s.goOn(connected)
	case err != nil:
		return s.failed(err)
	}
	s.started = true
	connected()
	sock := socket.New(conn, early, (*receiver)(s.conn), poller)
	// A client that never sends anything is noticed by the system alone when it is gone without a word.
	sock.CutOffAfter(max(s.options.WriteTimeout, 2*s.options.PingInterval))
	if !s.conn.Start(sock, nil) {
		sock.Close()
		return nil
	}
	sock.Receive()
	return nil
}

// serve answers, and writes the stream through the response writer until its end.
func (s *stream) serve(connected func()) error {
	if err := s.respond(); err != nil {
		return s.failed(err)
	}
	return s.goOn(connected)
}

// goOn has the hub write the stream through the response writer. The handler stays until its end, because the writer is
// not valid after that.
func (s *stream) goOn(connected func()) error {
	s.started = true
	connected()
	stream := socket.NewStream(s.w, s.r)
	if !s.conn.Start(stream, nil) {
		stream.Close()
	}
	stream.Wait(s.r.Context(), s.conn.Done)
	return nil
}

// respond sends the head and the first bytes. They go through all writers in front, which may add to the head.
func (s *stream) respond() error {
	rc := http.NewResponseController(s.w)
	rc.SetWriteDeadline(time.Now().Add(s.options.WriteTimeout)) // on HTTP/2 a client may accept no data from the start
	defer rc.SetWriteDeadline(time.Time{})
	through, err := socket.Through(s.w, s.r, func() error {
		s.w.WriteHeader(http.StatusOK)
		if _, err := s.w.Write(s.first); err != nil {
			return err
		}
		return rc.Flush()
	})
	if err == nil && !through {
		return errHeldBack
	}
	return err
}

// failed returns the error of respond if there is somebody who can get a response.
func (s *stream) failed(err error) error {
	if !errors.Is(err, errHeldBack) {
		return nil
	}
	clearHead(s.w.Header())
	return caddyhttp.Error(http.StatusInternalServerError, err)
}

// receiver waits until the client disconnects. What the client sends means nothing.
type receiver hub.Conn

func (*receiver) Received([]byte) (more bool) { return true }
func (r *receiver) Ended()                    { (*hub.Conn)(r).Done() }
