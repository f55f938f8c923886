package socketio

import (
	"errors"
	"mime"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-broadcast/caddy-broadcast/internal/frame"
	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/protocol"
	"github.com/caddy-broadcast/caddy-broadcast/internal/publish"
	"github.com/caddy-broadcast/caddy-broadcast/internal/socket"
	"github.com/caddy-broadcast/caddy-broadcast/internal/socketio/packet"
)

const (
	// bodyTimeout is how long the body of a POST may take to come.
	bodyTimeout = 30 * time.Second

	// lingerTime is how long the end of a session is kept for a GET that tells the client of it.
	lingerTime = 30 * time.Second

	plainText = "text/plain; charset=UTF-8"
)

// poller is a client that began by polling.
type poller struct {
	*session
	sid     string // a secret
	route   string
	options *hub.ConnOptions

	transport transport
	posting   atomic.Bool             // a POST is read
	upgrading atomic.Pointer[upgrade] // the WebSocket that it tries or has moved to
	lingers   *time.Timer             // after its end
}

// newPoller returns the client of a session that has its connection.
func newPoller(s *session, o *hub.ConnOptions) *poller {
	p := &poller{session: s, sid: newID(), route: s.endpoint.Route, options: o}
	p.transport.hold = s.endpoint.Hub.Hold
	p.transport.hold(sessionCost)
	p.transport.closed = func(kept bool) {
		if u := p.upgrading.Load(); u != nil {
			u.abandon(nil)
		}
		// One that made no sense is not known any more, so nobody can come for its end.
		if kept && p.endpoint.Table.find(p.sid, p.route) != nil {
			p.lingers = time.AfterFunc(lingerTime, p.forget)
			return
		}
		p.forget()
	}
	return p
}

func (p *poller) forget() { p.endpoint.Table.remove(p) }

// fail ends the session of a client that makes no sense.
func (p *poller) fail(err *frame.CloseError) {
	p.forget()
	p.conn.Fail(protocol.Reason(err.Code), err.Text)
	p.conn.Done()
}

// leave ends the session, because the client wants that or is gone.
func (p *poller) leave() {
	p.forget()
	p.conn.Done()
}

// get answers a GET when there is something to answer it with.
func (p *poller) get(w http.ResponseWriter, r *http.Request) error {
	rc := http.NewResponseController(w)
	// It waits for as long as nothing happens, which is a ping interval at most. Caddy would end it sooner, if that is long.
	socket.KeepIdle(r)
	rc.SetWriteDeadline(time.Time{})
	payload, what := p.transport.poll(r.Context())
	switch what {
	case pollSecond:
		p.fail(&frame.CloseError{Code: frame.ProtocolError, Text: "two GETs at once"})
		return refuse(w, packet.BadRequest)
	case pollRefused:
		return refuse(w, packet.BadRequest)
	case pollGone:
		// As the reference ends it ("poll connection closed prematurely"): the client begins anew, and recovers.
		if p.transport.polls() {
			p.leave()
		}
		return nil
	}
	last := isLast(payload)
	if last { // before the client can ask again
		p.forget()
	}
	rc.SetWriteDeadline(time.Now().Add(p.options.WriteTimeout))
	err := respond(w, plainText, payload)
	rc.SetWriteDeadline(time.Time{})
	// A client that has moved needs no noop. But it would miss messages without knowing.
	if last || err != nil && (p.transport.polls() || string(payload) != noopPacket) {
		p.leave()
	}
	return nil
}

// respond writes a whole response.
func respond(w http.ResponseWriter, contentType string, body []byte) error {
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
	_, err := w.Write(body)
	return err
}

// post takes the packets of a POST.
func (p *poller) post(w http.ResponseWriter, r *http.Request) error {
	if !p.posting.CompareAndSwap(false, true) {
		p.fail(&frame.CloseError{Code: frame.ProtocolError, Text: "two POSTs at once"})
		return refuse(w, packet.BadRequest)
	}
	defer p.posting.Store(false)
	// Binary packets are base64 in text. The reference's clients send nothing else.
	if media, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); media == "application/octet-stream" {
		p.fail(&frame.CloseError{Code: frame.UnsupportedData, Text: "a POST of binary data"})
		return refuse(w, packet.BadRequest)
	}
	// Caddy has no limit for slow bodies by default, and no other POST of the session is taken meanwhile.
	rc := http.NewResponseController(w)
	rc.SetReadDeadline(time.Now().Add(bodyTimeout))
	body, err := publish.Body(w, r, int64(p.endpoint.maxPayload()))
	rc.SetReadDeadline(time.Time{})
	if invalid := new(publish.HTTPError); errors.As(err, &invalid) {
		if invalid.Status == http.StatusRequestEntityTooLarge {
			p.fail(&frame.CloseError{Code: frame.MessageTooBig, Text: "the POST is too big"})
			return caddyhttp.Error(invalid.Status, invalid.Err)
		}
		p.fail(&frame.CloseError{Code: frame.ProtocolError, Text: "a POST that did not come"})
		return refuse(w, packet.BadRequest)
	}
	// A POST alone shows life: a client whose GETs wait may be one that answers no ping.
	p.conn.Alive()
	for q, closing := range packet.Payload(body) {
		if closing != nil {
			p.fail(closing)
			return refuse(w, packet.BadRequest)
		}
		if err := p.receive(q); err != nil {
			if !p.end(err) {
				return refuse(w, packet.BadRequest)
			}
			break
		}
	}
	return respond(w, "text/html", []byte("ok"))
}

// end ends the session after an error. It reports whether the POST was right all the same.
func (p *poller) end(err error) bool {
	if errors.Is(err, errLeft) {
		// The official tests want exactly this for the GET that waits.
		p.transport.finish(noopPacket)
		p.leave()
		return true
	}
	closing := new(frame.CloseError)
	if !errors.As(err, &closing) {
		// The hub has ended it. If a GET will tell the client how, an error here would have it come back, though it may have
		// to stay away.
		return p.endpoint.Table.find(p.sid, p.route) != nil
	}
	p.fail(closing)
	return false
}
