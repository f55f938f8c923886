package packet

import (
	"strconv"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/protocol"
)

// The functions of this file append packets without a frame around them: for a WebSocket, see frame.TextFrame.

// Handshake is what a session begins with.
type Handshake struct {
	SID          string // of the Engine.IO session: a secret
	Upgrade      bool   // whether the client may upgrade to a WebSocket
	PingInterval time.Duration
	PingTimeout  time.Duration
	MaxPayload   int // the length in bytes of the longest body that the client may POST
}

// Append appends the open packet. The official tests want these five keys exactly.
func (h Handshake) Append(dst []byte) []byte {
	dst = append(append(dst, byte(EngineOpen)), `{"sid":`...)
	dst = protocol.AppendString(dst, h.SID)
	if h.Upgrade {
		dst = append(dst, `,"upgrades":["websocket"]`...)
	} else {
		dst = append(dst, `,"upgrades":[]`...)
	}
	dst = strconv.AppendInt(append(dst, `,"pingInterval":`...), h.PingInterval.Milliseconds(), 10)
	dst = strconv.AppendInt(append(dst, `,"pingTimeout":`...), h.PingTimeout.Milliseconds(), 10)
	dst = strconv.AppendInt(append(dst, `,"maxPayload":`...), int64(h.MaxPayload), 10)
	return append(dst, '}')
}

// header appends what each Socket.IO packet of a server begins with.
func header(dst []byte, t Type, namespace string) []byte {
	return appendNamespace(append(dst, byte(EngineMessage), byte(t)), namespace)
}

// AppendConnected appends the answer to a Connect. The sid is public, and is not that of the Engine.IO session. The pid is
// empty if the session cannot be recovered: the official tests want the key sid alone.
func AppendConnected(dst []byte, namespace, sid, pid string) []byte {
	dst = protocol.AppendString(append(header(dst, Connect, namespace), `{"sid":`...), sid)
	if pid != "" {
		dst = protocol.AppendString(append(dst, `,"pid":`...), pid)
	}
	return append(dst, '}')
}

// InvalidNamespace is the message for a namespace that does not exist. The official tests want it to the letter.
const InvalidNamespace = "Invalid namespace"

// AppendConnectError appends the answer to a Connect that is refused. Without a code it has no data.
func AppendConnectError(dst []byte, namespace, message, code string) []byte {
	dst = protocol.AppendString(append(header(dst, ConnectError, namespace), `{"message":`...), message)
	if code != "" {
		dst = append(protocol.AppendString(append(dst, `,"data":{"code":`...), code), '}')
	}
	return append(dst, '}')
}

// AppendDisconnect appends a packet that takes the client out of a namespace. It does not come back by itself.
func AppendDisconnect(dst []byte, namespace string) []byte { return header(dst, Disconnect, namespace) }

// StaysAway reports whether a client that is closed for a reason has to stay away until its page connects again. It gets a Disconnect
// of each namespace first. After all others it connects again, as it does whenever its transport ends, whatever the close code is.
func StaysAway(why hub.Reason) bool { return ForGood(why) || why == hub.ReasonExpired }

// ForGood reports whether its session is over then. One whose access has expired goes on with it when the page has new access.
func ForGood(why hub.Reason) bool { return why == hub.ReasonPolicy }

// AppendAck appends the ack of an event that was published. Its only argument is an object with the message's ID, so that a
// page's callback can tell it from an error.
func AppendAck(dst []byte, namespace string, id []byte, messageID string) []byte {
	dst = append(append(header(dst, Ack, namespace), id...), `[{"id":`...)
	return append(protocol.AppendString(dst, messageID), "}]"...)
}

// AppendAckError appends the ack of an event that was rejected, with a code and a message as broadcast.v1 has them. It must
// not be left out: with the option retries a page repeats an event until it gets the ack, and holds back those after it.
func AppendAckError(dst []byte, namespace string, id []byte, code, message string) []byte {
	dst = append(append(header(dst, Ack, namespace), id...), `[{"error":{"code":`...)
	dst = append(protocol.AppendString(dst, code), `,"message":`...)
	return append(protocol.AppendString(dst, message), "}}]"...)
}

// Refusal is the answer to a request that does not get or reach a session. Its body is JSON.
type Refusal struct {
	Status  int // of the HTTP response
	Code    int // of Engine.IO, to which each message belongs
	Message string
}

// The refusals, with the codes and messages that clients know. See
// https://github.com/socketio/socket.io/blob/main/packages/engine.io/lib/server.ts.
var (
	UnknownTransport   = Refusal{400, 0, "Transport unknown"}
	UnknownSession     = Refusal{400, 1, "Session ID unknown"}
	BadHandshakeMethod = Refusal{400, 2, "Bad handshake method"}
	BadRequest         = Refusal{400, 3, "Bad request"}
	Unauthorized       = Refusal{401, 4, "Forbidden"} // the reference has one code for all that an application refuses
	Forbidden          = Refusal{403, 4, "Forbidden"}
	UnsupportedVersion = Refusal{400, 5, "Unsupported protocol version"}
)

// Body returns the body of the response.
func (r Refusal) Body() []byte {
	dst := strconv.AppendInt([]byte(`{"code":`), int64(r.Code), 10)
	return append(protocol.AppendString(append(dst, `,"message":`...), r.Message), '}')
}
