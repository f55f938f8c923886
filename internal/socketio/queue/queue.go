// Package queue decodes what backends publish through Redis to reach Socket.IO clients, as on Flask-SocketIO's
// message_queue:
//
//	channel                     payload                                           from
//	socketio, flask-socketio    JSON                                              python-socketio 5.14 and later
//	                            pickle                                            python-socketio before
//	/0.socketio                 the same in an envelope of JSON                   kombu
//	socket.io#/#                msgpack of an event                               @socket.io/redis-emitter
//	socket.io-request#/#        JSON of what to do with clients                   @socket.io/redis-emitter
//
// All forms become JSON before they are looked at, so the rules for names, arguments and attachments are in one place.
//
// # What a payload can cost
//
// Everything is decoded as data: no pickle is run, and no class is looked up. Lengths are checked against what is left of the
// payload before anything is allocated for them. Nesting is bounded, and with it all recursion. What a payload refers to
// more than once is bounded by the size of the event that it makes. Names are valid names of channels, and the placeholders
// of attachments are checked: one wrong event would make every client that receives it disconnect.
//
// A pickle takes the most memory: about 100 bytes for each of its bytes in the worst case, with a bound of 30 MiB, and
// only while it is decoded.
package queue

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
)

// Method is what a backend asks for.
type Method uint8

const (
	Ignore     Method = iota // nothing: it is meant for servers that answer, such as a callback
	Emit                     // send an event
	Join                     // let clients join rooms
	Leave                    // let clients leave rooms
	CloseRoom                // let everybody leave a room
	Disconnect               // disconnect clients from the namespace
)

func (m Method) String() string {
	return [...]string{"ignore", "emit", "join", "leave", "close_room", "disconnect"}[m]
}

// Command is what a payload asks for. It keeps nothing of the payload's memory.
type Command struct {
	Method    Method
	Namespace string

	// Rooms selects the clients: those that are in one of these rooms, or all of the namespace if it is empty. The ID
	// of a client's socket is a room that holds only this client. For CloseRoom it is the room.
	Rooms []string
	// Except lists rooms whose clients are not selected.
	Except []string
	// Change lists the rooms to join or to leave.
	Change []string
	// CloseConnection tells Disconnect to close the client's connection, and not only to leave the namespace.
	CloseConnection bool

	Event
	// WantsAck reports that the backend waits for the clients' acknowledgements, which it will not get.
	WantsAck bool
}

// Event is an event of Emit, ready to be sent.
type Event struct {
	Name string
	// Array is the JSON array of the name and the arguments: what follows the packet type and the namespace in a packet.
	Array []byte
	// Arguments is how many arguments there are, and Argument is the JSON of the first one. It is part of Array.
	Arguments int
	Argument  []byte
	// Attachments are what the placeholders in Array stand for. The placeholders have been checked.
	Attachments [][]byte

	from int // where in Array the first argument is
}

// AppendArguments appends the JSON array of the arguments, without the name.
func (e *Event) AppendArguments(dst []byte) []byte {
	if e.Arguments == 0 {
		return append(dst, "[]"...)
	}
	return append(append(dst, '['), e.Array[e.from:]...)
}

// ErrChannel says that a channel is not one of those that the Decoder knows.
var ErrChannel = errors.New("not a channel of Socket.IO")

// Decoder decodes what is published on the channels of Socket.IO. It can be used concurrently.
type Decoder struct {
	Channels   []string // of python-socketio: "socketio" (its default) and "flask-socketio" (Flask-SocketIO's)
	Key        string   // prefix of redis-emitter's channels: "socket.io" is its default
	Pickle     bool     // whether pickles are decoded
	MaxMessage int      // most bytes of an event: its array and its attachments
}

// maxRooms is how many rooms a command may name, in each of its lists.
const maxRooms = 10000

// Decode decodes a payload that was published on a channel. The error is ErrChannel if the channel is not one of the
// Decoder's. Otherwise it is meant for the backend's developer. It says what is wrong with the payload, and what to send
// instead if that is known.
func (d *Decoder) Decode(channel string, payload []byte) (Command, error) {
	decode, form := d.route(channel)
	if decode == nil {
		return Command{}, ErrChannel
	}
	// Base64 takes a third more than what it stands for, and escapes twice as much as what they stand for.
	if most := 2*d.MaxMessage + 64<<10; len(payload) > most {
		return Command{}, fmt.Errorf("%s: %d bytes, more than %d", form, len(payload), most)
	}
	c, err := decode(payload)
	if err == nil && c.Method != Ignore {
		err = c.checkNames()
	}
	if err != nil {
		return Command{}, fmt.Errorf("%s: %w", form, err)
	}
	return c, nil
}

// route returns what decodes the payloads of a channel, and a name for their form. It returns nil if the channel is not
// ours.
func (d *Decoder) route(channel string) (decode func([]byte) (Command, error), form string) {
	for _, name := range d.Channels {
		switch {
		case channel == name:
			return d.python, "python-socketio"
		case isKombu(channel, name):
			return d.kombu, "kombu"
		}
	}
	rest, ok := strings.CutPrefix(channel, d.Key)
	switch {
	case !ok || d.Key == "" || !strings.HasSuffix(rest, "#"):
	case strings.HasPrefix(rest, "#"):
		return d.emitter, "redis-emitter"
	case strings.HasPrefix(rest, "-request#") && len(rest) > len("-request#"):
		namespace := strings.TrimSuffix(strings.TrimPrefix(rest, "-request#"), "#")
		return func(payload []byte) (Command, error) { return request(namespace, payload) }, "redis-emitter request"
	}
	return nil, ""
}

