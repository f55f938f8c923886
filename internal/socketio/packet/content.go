package packet

import (
	"encoding/base64"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
)

// Content is what a message has of an event: what is in its arguments.
//
// An event with one argument is a message like any other, so that clients of all protocols understand each other: a
// string is text, an attachment is binary, and everything else is JSON. Then Args is nil. Only other events need Args.
type Content struct {
	// Data is what clients of other protocols get: the argument; null, if there is none; an array, if there are several. It
	// is nil for a message with Attachments: AppendPlain makes it.
	Data []byte
	Kind hub.Kind

	// Args is the JSON array of the arguments, without the event, in which placeholders stand for the Attachments. There is
	// no white space next to its brackets.
	Args        []byte
	Attachments [][]byte
}

var (
	errArguments = errors.New("the arguments are not a JSON array, or their placeholders are not those of the attachments")
	errUTF8      = errors.New("the arguments are not UTF-8")
	errMissing   = errors.New("attachments are missing")
)

// NewContent returns the content of an event that a backend emits. It checks everything that would make clients of Socket.IO
// close their connections. The hub checks the rest. The content shares no memory with args, and keeps the attachments.
func NewContent(args []byte, attachments [][]byte) (Content, error) {
	if len(attachments) > MaxAttachments {
		return Content{}, fmt.Errorf("the event has %d attachments, more than %d", len(attachments), MaxAttachments)
	}
	if !utf8.Valid(args) {
		return Content{}, errUTF8
	}
	var l list
	if !l.read(args, len(attachments)) {
		return Content{}, errArguments
	}
	if l.half {
		return Content{}, errHalf
	}
	return l.content(false, attachments), nil
}

// Content returns the content of an event whose attachments have come. It keeps them, and shares no memory with the packet.
func (p *Packet) Content(attachments [][]byte) (Content, error) {
	if p.Rejected != nil {
		return Content{}, p.Rejected
	}
	if len(attachments) != p.Attachments {
		return Content{}, errMissing
	}
	return p.list.content(p.Type == Event || p.Type == BinaryEvent, attachments), nil
}

// content returns the content of what was read.
func (l *list) content(event bool, attachments [][]byte) Content {
	s, count := l.arguments(event)
	args := l.of(s)
	if count == 1 {
		switch {
		case len(attachments) == 1 && l.places[0].start == s.start && l.places[0].end == s.end:
			return Content{Data: attachments[0], Kind: hub.Binary}
		case len(attachments) > 0:
		case args[0] == '"':
			return Content{Data: []byte(unquote(args)), Kind: hub.Text}
		default:
			return Content{Data: append(make([]byte, 0, len(args)), args...), Kind: hub.JSON}
		}
	}
	array := append(append(append(make([]byte, 0, len(args)+2), '['), args...), ']')
	c := Content{Kind: hub.JSON, Args: array, Attachments: attachments}
	switch {
	case len(attachments) > 0:
	case count == 0:
		c.Data = []byte("null")
	default:
		c.Data = array
	}
	return c
}

// Message returns a message with the content, for a channel.
func (c *Content) Message(channel, event string) *hub.Message {
	m := &hub.Message{Channel: channel, Event: event, Data: c.Data, Kind: c.Kind}
	if event == DefaultEvent { // to clients of other protocols it is none
		m.Event = ""
	}
	if c.Args != nil {
		m.Emit = &hub.Emit{Args: c.Args, Attachments: c.Attachments}
		if c.Data == nil {
			m.Data = AppendPlain(make([]byte, 0, PlainSize(c.Args, c.Attachments)), c.Args, c.Attachments)
		}
	}
	return m
}

// AppendPlain appends the Data of content that has Args, for clients of other protocols: attachments are strings of base64
// in it. It appends args as they are if they are not what NewContent accepts.
func AppendPlain(dst, args []byte, attachments [][]byte) []byte {
	var l list
	if len(attachments) > MaxAttachments || !l.read(args, len(attachments)) {
		return append(dst, args...)
	}
	s := span{0, len(args)} // several arguments are an array
	switch l.count {
	case 0:
		return append(dst, "null"...)
	case 1:
		s = l.first
	}
	for _, at := range l.places[:l.found] {
		dst = append(append(dst, args[s.start:at.start]...), '"')
		dst = append(base64.StdEncoding.AppendEncode(dst, attachments[at.num]), '"')
		s.start = at.end
	}
	return append(dst, args[s.start:s.end]...)
}

// PlainSize returns the length of what AppendPlain appends, or a little more.
func PlainSize(args []byte, attachments [][]byte) int {
	n := max(len(args), len("null"))
	for _, a := range attachments {
		n += base64.StdEncoding.EncodedLen(len(a))
	}
	return n
}
