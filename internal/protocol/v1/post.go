package v1

import (
	"errors"
	"net/http"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/protocol"
)

// Post does what a frame asks for that a client without a WebSocket has posted. The client can only publish. It may publish
// on the channels that it may join, because only its event stream knows which it has joined.
func (Protocol) Post(w http.ResponseWriter, e *protocol.Endpoint, r *protocol.Request, body []byte, reject func() bool) error {
	replies := posted{e, r, reject}.frame(body)
	w.Header().Set("Content-Type", "application/json")
	// A response to POST may be cached if it says so (RFC 9110, section 9.3.3). The IDs are those of these
	// messages.
	w.Header().Set("Cache-Control", "no-store")
	_, err := w.Write(append(append([]byte{'['}, replies...), ']'))
	return err
}

// posted is a frame that came by POST.
type posted struct {
	endpoint *protocol.Endpoint
	client   *protocol.Request
	reject   func() bool
}

// tooFast counts a request, and reports whether it is one too many.
func (p posted) tooFast() bool {
	if !p.reject() {
		return false
	}
	p.endpoint.Hub.CountRejected(hub.LimitRate)
	return true
}

// frame does what a frame asks for and returns the acks and errors, one for each request and in their order. Requests are
// independent of each other: one that fails does not undo those before it.
func (p posted) frame(body []byte) (replies []byte) {
	list, err := split(body)
	if len(list) == 0 && p.tooFast() { // it counts as a request too, because reading it takes as long
		return appendError(nil, nil, codeRate, tooManyRequests)
	}
	if err != nil {
		return appendError(nil, nil, codeInvalid, err.Error())
	}
	for _, raw := range list {
		var q request
		id := ""
		err := q.parse(raw)
		switch {
		case p.tooFast():
			err = reject(codeRate, tooManyRequests) // also if it is not valid: it has a ref all the same
		case err != nil:
		case q.Publish == nil:
			err = reject(codeInvalid, "only a WebSocket can join and leave; name the channels with ?join= in the stream's address")
		default:
			id, err = p.publish(&q)
		}
		if e := new(Error); errors.As(err, &e) {
			replies = appendError(replies, q.Ref, e.code, e.Error())
		} else { // with the ID, even without a ref: a POST is answered anyway
			replies = appendAck(replies, q.Ref, id)
		}
	}
	return replies
}

// publish publishes a message. Unlike a WebSocket's it does not wait when the loops have fallen behind: the client can repeat the
// request, and a waiting handler would hold the request's memory.
func (p posted) publish(q *request) (id string, err error) {
	c := p.client
	// Not Conn.On, as for a WebSocket, because there is no connection to ask.
	may := func(channel string) bool { return c.MayJoin != nil && c.MayJoin(channel) }
	m, err := q.message(c.Publish, p.endpoint.MaxMessage, c.User, c.Remote, may)
	if err != nil {
		return "", err
	}
	m.Source = hub.SourcePost
	err = publishError(p.endpoint.Hub.Publish(m))
	if err == nil {
		return m.ID(), nil
	}
	if e := new(Error); !errors.As(err, &e) {
		err = reject(codeFull, "%w", err)
	}
	return "", err
}
