package queue

import (
	"errors"
	"fmt"
	"strconv"
)

// Types of packets (socket.io-protocol).
const (
	packetEvent       = "2"
	packetBinaryEvent = "5"
)

// Types of requests (redis-emitter, lib/index.ts, RequestType).
const (
	remoteJoin       = "2"
	remoteLeave      = "3"
	remoteDisconnect = "4"
)

// emitter decodes what redis-emitter and the adapters publish: msgpack of [uid, packet, options]. The namespace and the
// rooms are those of the payload. The channel's name has them too, but not always.
func (d *Decoder) emitter(payload []byte) (Command, error) {
	m := msgpackReader{p: payload, limit: d.MaxMessage}
	packet, rooms, except, err := m.emitterMessage()
	if err != nil {
		return Command{}, err
	}
	c := Command{Method: Emit, WantsAck: packet.hasID}
	// Only events are broadcast. The type does not have to tell whether there are attachments: the data does.
	switch kind := string(packet.kind.raw); {
	case kind != packetEvent && kind != packetBinaryEvent:
		return Command{}, nil
	case !packet.namespace.isNull():
		if c.Namespace, err = packet.namespace.text(); err != nil {
			return Command{}, fmt.Errorf("nsp: %w", err)
		}
	}
	if packet.data == nil {
		return Command{}, errors.New("data: not an array, or without the event's name")
	}
	if c.Rooms, err = names("rooms", rooms); err != nil {
		return Command{}, err
	}
	if c.Except, err = names("except", except); err != nil {
		return Command{}, err
	}
	c.Event, err = d.event(packet.name, packet.data, packet.arguments, m.attachments)
	return c, err
}

// request decodes a request of redis-emitter about the clients of a namespace, such as socketsJoin. Those of the adapters,
// which want responses, are ignored.
func request(namespace string, payload []byte) (Command, error) {
	var kind, opts, change, closing value
	err := object(payload, func(key []byte, v value) {
		switch string(key) {
		case "type":
			kind = v
		case "opts":
			opts = v
		case "rooms":
			change = v
		case "close":
			closing = v
		}
	})
	if err != nil {
		return Command{}, err
	}
	c := Command{Namespace: namespace, CloseConnection: closing.isTrue()}
	switch string(kind.raw) {
	case remoteJoin:
		c.Method = Join
	case remoteLeave:
		c.Method = Leave
	case remoteDisconnect:
		c.Method = Disconnect
	default:
		return Command{}, nil
	}
	// An adapter asks with a request ID and without options, and waits for a response.
	if opts.isNull() {
		return Command{}, nil
	}
	if err := c.selectClients(opts); err != nil {
		return Command{}, fmt.Errorf("opts: %w", err)
	}
	if c.Method == Disconnect {
		return c, nil
	}
	if c.Change, err = names("the rooms to "+c.Method.String(), change); err == nil && len(c.Change) == 0 {
		return Command{}, nil
	}
	return c, err
}

// selectClients sets which clients a request is about.
func (c *Command) selectClients(opts value) error {
	var rooms, except value
	err := object(opts.raw, func(key []byte, v value) {
		switch string(key) {
		case "rooms":
			rooms = v
		case "except":
			except = v
		}
	})
	if err != nil {
		return err
	}
	// An empty array selects all, so a missing one must not: a mistake would disconnect everybody.
	if !rooms.isArray() {
		return errors.New("rooms is not an array")
	}
	if c.Rooms, err = names("rooms", rooms); err == nil {
		c.Except, err = names("except", except)
	}
	return err
}

// packet is a packet of Socket.IO, with JSON for the values.
type packet struct {
	kind, namespace, name value
	data                  []byte // the arguments, with commas between them; nil if there is no data
	arguments             int
	hasID                 bool
}

// emitterMessage reads the array of three. More elements are ignored, as the reference ignores them. The flags among the
// options (volatile, compress, local) are for servers that have a choice.
func (m *msgpackReader) emitterMessage() (p packet, rooms, except value, err error) {
	fail := func(err error) (packet, value, value, error) { return packet{}, value{}, value{}, err }
	n, err := m.header(kindArray, "the message")
	if err != nil {
		return fail(err)
	}
	if n < 3 {
		return fail(errors.New("the message is not an array of uid, packet and options"))
	}
	if _, err := m.transcode(nil, maxDepth); err != nil { // the uid
		return fail(err)
	}
	if p, err = m.packet(); err != nil {
		return fail(fmt.Errorf("packet: %w", err))
	}
	err = m.mapOf("options", func(key []byte) error {
		v, err := m.value()
		switch string(key) {
		case "rooms":
			rooms = v
		case "except":
			except = v
		}
		return err
	})
	if err != nil {
		return fail(fmt.Errorf("options: %w", err))
	}
	return p, rooms, except, nil
}

func (m *msgpackReader) packet() (p packet, err error) {
	err = m.mapOf("packet", func(key []byte) (err error) {
		switch string(key) {
		case "data":
			if err := m.eventData(&p); err != nil {
				return fmt.Errorf("data: %w", err)
			}
			return nil
		case "type":
			p.kind, err = m.value()
		case "nsp":
			p.namespace, err = m.value()
		case "id":
			p.hasID = true
			_, err = m.value()
		default:
			_, err = m.value()
		}
		return err
	})
	return p, err
}

// eventData reads the array of the event's name and the arguments, and appends these as JSON. This is the only place where
// binary data is accepted: it becomes attachments, in the order in which the reference finds them.
func (m *msgpackReader) eventData(p *packet) error {
	n, err := m.header(kindArray, "it")
	if err != nil {
		return err
	}
	if n == 0 {
		return errors.New("an empty array, without the event's name")
	}
	if p.name, err = m.value(); err != nil {
		return err
	}
	// If the key comes twice, the last one counts.
	m.attachments, m.attached = nil, 0
	m.wantsAttachments = true
	p.data, p.arguments = []byte{}, n-1
	for i := range n - 1 {
		if i > 0 {
			p.data = append(p.data, ',')
		}
		if p.data, err = m.transcode(p.data, maxDepth-1); err != nil {
			return err
		}
	}
	m.wantsAttachments = false
	return nil
}

// value reads a value other than the data. It has no attachments.
func (m *msgpackReader) value() (value, error) {
	raw, err := m.transcode(nil, maxDepth)
	if err != nil {
		return value{}, err
	}
	r := jsonReader{p: raw}
	return r.value(maxDepth)
}

// appendPlaceholder appends the placeholder of an attachment.
func appendPlaceholder(dst []byte, i int) []byte {
	dst = append(dst, `{"_placeholder":true,"num":`...)
	return append(strconv.AppendInt(dst, int64(i), 10), '}')
}