// Subscriptions returns the names and the patterns (as of PSUBSCRIBE) of the channels that the Decoder knows.
func (d *Decoder) Subscriptions() (channels, patterns []string) {
	// The characters with a meaning in a pattern: util.c, stringmatchlen, in Redis.
	escape := strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`, `]`, `\]`)
	for _, name := range d.Channels {
		patterns = append(patterns, "/*."+escape.Replace(name))
	}
	if d.Key != "" {
		key := escape.Replace(d.Key)
		patterns = append(patterns, key+"#*", key+"-request#*")
	}
	return d.Channels, patterns
}

// checkNames checks what becomes names of channels.
func (c *Command) checkNames() error {
	if c.Namespace == "" {
		c.Namespace = "/"
	}
	if err := hub.CheckName("the namespace", c.Namespace); err != nil {
		return err
	}
	if c.Namespace[0] != '/' || strings.Contains(c.Namespace, ",") {
		return fmt.Errorf("the namespace %s does not begin with / or has a comma", clip(c.Namespace))
	}
	for _, list := range [...]struct {
		what  string
		names []string
	}{{"a room", c.Rooms}, {"a room to join or leave", c.Change}} {
		for _, name := range list.names {
			if err := hub.CheckName(list.what, name); err != nil {
				return err
			}
		}
	}
	// A view may have been given no ID to except, or anything. In the reference that is nobody's, so the event is for all.
	c.Except = slices.DeleteFunc(c.Except, func(name string) bool { return hub.CheckName("", name) != nil })
	return nil
}

// reserved are the events that clients make themselves. A client disconnects when it receives one (socket.io-parser,
// RESERVED_EVENTS).
var reserved = map[string]bool{
	"connect": true, "connect_error": true, "disconnect": true, "disconnecting": true, "newListener": true, "removeListener": true,
}

// event makes an event of its name, a JSON value, and the arguments, JSON values with commas between them.
func (d *Decoder) event(name value, arguments []byte, n int, attachments [][]byte) (Event, error) {
	e := Event{Arguments: n, Attachments: attachments}
	switch {
	case name.isString():
		s, err := name.text()
		if err != nil {
			return Event{}, err
		}
		e.Name = s
	// Socket.IO allows numbers as names of events, and keeps them numbers.
	case name.isInteger():
		e.Name = string(name.raw)
	default:
		return Event{}, errors.New("the event is not a string")
	}
	if reserved[e.Name] {
		return Event{}, fmt.Errorf("the event %q is reserved", e.Name)
	}
	if err := hub.CheckName("the event", e.Name); err != nil {
		return Event{}, err
	}
	// The capacity is what is needed. Were there more, two that append to the array would write to the same memory.
	e.Array = make([]byte, 0, len("[,]")+len(name.raw)+len(arguments))
	e.Array = append(append(e.Array, '['), name.raw...)
	if n > 0 {
		e.Array = append(append(e.Array, ','), arguments...)
	}
	e.Array = append(e.Array, ']')
	e.Array = e.Array[:len(e.Array):len(e.Array)]
	size := len(e.Array)
	for _, a := range attachments {
		size += len(a)
	}
	if size > d.MaxMessage {
		return Event{}, errLimit(d.MaxMessage)
	}
	if len(attachments) > 0 {
		if err := checkPlaceholders(e.Array, len(attachments)); err != nil {
			return Event{}, err
		}
	}
	return e, e.setArgument(len(name.raw) + 2)
}

// setArgument finds the first argument, which begins at this index of the array.
func (e *Event) setArgument(from int) error {
	if e.from = from; e.Arguments == 0 {
		return nil
	}
	if e.Arguments == 1 { // nearly always
		e.Argument = e.Array[from : len(e.Array)-1]
		return nil
	}
	r := jsonReader{p: e.Array, i: from}
	v, err := r.value(maxDepth)
	e.Argument = v.raw
	return err
}

// fitsJSON reports whether a string takes no more than this many bytes in JSON. A control character takes six there.
func fitsJSON(p []byte, most int) bool {
	most -= len(`""`) + len(p)
	if most >= len(`\u000`)*len(p) {
		return true
	}
	for _, c := range p {
		switch {
		case c < ' ' && c != '\n' && c != '\r' && c != '\t':
			most -= len(`\u000`)
		case c < ' ' || c == '"' || c == '\\':
			most--
		}
	}
	return most >= 0
}

func errLimit(limit int) error {
	return fmt.Errorf("the event has more than %d bytes, which is max_message", limit)
}

// names returns the names in a value: a string, an integer, or an array of these. Null and a missing value have none, and null
// in an array is an empty name. Numbers are written as text, as everywhere in Socket.IO's own clients.
func names(what string, v value) ([]string, error) {
	if v.isNull() {
		return nil, nil
	}
	if !v.isArray() {
		s, err := name(what, v)
		if err != nil {
			return nil, err
		}
		return []string{s}, nil
	}
	if v.n > maxRooms {
		return nil, fmt.Errorf("%s: %d names, more than %d", what, v.n, maxRooms)
	}
	list := make([]string, 0, v.n)
	err := array(v, func(v value) error {
		if v.isNull() {
			list = append(list, "") // see checkNames
			return nil
		}
		s, err := name(what, v)
		list = append(list, s)
		return err
	})
	return list, err
}

func name(what string, v value) (string, error) {
	switch {
	case v.isString():
		return unquote(v.raw)
	case v.isInteger():
		return string(v.raw), nil
	}
	return "", fmt.Errorf("%s: %s is neither a string nor an integer", what, clip(string(v.raw)))
}

// clip quotes what a backend sent for the log: nothing in it can break the line, and it is short.
func clip(s string) string {
	const most = 60
	if len(s) > most {
		return strconv.QuoteToASCII(s[:most]) + "…"
	}
	return strconv.QuoteToASCII(s)
}
