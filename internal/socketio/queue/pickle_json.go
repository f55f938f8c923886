package queue

import (
	"errors"
	"fmt"
	"math"
	"strconv"

	"github.com/caddy-broadcast/caddy-broadcast/internal/protocol"
)

// unpickle decodes a message of python-socketio. The limit is that of an event's JSON and attachments.
func unpickle(payload []byte, limit int) (pythonMessage, error) {
	if len(payload) > math.MaxInt32 {
		return pythonMessage{}, errLimit(limit)
	}
	// Each value takes two bytes of JSON or more, with its comma. The rest is for the message around the event.
	u := unpickler{p: payload, most: min(maxPushed, limit/2+maxRooms), stack: make([]pickled, 0, 32), memo: make([]pickled, 0, 32)}
	o, err := u.read()
	if err != nil {
		return pythonMessage{}, err
	}
	if o.shape != shapeDict {
		return pythonMessage{}, errors.New("not a dict")
	}
	var m pythonMessage
	var data pickled                // None if it is missing
	members := u.containers[o.bits] // a key that comes twice counts as the last, as in Python
	for i := 0; i < len(members); i += 2 {
		key, v := members[i], members[i+1]
		if key.shape != shapeString {
			return pythonMessage{}, errors.New("a key is not a string")
		}
		name := u.bytes(key)
		if string(name) == "data" {
			data = v
			continue
		}
		if err := u.setField(&m, name, v, limit); err != nil {
			return pythonMessage{}, fmt.Errorf("%s: %w", clip(string(name)), err)
		}
	}
	if m.isEmit() {
		if m.args, err = u.arguments(data, limit); err != nil {
			return pythonMessage{}, fmt.Errorf("data: %w", err)
		}
	}
	return m, nil
}

// setField sets a field of the message. Fields are JSON from here on, as those of later versions, so one place checks
// them. A tuple of rooms becomes an array as a list does.
func (u *unpickler) setField(m *pythonMessage, name []byte, o pickled, limit int) error {
	f := m.field(name)
	if f == nil {
		return nil
	}
	e := pickleEncoder{u: u, limit: limit}
	raw, err := e.append(nil, o, maxDepth)
	if err != nil {
		return err
	}
	*f = value{raw: raw}
	if o.shape == shapeList || o.shape == shapeTuple {
		f.n = len(u.containers[o.bits])
	}
	return nil
}

// arguments returns those that the data stands for: a tuple is several, None is none, and anything else is one.
func (u *unpickler) arguments(data pickled, limit int) (a arguments, err error) {
	elements := []pickled{data}
	switch data.shape {
	case shapeNone:
		return arguments{}, nil
	case shapeTuple:
		elements = u.containers[data.bits]
	}
	// One encoder counts the attachments of all arguments.
	e := pickleEncoder{u: u, limit: limit, wantsAttachments: true}
	for i, o := range elements {
		if i > 0 {
			a.elements = append(a.elements, ',')
		}
		if a.elements, err = e.append(a.elements, o, maxDepth-1); err != nil {
			return arguments{}, err
		}
	}
	a.n, a.attachments = len(elements), e.attachments
	return a, nil
}

// pickleEncoder encodes objects as JSON. Each step adds a byte or more, so the limit bounds the time as well: 40 lists of
// ten times the one before are a pickle of some 500 bytes, and stand for 10^40 values.
type pickleEncoder struct {
	u                *unpickler
	limit            int
	wantsAttachments bool
	attachments      [][]byte
	attached         int
}

// append appends an object that has at most this many levels. The depth ends the recursion in an object that contains
// itself.
func (e *pickleEncoder) append(dst []byte, o pickled, depth int) (_ []byte, err error) {
	switch o.shape {
	case shapeNone:
		dst = append(dst, "null"...)
	case shapeFalse:
		dst = append(dst, "false"...)
	case shapeTrue:
		dst = append(dst, "true"...)
	case shapeInt:
		dst = strconv.AppendInt(dst, int64(o.bits), 10)
	case shapeFloat:
		// Python's reader would send NaN on, and the clients' JSON.parse would fail.
		f := math.Float64frombits(o.bits)
		if math.IsNaN(f) || math.IsInf(f, 0) {
			return nil, errNotFinite
		}
		dst = strconv.AppendFloat(dst, f, 'g', -1, 64)
	case shapeString:
		// A string can be referred to many times, and grows when it is escaped.
		p := e.u.bytes(o)
		if !fitsJSON(p, e.limit-len(dst)) {
			return nil, errLimit(e.limit)
		}
		dst = protocol.AppendString(dst, p)
	case shapeBytes:
		dst, err = e.attach(dst, e.u.bytes(o))
	default:
		if depth == 0 {
			return nil, fmt.Errorf("%w, or a value that contains itself", errDepth)
		}
		dst, err = e.appendElements(dst, o, depth-1)
	}
	if err == nil && len(dst)+e.attached > e.limit {
		err = errLimit(e.limit)
	}
	return dst, err
}

// appendElements appends those of a list, a tuple or a dict.
func (e *pickleEncoder) appendElements(dst []byte, o pickled, depth int) (_ []byte, err error) {
	elements := e.u.containers[o.bits]
	if o.shape != shapeDict {
		dst = append(dst, '[')
		for i, element := range elements {
			if i > 0 {
				dst = append(dst, ',')
			}
			if dst, err = e.append(dst, element, depth); err != nil {
				return nil, err
			}
		}
		return append(dst, ']'), nil
	}
	dst = append(dst, '{')
	for i := 0; i < len(elements); i += 2 {
		if i > 0 {
			dst = append(dst, ',')
		}
		switch key := elements[i]; key.shape {
		case shapeString:
			dst, err = e.append(dst, key, 0) // a string has no levels
		case shapeInt: // as json.dumps does
			dst = append(strconv.AppendInt(append(dst, '"'), int64(key.bits), 10), '"')
		default:
			err = errors.New("a key of a dict is neither a string nor an integer")
		}
		if err != nil {
			return nil, err
		}
		if dst, err = e.append(append(dst, ':'), elements[i+1], depth); err != nil {
			return nil, err
		}
	}
	return append(dst, '}'), nil
}

// attach makes bytes an attachment and appends its placeholder.
func (e *pickleEncoder) attach(dst, p []byte) ([]byte, error) {
	if !e.wantsAttachments {
		return nil, errors.New("bytes outside the event's data")
	}
	if len(e.attachments) == maxAttachments {
		return nil, fmt.Errorf("more than %d attachments, which clients do not accept", maxAttachments)
	}
	e.attachments = append(e.attachments, append([]byte{}, p...)) // the payload's memory is the caller's
	e.attached += len(p)
	return appendPlaceholder(dst, len(e.attachments)-1), nil
}
