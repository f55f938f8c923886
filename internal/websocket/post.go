package websocket

import (
	"errors"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/wire"
)

// MaxBody returns how many bytes a frame of broadcast.v1 may have.
func (route *Route) MaxBody() int64 { return int64(2*route.MaxMessage + maxEnvelope) }

// Post does what a frame of broadcast.v1 asks for that a client has posted, as it has no WebSocket: it may only publish,
// on the channels that it may have joined too. It returns the frame that answers it. TooFast counts a request, and says
// whether it is one too many.
func (route *Route) Post(frame []byte, client Client, tooFast func() bool) []byte {
	list, err := split(frame)
	if len(list) == 0 && tooFast() { // it counts as a request
		route.Hub.CountRejected(hub.LimitRate)
		return answer(wire.AppendError(nil, nil, errRate, "too many requests"))
	}
	if err != nil {
		return answer(wire.AppendError(nil, nil, errInvalid, err.Error()))
	}
	var answers []byte
	for _, raw := range list {
		var q request
		id := ""
		err := q.parse(raw)
		switch {
		case tooFast():
			route.Hub.CountRejected(hub.LimitRate)
			err = refused(errRate, "too many requests")
		case err != nil:
		case q.Publish == nil:
			err = refused(errInvalid, "only a WebSocket can join and leave; name the channels with ?join= in the stream's address")
		default:
			id, err = route.publish(&q, client)
		}
		if r := new(refusal); errors.As(err, &r) {
			answers = wire.AppendError(answers, q.Ref, r.code, r.Error())
		} else {
			answers = wire.AppendAck(answers, q.Ref, id)
		}
	}
	return answer(answers)
}

func answer(answers []byte) []byte { return append(append([]byte{'['}, answers...), ']') }

func (route *Route) publish(q *request, client Client) (id string, err error) {
	may := func(channel string) bool { return client.MayJoin != nil && client.MayJoin(channel) }
	m, err := q.message(client.Publish, route.MaxMessage, client.User, client.Remote, may)
	if err != nil {
		return "", err
	}
	m.Source = hub.SourcePost
	if err := unpublished(route.Hub.Publish(m)); err != nil {
		if r := new(refusal); errors.As(err, &r) {
			return "", err
		}
		return "", refused(errFull, "%w", err)
	}
	return m.ID(), nil
}
