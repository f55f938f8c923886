package packet

import (
	"bytes"
	"encoding/json"
	"errors"
	"strconv"
	"unicode/utf8"

	"github.com/caddy-broadcast/caddy-broadcast/internal/frame"
	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
)

// Packet is a Socket.IO packet that a client sent.
type Packet struct {
	Type        Type
	Attachments int    // how many binary packets come after it
	Namespace   string // as it was sent, so one that names none is MainNamespace
	ID          []byte // the digits of the ID that the ack has to have, nil if the client wants no ack
	Name        string // of the event

	// Payload is the JSON of the packet, the object of a Connect or an array, without the white space around it. It is nil if
	// the packet has none. It is a part of what was parsed.
	Payload []byte

	// Rejected is why an event cannot be published, though it is a valid packet. The client is not closed: pages that cut
	// strings in the middle of a character send such events. The ack is an error.
	Rejected error

	list list // of Payload
}

// errHalf is about strings that cannot be encoded in UTF-8.
var errHalf = errors.New("the event has half of a surrogate pair in a string")

// Parse parses the data of a message that an Engine.IO client sent as text. An error closes the client, as the protocol
// has no answer to a packet that is not valid. What depends on the session is not checked: whether the client is in the
// namespace, and whether attachments of the packet before are missing.
func Parse(data []byte) (p Packet, err *frame.CloseError) {
	if len(data) == 0 {
		return p, invalid("empty packet")
	}
	if !utf8.Valid(data) { // transports have checked it, so this is for callers that have none
		return p, &frame.CloseError{Code: frame.InvalidData, Text: "the packet is not UTF-8"}
	}
	p.Type = Type(data[0])
	data = data[1:]
	var ok bool
	if p.Type == BinaryEvent || p.Type == BinaryAck {
		if data, ok = p.cutAttachments(data); !ok {
			return p, invalid("invalid number of attachments")
		}
	}
	if data, ok = p.cutNamespace(data); !ok {
		return p, invalid("invalid namespace")
	}
	if data, ok = p.cutID(data); !ok {
		return p, invalid("invalid ack ID")
	}
	if len(data) > 0 {
		p.Payload = bytes.TrimRight(data, " \n\r\t")
	}
	err = p.check() // first, as it changes p
	return p, err
}

// cutAttachments cuts the number of attachments. Zero is not valid: the npm package's decoder would wait for one.
func (p *Packet) cutAttachments(data []byte) (rest []byte, ok bool) {
	i := bytes.IndexByte(data[:min(len(data), len("10-"))], '-')
	if i < 1 {
		return nil, false
	}
	for _, c := range data[:i] {
		if !isDigit(c) {
			return nil, false
		}
		p.Attachments = 10*p.Attachments + int(c-'0')
	}
	return data[i+1:], p.Attachments >= 1 && p.Attachments <= MaxAttachments
}

// cutNamespace cuts the namespace, if there is one. It ends at the first comma, or where the packet ends.
func (p *Packet) cutNamespace(data []byte) (rest []byte, ok bool) {
	p.Namespace = MainNamespace
	if len(data) == 0 || data[0] != '/' {
		return data, true
	}
	name, rest, _ := bytes.Cut(data, []byte{','})
	if string(name) == MainNamespace { // no encoder writes it, but it is legal
		return rest, true
	}
	if len(name) > MaxNamespace {
		return nil, false
	}
	p.Namespace = string(name)
	return rest, hub.CheckName("the namespace", p.Namespace) == nil
}

// cutID cuts the ack ID, if there is one.
func (p *Packet) cutID(data []byte) (rest []byte, ok bool) {
	i := 0
	for i < len(data) && isDigit(data[i]) {
		i++
	}
	if i > 0 {
		p.ID = data[:i]
	}
	return data[i:], i <= maxAckID
}

// check checks what follows the header, by type.
func (p *Packet) check() *frame.CloseError {
	switch p.Type {
	case Connect:
		if p.ID != nil || p.Payload != nil && !isObject(p.Payload) {
			return invalid("invalid CONNECT")
		}
	case Disconnect:
		if p.ID != nil || p.Payload != nil {
			return invalid("invalid DISCONNECT")
		}
	case Event, BinaryEvent:
		return p.checkEvent()
	case Ack, BinaryAck:
		if p.ID == nil || !p.readList() {
			return invalid("invalid ACK")
		}
	default: // only servers send ConnectError
		return invalid("unknown packet type")
	}
	return nil
}

// readList reads the array. JSON may begin with white space, but a packet may not have it after the header: the npm package
// would take it for the ID 0.
func (p *Packet) readList() bool {
	return len(p.Payload) > 0 && p.Payload[0] == '[' && p.list.read(p.Payload, p.Attachments)
}

// checkEvent checks an event, whose name is the first element: a string, or a number, which has the listeners of its text.
func (p *Packet) checkEvent() *frame.CloseError {
	if !p.readList() || p.list.count == 0 {
		return invalid("invalid EVENT")
	}
	switch first := p.list.of(p.list.first); {
	case first[0] == '"':
		p.Name = unquote(first)
	case first[0] == '-' || isDigit(first[0]):
		p.Name = numberText(first)
	default:
		return invalid("invalid EVENT")
	}
	if Reserved(p.Name) {
		return invalid("reserved event name")
	}
	p.Rejected = hub.CheckName("the event", p.Name)
	if p.list.half {
		p.Rejected = errHalf
	}
	return nil
}

// numberText returns the text of a number as JavaScript has it, which encoding/json agrees with except for the sign of
// zero. It returns "" for one that is too large for it.
func numberText(number []byte) string {
	f, err := strconv.ParseFloat(string(number), 64)
	if err != nil {
		return ""
	}
	text, _ := json.Marshal(f + 0) // adding zero makes -0 to 0
	return string(text)
}

// isObject reports whether p is an object, and nothing else.
func isObject(p []byte) bool {
	r := reader{p: p}
	return len(p) > 0 && p[0] == '{' && r.value(maxDepth) && r.i == len(p)
}

// Credentials returns what a client that wants to recover its session has put in the payload of its Connect: the secret ID of the
// session, and the offset of the last event that it has got. What is not a string counts as missing.
func (p *Packet) Credentials() (pid, offset string) {
	if p.Type != Connect || p.Payload == nil {
		return "", ""
	}
	// The last of members of one name counts, as in JavaScript. encoding/json would also take "PID".
	members(p.Payload, func(key, value []byte) {
		text := ""
		if value[0] == '"' && len(value) <= maxCredential {
			text = unquote(value)
		}
		switch {
		case is(key, "pid"):
			pid = text
		case is(key, "offset"):
			offset = text
		}
	})
	return pid, offset
}

// maxCredential is the length in bytes of the longest string that can be a pid or an offset of ours.
const maxCredential = 512
