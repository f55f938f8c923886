// Package packet reads and writes the packets of Engine.IO v4 and Socket.IO v5. It has no state and no connections.
//
// Both are text. An Engine.IO packet is a digit, its type, and data. A WebSocket frame is one packet; the body of a POST, or
// of the answer to a GET, is a payload of several. A Socket.IO packet is the data of an Engine.IO packet of the type
// message. Its attachments are the binary Engine.IO packets that come after it.
//
// What clients send is checked completely before any of it is used. A page that gets a packet which the npm package cannot
// parse closes its connection. So one bad packet, relayed, would disconnect every page on the channel.
//
// The protocols: https://github.com/socketio/engine.io-protocol and https://github.com/socketio/socket.io-protocol.
// "The npm package" is socket.io-parser or engine.io-parser. The tests compare this package with both.
package packet

import (
	"strings"

	"github.com/caddy-broadcast/caddy-broadcast/internal/frame"
)

// Type is the type of a Socket.IO packet.
type Type byte

// The types of Socket.IO packets.
const (
	Connect      Type = '0'
	Disconnect   Type = '1'
	Event        Type = '2'
	Ack          Type = '3'
	ConnectError Type = '4'
	BinaryEvent  Type = '5'
	BinaryAck    Type = '6'
)

const (
	// MaxAttachments is how many attachments a packet may have. The npm package's decoder accepts no more, in servers and
	// in pages.
	MaxAttachments = 10

	// MaxNamespace is the length in bytes of the longest namespace.
	MaxNamespace = 255

	// MainNamespace is the namespace of packets that name none.
	MainNamespace = "/"

	// maxDepth is how deep arrays and objects may be nested in a packet. It bounds the recursion here and in the npm
	// package, which puts attachments in their places recursively. The hub accepts less of what is published.
	maxDepth = 256

	// maxAckID is the length of the longest ack ID: integers of 15 digits are exact in JavaScript.
	maxAckID = 15
)

// Reserved reports whether no event may have the name. The npm package's decoder throws when it gets such an event, in servers
// and in pages, so none may be sent either.
func Reserved(name string) bool {
	switch name {
	case "connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener":
		return true
	}
	return false
}

// Namespace returns the namespace whose clients a channel belongs to. A channel whose name begins with a slash is a namespace,
// or the namespace, a comma and a room. The others are rooms of the main namespace, or the channel of all of it.
func Namespace(channel string) string {
	if channel == "" || channel[0] != '/' {
		return MainNamespace
	}
	if i := strings.IndexByte(channel, ','); i >= 0 {
		return channel[:i]
	}
	return channel
}

// Room returns the channel of a room. It reports false for a room without a name, and for one of the main namespace whose name
// begins with a slash: its channel would be in another namespace.
func Room(namespace, room string) (channel string, ok bool) {
	if namespace == "" || namespace == MainNamespace {
		return room, room != "" && room[0] != '/'
	}
	return namespace + "," + room, room != ""
}

// invalid returns the error that closes a client for a packet that the protocol does not allow. Polling has no close codes: there
// the request is answered with BadRequest.
func invalid(text string) *frame.CloseError {
	return &frame.CloseError{Code: frame.ProtocolError, Text: text}
}
