package v1

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/caddy-broadcast/caddy-broadcast/internal/frame"
	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/publish"
)

const (
	// maxRequests is how many requests a frame may have: each is answered, so a frame of many short ones would make a
	// reply that is many times larger.
	maxRequests = 256

	// maxRef is the length in bytes of the longest ref. It is sent back, and stays in memory until then.
	maxRef = 64
)

// Codes of errors. Clients rely on them.
const (
	codeInvalid   = "invalid"   // the request is malformed
	codeForbidden = "forbidden" // the route does not let the client do that
	codeTooBig    = "too_big"   // the data is larger than max_message
	codeConflict  = "conflict"  // another message has the key
	codeLimit     = "limit"     // too many channels
	codeRate      = "rate"      // too many requests
	codeFull      = "full"      // too much is waiting to be delivered

	codeUnavailable = "unavailable" // the broker cannot be reached: nothing was done
	codeUnknown     = "unknown"     // the broker did not confirm in time: the message may have been published
)

// Error is an error that the client is sent. Any other error of a request means that the connection is being closed.
type Error struct {
	code string
	err  error
}

func (e *Error) Error() string { return e.err.Error() }
func (e *Error) Unwrap() error { return e.err }

// reject returns an error that the client is sent, with a code that programs can rely on.
func reject(code, format string, args ...any) error {
	return &Error{code, fmt.Errorf(format, args...)}
}

// tooManyRequests is the text of codeRate, over a WebSocket and by POST.
const tooManyRequests = "too many requests"

// request is what a client sends. It has exactly one of publish, join and leave. If it has a ref, its ack or error has the
// same: a client that sends none gets no acks.
type request struct {
	Ref     json.RawMessage `json:"ref"`
	Publish *publish.Object `json:"publish"`
	Join    *struct {
		Channel string `json:"channel"`
		LastID  string `json:"last_id"`
	} `json:"join"`
	Leave *struct {
		Channel string `json:"channel"`
	} `json:"leave"`
}

// requests does what a frame asks for, a request or an array of them, and answers in one frame.
func (s *session) requests(op frame.Opcode, data []byte) error {
	if op != frame.Text {
		return &frame.CloseError{Code: frame.UnsupportedData, Text: "broadcast.v1 is JSON text"}
	}
	list, err := split(data)
	if err != nil {
		return s.malformed(err)
	}
	if len(list) == 0 { // it counts as a request too, because reading it takes as long
		ok, closing := s.limiter.Take()
		if closing != nil {
			return closing
		}
		if !ok {
			s.reply(appendError(nil, nil, codeRate, tooManyRequests))
		}
		return nil
	}
	var replies []byte
	for _, raw := range list {
		ok, closing := s.limiter.Take()
		if closing != nil {
			return closing
		}
		if ok {
			replies = s.request(raw, replies)
			continue
		}
		var q request
		q.parse(raw) // for its ref
		replies = appendError(replies, q.Ref, codeRate, tooManyRequests)
	}
	s.reply(replies)
	return nil
}

