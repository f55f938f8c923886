package frame

import "strconv"

// Opcode is the type of a frame (RFC 6455, section 5.2).
type Opcode uint8

// The opcodes. The others are reserved.
const (
	Continuation Opcode = 0
	Text         Opcode = 1
	Binary       Opcode = 2
	Close        Opcode = 8
	Ping         Opcode = 9
	Pong         Opcode = 10
)

// isControl reports whether frames of this type may come between the frames of a message (RFC 6455, section 5.5).
func (o Opcode) isControl() bool { return o >= Close }

// Code is a close code (RFC 6455, section 7.4.1, and IANA's WebSocket Close Code Number Registry).
type Code uint16

// The close codes that a server sends or reads.
const (
	NormalClosure   Code = 1000
	GoingAway       Code = 1001
	ProtocolError   Code = 1002
	UnsupportedData Code = 1003
	NoStatus        Code = 1005 // never sent: it stands for a close frame without a code
	InvalidData     Code = 1007
	PolicyViolation Code = 1008
	MessageTooBig   Code = 1009
	ServiceRestart  Code = 1012
	TryAgainLater   Code = 1013

	// Codes from 4000 to 4999 are for private use (RFC 6455, section 7.4.2). After these hundred our clients stay away.
	StayAway      Code = 4400
	AccessExpired Code = 4401 // as HTTP's 401
	lastStayAway  Code = 4499
)

// The codes that have a meaning but must not be in a frame, and the end of the registered ones.
const (
	reserved       Code = 1004
	abnormal       Code = 1006
	lastRegistered Code = 1014
)

// validFromClient reports whether a client may send the code. Codes from 3000 on are for frameworks and applications. Those
// in between are not registered yet, and strict test suites (Autobahn, 7.9) want them rejected.
func (c Code) validFromClient() bool {
	switch {
	case c == reserved || c == NoStatus || c == abnormal:
		return false
	case c >= NormalClosure && c <= lastRegistered:
		return true
	}
	return c >= 3000 && c <= 4999
}

// StaysAway reports whether a client does not connect again on its own after it was closed with the code.
func (c Code) StaysAway() bool { return c >= StayAway && c <= lastStayAway }

// CloseError is why a client is closed. It is an error so that what reads for a client can return it through all layers.
type CloseError struct {
	Code Code
	Text string // is sent to the client
}

func (e *CloseError) Error() string { return strconv.Itoa(int(e.Code)) + " " + e.Text }
