package websocket

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/post"
	"github.com/caddy-broadcast/caddy-broadcast/internal/wire"
)

const (
	// maxEnvelope is how many bytes a frame of broadcast.v1 may have besides twice those of the largest message, which
	// quotes, or base64, make larger.
	maxEnvelope = 4 << 10

	// maxRequests is how many requests a frame may have.
	maxRequests = 256

	// maxRef is the length in bytes of the longest ref.
	maxRef = 64
)

// v1 is what there is to know of a client that speaks broadcast.v1.
type v1 struct {
	format  wire.V1
	own     []string // the channels that it came for
	publish []string // those of the route that it may publish on
	mayJoin func(channel string) bool
	max     int // bytes of a message's data
}

// Codes of errors. Clients rely on them.
const (
	errInvalid   = "invalid"   // not what the protocol has
	errForbidden = "forbidden" // the route does not let the client do that
	errTooBig    = "too_big"   // the data is larger than max_message
	errConflict  = "conflict"  // the key is that of another message
	errLimit     = "limit"     // too many channels
	errRate      = "rate"      // too many requests
	errFull      = "full"      // too much is waiting to be delivered
)

// refusal is an error that the client is told.
type refusal struct {
	code string
	err  error
}

func (e *refusal) Error() string { return e.err.Error() }

func refused(code, format string, args ...any) error {
	return &refusal{code, fmt.Errorf(format, args...)}
}

// request is what a client sends: one of the three.
type request struct {
	Ref     json.RawMessage `json:"ref"`
	Publish *struct {
		Channel  post.Channel    `json:"channel"`
		Event    string          `json:"event"`
		Data     json.RawMessage `json:"data"`
		Encoding string          `json:"encoding"`
		Key      string          `json:"key"`
	} `json:"publish"`
	Join *struct {
		Channel string `json:"channel"`
		LastID  string `json:"last_id"`
	} `json:"join"`
	Leave *struct {
		Channel string `json:"channel"`
	} `json:"leave"`
}

// requests does what a frame asks for, a request or an array of them, and answers in one frame.
func (s *session) requests(kind uint8, frame []byte) *fault {
	if kind != opText {
		return &fault{codeUnsupported, "broadcast.v1 is JSON text"}
	}
	list, err := split(frame)
	if err != nil {
		return s.invalid(err.Error())
	}
	if len(list) == 0 { // a request too, as it takes as much to read
		refuse, bad := s.tooFast()
		if refuse && bad == nil {
			s.answer(wire.AppendError(nil, nil, errRate, "too many requests"))
		}
		return bad
	}
	var answers []byte
	for _, raw := range list {
		refuse, bad := s.tooFast()
		if bad != nil {
			return bad
		}
		if refuse {
			var q request
			q.parse(raw)
			answers = wire.AppendError(answers, q.Ref, errRate, "too many requests")
			continue
		}
		answers = s.request(raw, answers)
	}
	s.answer(answers)
	return nil
}

// split returns the requests of a frame: one, or an array of them. It looks no further than at as many as there may be.
func split(frame []byte) (list []json.RawMessage, err error) {
	p := bytes.TrimLeft(frame, " \t\r\n")
	if len(p) == 0 || p[0] != '[' {
		return []json.RawMessage{frame}, nil
	}
	d := json.NewDecoder(bytes.NewReader(p))
	d.Token() // the bracket
	for d.More() {
		if len(list) == maxRequests {
			return nil, fmt.Errorf("a frame of more than %d requests", maxRequests)
		}
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			return nil, err
		}
		list = append(list, raw)
	}
	if _, err := d.Token(); err != nil { // the other bracket
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("more than one JSON value")
	}
	return list, nil
}

// invalid answers a frame that is none.
func (s *session) invalid(why string) *fault {
	_, bad := s.tooFast()
	if bad == nil {
		s.answer(wire.AppendError(nil, nil, errInvalid, why))
	}
	return bad
}

func (s *session) answer(answers []byte) {
	if len(answers) > 0 {
		s.conn.Send(s.v1.format.Frame(answers))
	}
}