// split returns the requests of a frame: one, or an array of them. They are not parsed yet, so that one that is not valid
// does not keep the others from being done. It reads no further than the largest number that is allowed, so that a frame of
// very many requests does not take many times its size.
func split(frame []byte) (list []json.RawMessage, err error) {
	p := bytes.TrimLeft(frame, " \t\r\n")
	if len(p) == 0 || p[0] != '[' {
		return []json.RawMessage{frame}, nil
	}
	d := json.NewDecoder(bytes.NewReader(p))
	// Token by token, and not into a slice, so that it can stop after maxRequests.
	d.Token() // the bracket
	for d.More() {
		if len(list) == maxRequests {
			return nil, fmt.Errorf("the frame has more than %d requests", maxRequests)
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
		return nil, errors.New("there is more than one JSON value")
	}
	return list, nil
}

// malformed answers a frame whose requests cannot be told apart. The error names no request, because none has a ref. It is
// sent even to a client that is too fast: it would not be told more by the error rate.
func (s *session) malformed(err error) error {
	if _, closing := s.limiter.Take(); closing != nil {
		return closing
	}
	s.reply(appendError(nil, nil, codeInvalid, err.Error()))
	return nil
}

// reply sends acks and errors, if there are any.
func (s *session) reply(replies []byte) {
	if len(replies) > 0 {
		s.conn.Send(s.format.reply(replies))
	}
}

// request does what a request asks for, and appends its ack or error to those that were not sent yet.
func (s *session) request(raw json.RawMessage, replies []byte) []byte {
	var q request
	err := q.parse(raw)
	if err == nil {
		switch {
		case q.Publish != nil:
			var id string
			if id, err = s.publish(&q); err == nil && q.Ref != nil {
				return appendAck(replies, q.Ref, id)
			}
		case q.Join != nil:
			// The join is acked where it takes effect in the order of messages. The replies before it must not come after.
			s.reply(replies)
			replies = nil
			err = s.join(&q)
		case q.Leave != nil:
			s.reply(replies)
			replies = nil
			err = s.leave(&q)
		}
	}
	if e := new(Error); errors.As(err, &e) {
		return appendError(replies, q.Ref, e.code, e.Error())
	}
	return replies // it is answered later; or the connection is being closed, and nobody reads a reply
}

// parse parses and checks a request. If the request is not valid, it leaves a ref that can be sent back.
func (q *request) parse(raw json.RawMessage) error {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields() // a misspelled channel would send the message to the default channel
	err := d.Decode(q)
	if err == nil {
		if _, end := d.Token(); end != io.EOF {
			err = errors.New("the request has more than one JSON value")
		} else {
			err = hub.CheckUnicode(raw) // encoding/json replaces what is not valid Unicode, without a word
		}
	}
	// The ref is sent back as it came, so it has to be short, simple and valid whatever the rest of the request is.
	if len(q.Ref) > maxRef || len(q.Ref) > 0 && (q.Ref[0] == '{' || q.Ref[0] == '[') || hub.CheckUnicode(q.Ref) != nil {
		q.Ref = nil
		err = fmt.Errorf("ref must be a number or a string of at most %d bytes", maxRef)
	}
	if string(q.Ref) == "null" {
		q.Ref = nil
	}
	if err != nil {
		return reject(codeInvalid, "%w", err)
	}
	kinds := 0
	for _, has := range []bool{q.Publish != nil, q.Join != nil, q.Leave != nil} {
		if has {
			kinds++
		}
	}
	if kinds != 1 {
		return reject(codeInvalid, "a request must have exactly one of publish, join and leave")
	}
	return nil
}

// publish publishes a message. When the loops have fallen behind it waits: the client is not read meanwhile, and TCP holds it back.
func (s *session) publish(q *request) (id string, err error) {
	m, err := q.message(s.publishOn, s.endpoint.MaxMessage, s.conn.User(), s.conn.Remote(), s.conn.On)
	if err != nil {
		return "", err
	}
	m.Source, m.From, m.NoEcho = hub.SourceWebSocket, s.conn, s.endpoint.NoEcho
	h := s.endpoint.Hub
	if h.Shared() {
		return s.publishAsync(m, q.Ref)
	}
	if err := h.PublishWait(m); err != nil {
		return "", publishError(err)
	}
	return m.ID(), nil
}

// publishAsync publishes to a log that takes a while to answer. The client's requests after it are done meanwhile: it tells
// the answers apart by their refs.
func (s *session) publishAsync(m *hub.Message, ref json.RawMessage) (id string, err error) {
	c, format := s.conn, s.format
	s.endpoint.Hub.PublishAsync(m, func(err error) {
		err = publishError(err)
		switch e := new(Error); {
		case errors.As(err, &e):
			c.SendNow(format.reply(appendError(nil, ref, e.code, e.Error())))
		case err == nil && ref != nil:
			c.SendNow(format.reply(appendAck(nil, ref, m.ID())))
		}
	})
	return "", errLater
}

// errLater says that a request is answered later.
var errLater = errors.New("answered later")

// publishError turns an error of hub.Publish that the client has caused, or can do something about, into one that it is sent.
func publishError(err error) error {
	invalid := new(hub.InvalidError)
	switch {
	case errors.Is(err, hub.ErrKeyReused):
		return reject(codeConflict, "%w", err)
	case errors.As(err, &invalid):
		return reject(codeInvalid, "%w", err)
	case errors.Is(err, hub.ErrDown):
		return reject(codeUnavailable, "%w", err)
	case errors.Is(err, hub.ErrUnknown):
		return reject(codeUnknown, "%w; publish it again with the same key, and it is published once", err)
	case errors.Is(err, hub.ErrTooBig):
		return reject(codeTooBig, "%w", err)
	}
	return err
}

// message returns the message that the client publishes. It may publish on the channels (a message without a channel
// goes to the first one) and on those that it is on.
func (q *request) message(channels []string, limit int, user, remote string, on func(channel string) bool) (*hub.Message, error) {
	p := q.Publish
	if len(channels) == 0 {
		return nil, reject(codeForbidden, "publishing is off on this route")
	}
	channel := cmp.Or(string(p.Channel), channels[0])
	if !slices.Contains(channels, channel) && !on(channel) {
		return nil, reject(codeForbidden, "the client is not on the channel %q", channel)
	}
	m, err := p.Message(channel)
	if err != nil {
		return nil, reject(codeInvalid, "%w", err)
	}
	if len(m.Data) > limit { // the frame's own limit is larger: quoted, or in base64, the data is
		return nil, reject(codeTooBig, "the data has %d bytes, more than %d", len(m.Data), limit)
	}
	if m.Key != "" {
		m.Publisher, m.Owner = publish.Namespace(user), publish.Owner(user, remote)
	}
	return m, nil
}

// join subscribes the client to a channel. It may always join the route's own ones, which it may have left, and joining one
// that it is on is not an error, so that a client can repeat a join without knowing what became of the first.
func (s *session) join(q *request) error {
	name := q.Join.Channel
	if err := hub.CheckName("the channel", name); err != nil {
		return reject(codeInvalid, "%w", err)
	}
	if !slices.Contains(s.routeChannels, name) && (s.mayJoin == nil || !s.mayJoin(name)) && !s.conn.On(name) {
		return reject(codeForbidden, "%s", mayNotJoin(name))
	}
	// The ack, the gap and the messages that the client missed are one frame: there is no moment at which it has some of
	// them and not the others.
	err := s.conn.Join(name, q.Join.LastID, func(w hub.Welcome, replay []*hub.Message) []byte {
		return s.format.joined(q.Ref, name, w, replay)
	})
	if errors.Is(err, hub.ErrTooManyChannels) || errors.Is(err, hub.ErrJoinedTooMany) {
		return reject(codeLimit, "%w", err)
	}
	if errors.Is(err, hub.ErrNotReady) {
		return reject(codeUnavailable, "%w", err)
	}
	return err
}

// leave unsubscribes the client from a channel. The ack comes after the last message of the channel.
func (s *session) leave(q *request) error {
	var ack []byte
	if q.Ref != nil {
		ack = s.format.reply(appendAck(nil, q.Ref, ""))
	}
	if err := s.conn.Leave(q.Leave.Channel, ack); err != nil {
		return reject(codeInvalid, "the channel %q: %w", q.Leave.Channel, err)
	}
	return nil
}
