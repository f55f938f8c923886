package queue

import (
	"encoding/base64"
	"errors"
	"fmt"
)

// pythonMessage is what python-socketio publishes (pubsub_manager.py), with JSON for the values.
type pythonMessage struct {
	method, event, namespace, room, skipSID, sid, callback value
	args                                                   arguments
}

// arguments are those of an event. Binary data is already taken out of them: a placeholder stands for it.
type arguments struct {
	elements    []byte // JSON values with commas between them
	n           int
	attachments [][]byte
}

// python decodes what python-socketio publishes: pickle up to 5.13, and JSON since 5.14.0. Which one it is follows from the
// first byte, because versions can be mixed on a channel. Pickles of protocols 0 and 1 do not begin with PROTO. No version
// since 5.0 writes them.
func (d *Decoder) python(payload []byte) (Command, error) {
	if len(payload) > 0 && payload[0] == opProto {
		if !d.Pickle {
			return Command{}, errors.New("pickle, which is turned off: use python-socketio 5.14 or later")
		}
		m, err := unpickle(payload, d.MaxMessage)
		if err != nil {
			return Command{}, fmt.Errorf("pickle: %w", err)
		}
		return d.pythonCommand(m)
	}
	for _, c := range payload {
		switch c {
		case ' ', '\t', '\r', '\n':
			continue
		case '{':
			return d.pythonJSON(payload)
		}
		break
	}
	return Command{}, errors.New("neither a JSON object nor a pickle of protocol 2 or later")
}

// pythonJSON decodes the JSON forms. How data is to be read depends on the version: see jsonArguments.
func (d *Decoder) pythonJSON(payload []byte) (Command, error) {
	var m pythonMessage
	var data, binary value
	err := object(payload, func(key []byte, v value) {
		switch string(key) {
		case "data":
			data = v
		case "binary":
			binary = v
		default:
			if f := m.field(key); f != nil {
				*f = v
			}
		}
	})
	if err != nil {
		return Command{}, fmt.Errorf("JSON: %w", err)
	}
	if m.isEmit() {
		if m.args, err = jsonArguments(data, binary); err != nil {
			return Command{}, fmt.Errorf("JSON: data: %w", err)
		}
	}
	return d.pythonCommand(m)
}

// field returns the field that the key names, except for the data, or nil. Other keys are ignored.
func (m *pythonMessage) field(key []byte) *value {
	switch string(key) {
	case "method":
		return &m.method
	case "event":
		return &m.event
	case "namespace":
		return &m.namespace
	case "room":
		return &m.room
	case "skip_sid":
		return &m.skipSID
	case "sid":
		return &m.sid
	case "callback":
		return &m.callback
	}
	return nil
}

func (m *pythonMessage) isEmit() bool {
	method, err := m.method.text()
	return err == nil && method == "emit"
}

// jsonArguments returns the arguments that the data stands for:
//
//	5.14.0, 5.14.1    no key "binary": the data is one argument, or none if it is null
//	5.14.2 to 5.15.0  binary is false: as above; true: an array of the data with placeholders and the attachments in base64
//	5.15.1 and later  the same two, but the data is always an array of arguments, and [null] stands for none
//
// The last two cannot be told apart if the data is an array. It is read as the reader of 5.15.1 does.
func jsonArguments(data, binary value) (arguments, error) {
	switch {
	case binary.isMissing():
		return one(data), nil
	case !binary.isTrue():
		return several(data), nil
	case !data.isArray() || data.n == 0:
		return arguments{}, errors.New("not an array, as it has to be if binary is true")
	case data.n > 1+maxAttachments:
		return arguments{}, fmt.Errorf("%d attachments: clients accept %d", data.n-1, maxAttachments)
	}
	var a arguments
	first := true
	err := array(data, func(v value) error {
		if first {
			a, first = several(v), false
			return nil
		}
		attachment, err := decodeBase64(v)
		a.attachments = append(a.attachments, attachment)
		return err
	})
	return a, err
}

// one returns the data as one argument. Null stands for none: emit("x", None) sends no argument.
func one(v value) arguments {
	if v.isNull() {
		return arguments{}
	}
	return arguments{elements: v.raw, n: 1}
}

// several returns the elements of the data as arguments. If the data is not an array, it is one argument, as versions
// before 5.15.1 write it.
func several(v value) arguments {
	if !v.isArray() {
		return one(v)
	}
	a := arguments{elements: v.elements(), n: v.n}
	if string(a.elements) == "null" {
		return arguments{}
	}
	return a
}

// decodeBase64 returns the bytes of an attachment. Python writes the standard alphabet with padding (base64.b64encode).
func decodeBase64(v value) ([]byte, error) {
	s, err := v.text()
	if err != nil {
		return nil, err
	}
	p, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil {
		return nil, errors.New("not base64")
	}
	return p, nil
}

// pythonCommand makes a command of a message. A client is never selected by something that is missing: that would select
// them all.
func (d *Decoder) pythonCommand(m pythonMessage) (c Command, err error) {
	method, err := m.method.text()
	if err != nil {
		return Command{}, errors.New("the method is missing or not a string")
	}
	if !m.namespace.isNull() {
		if c.Namespace, err = m.namespace.text(); err != nil {
			return Command{}, fmt.Errorf("the namespace: %w", err)
		}
	}
	switch method {
	case "emit":
		return c, d.pythonEmit(&c, m)
	case "disconnect":
		c.Method = Disconnect
	case "enter_room":
		c.Method = Join
	case "leave_room":
		c.Method = Leave
	case "close_room":
		c.Method = CloseRoom
	default: // callback, and what later versions have
		return Command{}, nil
	}
	// Unlike emit, these need a room and the ID of one socket. In the reference a missing one is never found.
	if c.Method != Disconnect {
		room, err := name("room", m.room)
		if err != nil {
			return Command{}, err
		}
		if c.Method == CloseRoom {
			c.Rooms = []string{room}
			return c, nil
		}
		c.Change = []string{room}
	}
	sid, err := name("sid", m.sid)
	c.Rooms = []string{sid}
	return c, err
}

// pythonEmit makes a command of an emit.
func (d *Decoder) pythonEmit(c *Command, m pythonMessage) (err error) {
	c.Method = Emit
	if c.Rooms, err = names("room", m.room); err != nil {
		return err
	}
	// No room is everybody, but a list without rooms is nobody (manager.py, get_participants, fails).
	if !m.room.isNull() && len(c.Rooms) == 0 {
		return errors.New("room: an empty list selects nobody")
	}
	if c.Except, err = names("skip_sid", m.skipSID); err != nil {
		return err
	}
	c.WantsAck = !m.callback.isNull()
	c.Event, err = d.event(m.event, m.args.elements, m.args.n, m.args.attachments)
	return err
}