// request does what a client asks for, and appends the answer.
func (s *session) request(raw json.RawMessage, answers []byte) []byte {
	var q request
	err := q.parse(raw)
	if err == nil {
		switch {
		case q.Publish != nil:
			var id string
			if id, err = s.publish(&q); err == nil && q.Ref != nil {
				return wire.AppendAck(answers, q.Ref, id)
			}
		case q.Join != nil:
			s.answer(answers) // they come before what the channel had
			answers = nil
			err = s.join(&q)
		case q.Leave != nil:
			var ack []byte
			if q.Ref != nil {
				ack = s.v1.format.Frame(wire.AppendAck(nil, q.Ref, ""))
			}
			s.answer(answers)
			answers = nil
			if err = s.conn.Leave(q.Leave.Channel, ack); err != nil {
				err = refused(errInvalid, "the channel %q: %w", q.Leave.Channel, err)
			}
		}
	}
	if r := new(refusal); errors.As(err, &r) {
		return wire.AppendError(answers, q.Ref, r.code, r.Error())
	}
	return answers // closing, if there is an error: nobody reads the answer
}

func (q *request) parse(raw json.RawMessage) error {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	err := d.Decode(q)
	if err == nil {
		if _, end := d.Token(); end != io.EOF {
			err = errors.New("more than one JSON value")
		} else {
			err = hub.CheckUnicode(raw)
		}
	}
	if len(q.Ref) > maxRef || len(q.Ref) > 0 && (q.Ref[0] == '{' || q.Ref[0] == '[') || hub.CheckUnicode(q.Ref) != nil {
		q.Ref = nil
		err = fmt.Errorf("the ref is not a number or a string of %d bytes at most", maxRef)
	}
	if string(q.Ref) == "null" {
		q.Ref = nil
	}
	if err != nil {
		return refused(errInvalid, "%w", err)
	}
	n := 0
	for _, has := range []bool{q.Publish != nil, q.Join != nil, q.Leave != nil} {
		if has {
			n++
		}
	}
	if n != 1 {
		return refused(errInvalid, "a request is one of publish, join and leave")
	}
	return nil
}

func (s *session) publish(q *request) (id string, err error) {
	m, err := q.message(s.v1.publish, s.v1.max, s.conn.User(), s.conn.Remote(), s.conn.On)
	if err != nil {
		return "", err
	}
	m.Source, m.From, m.NoEcho = "websocket", s.conn, s.noEcho
	if err := s.hub.PublishWait(m); err != nil {
		return "", unpublished(err)
	}
	return m.ID(), nil
}

// unpublished returns what the client is told of an error of hub.Publish, if that is the client's.
func unpublished(err error) error {
	if errors.Is(err, hub.ErrKeyReused) {
		return refused(errConflict, "%w", err)
	}
	if invalid := new(hub.InvalidError); errors.As(err, &invalid) {
		return refused(errInvalid, "%w", err)
	}
	return err
}

// message returns what the client publishes: on one of the channels, first the one where what names none is published,
// or one that it is on.
func (q *request) message(channels []string, limit int, user, remote string, on func(channel string) bool) (*hub.Message, error) {
	p := q.Publish
	if len(channels) == 0 {
		return nil, refused(errForbidden, "publishing is off on this route")
	}
	m := &hub.Message{Channel: cmp.Or(string(p.Channel), channels[0]), Event: p.Event, Key: p.Key}
	if !slices.Contains(channels, m.Channel) && !on(m.Channel) {
		return nil, refused(errForbidden, "the client is not on the channel %q", m.Channel)
	}
	if err := post.Data(m, p.Data, p.Encoding); err != nil {
		return nil, refused(errInvalid, "%w", err)
	}
	if len(m.Data) > limit {
		return nil, refused(errTooBig, "the data has %d bytes, more than %d", len(m.Data), limit)
	}
	if m.Key != "" {
		m.Publisher, m.Owner = post.Client(user), post.Owner(user, remote)
	}
	return m, nil
}

func (s *session) join(q *request) error {
	name := q.Join.Channel
	if err := hub.CheckName(name); err != nil {
		return refused(errInvalid, "the channel %w", err)
	}
	if !slices.Contains(s.v1.own, name) && (s.v1.mayJoin == nil || !s.v1.mayJoin(name)) && !s.conn.On(name) {
		return refused(errForbidden, "%s", mayNotJoin(name))
	}
	err := s.conn.Join(name, q.Join.LastID, func(w hub.Welcome, replay []*hub.Message) []byte {
		return s.v1.format.Joined(q.Ref, name, w, replay)
	})
	if errors.Is(err, hub.ErrTooManyChannels) || errors.Is(err, hub.ErrJoinedTooMany) {
		return refused(errLimit, "%w", err)
	}
	return err
}
