package hostile_test

import (
	"fmt"
	"strings"
)

// packets is what a Socket.IO client sends, over either transport.
type packets struct {
	name string
	send []string // Engine.IO packets; one that begins with "b" is a binary one

	// want is how an answer begins, after which the session lives. "" is that it is closed.
	want string

	early bool // the client has not connected to the main namespace
	code  int  // the close code, if it is not 1002; polling has none
}

// frameOf makes a frame of a packet.
func frameOf(packet string) string {
	if data, ok := strings.CutPrefix(packet, "b"); ok {
		return mask(0x82, data)
	}
	return mask(0x81, packet)
}

const (
	placeholder = `{"_placeholder":true,"num":0}`
	connected   = `40/chat,{"sid":"` // the answer to one that asks whether the session lives
	asks        = "40/chat,"
)

// sessions are the rows of the contract (socketio.md, section 7) that are packets.
func sessions() []packets {
	closed := func(name string, send ...string) packets { return packets{name: name, send: send} }
	early := func(name string, send ...string) packets { return packets{name: name, send: send, early: true} }
	lives := func(name, want string, send ...string) packets { return packets{name: name, send: send, want: want} }
	ignored := func(name string, send ...string) packets { return lives(name, connected, append(send, asks)...) }
	invalid, tooBig := `431[{"error":{"code":"invalid"`, `431[{"error":{"code":"too_big"`
	all := []packets{
		early("an empty packet", ""), early("an open packet", `0{"sid":"x"}`), early("a ping", "2"), early("a probe without an upgrade", "2probe"),
		early("type 7", "7"), early("type 9", "9"), early("a type that is no digit", "x"), early("an empty message", "4"),
		early("an event before CONNECT", `42["x"]`), early("an ack before CONNECT", `431["x"]`), early("a DISCONNECT before CONNECT", "41"),
		early("an attachment before CONNECT", "bdata"), early("attachments before CONNECT", "451-[\"x\","+placeholder+"]", "bdata"),
		early("a CONNECT with an array", "40[]"), early("a CONNECT with a string", `40"x"`), early("a CONNECT with an ID", "401{}"),
		early("a CONNECT with more", "40{}x"), early("a CONNECT that is cut off", `40{"pid":`), early("a deep CONNECT", "40"+strings.Repeat(`{"a":`, 300)+"1"+strings.Repeat("}", 300)),
		early("a long namespace", "40/"+strings.Repeat("x", 300)+","), early("a namespace with a control character", "40/\x01,"),
		closed("a second CONNECT", "40"), closed("an event in a namespace that it is not in", `42/chat,["x"]`),
		closed("a DISCONNECT of one that it is not in", "41/chat,"), closed("a DISCONNECT with a payload", "41{}"), closed("two DISCONNECTs", "41", "41"),
		closed("an event after DISCONNECT", "41", `42["x"]`),
		closed("CONNECT_ERROR", `44{"message":"x"}`), closed("packet type 7", "47"), closed("a packet that is no digit", "4x"),
		closed("no payload", "42"), closed("an empty array", "42[]"), closed("an object", "42{}"), closed("an event null", "42[null]"),
		closed("an event true", "42[true]"), closed("an event of an array", "42[[]]"), closed("garbage after the event", `42["x"]x`), closed("half an event", `42["x"`),
		closed("NaN", `42["x",NaN]`), closed("a comma too many", `42["x",]`), closed("single quotes", `42['x']`), closed("a control character in JSON", "42[\"x\x01\"]"),
		closed("an ack ID of 16 digits", `421234567890123456["x"]`), closed("a negative ack ID", `42-1["x"]`),
		closed("too deep", `42["x",`+strings.Repeat("[", 300)+strings.Repeat("]", 300)+"]"), closed("deep without an end", `42["x",`+strings.Repeat("[", 50_000)),
		closed("an ack without an ID", `43["x"]`), closed("an ack that is no array", `431{}`),
		closed("no attachments", `450-["x"]`), closed("11 attachments", `4511-["x"]`), closed("100 attachments", `45100-["x"]`), closed("no count", `45["x"]`),
		closed("a negative count", `45--1-["x"]`), closed("text instead of an attachment", "451-[\"x\","+placeholder+"]", `42["x"]`),
		closed("an attachment unasked", "bdata"), closed("an attachment too many", "451-[\"join\","+placeholder+"]", "bdata", "bdata"),
		closed("a placeholder out of range", `451-["x",{"_placeholder":true,"num":1}]`), closed("a negative placeholder", `451-["x",{"_placeholder":true,"num":-1}]`),
		closed("a placeholder of a fraction", `451-["x",{"_placeholder":true,"num":0.5}]`), closed("a placeholder without a number", `451-["x",{"_placeholder":true}]`),
		closed("attachments that nothing refers to", `451-["x"]`), closed("one of two that nothing refers to", `452-["x",`+placeholder+"]"),
		{name: "attachments over max_message", send: []string{"452-[\"x\"," + placeholder + `,{"_placeholder":true,"num":1}]`,
			"b" + strings.Repeat("x", maxMessage/2), "b" + strings.Repeat("x", maxMessage)}, code: 1009},
		{name: "namespaces without end", send: strings.Split(strings.TrimSuffix(strings.Repeat("40/none, ", 30), " "), " "), code: 1008},

		ignored("an upgrade unasked", "5"), ignored("a noop", "6"), ignored("a pong unasked", "3"), ignored("an ack that nobody has asked for", `431["x"]`),
		ignored("a binary ack that nobody has asked for", "461-1["+placeholder+"]", "bdata"),
		ignored("an unknown pid", `41`, `40{"pid":"x","offset":"y"}`), ignored("a pid that is no string", "41", `40{"pid":{},"offset":5}`),
		lives("a namespace that does not exist", `44/none,{"message":"Invalid namespace"}`, "40/none,"),
		lives("a namespace with a query", `44/custom?x=1,{"message":"Invalid namespace"}`, "40/custom?x=1,"),
		lives("an event name that is too long", invalid, `421["`+strings.Repeat("x", 300)+`"]`), lives("an empty event name", invalid, `421[""]`),
		lives("a control character in the name", invalid, `421["\u0001"]`), lives("half a pair of surrogates", invalid, `421["x","\ud800"]`),
		lives("an event that is too big", tooBig, `421["x","`+strings.Repeat("x", maxMessage+1)+`"]`),
		ignored("an event that is too big, without an ack", `42["x","`+strings.Repeat("x", maxMessage+1)+`"]`),
		lives("a room that it may not join", `431[{"error":{"code":"forbidden"`, `421["join","private"]`),
		lives("a room of another namespace", invalid, `421["join","/chat"]`), lives("a room without a name", invalid, `421["join",""]`),
		lives("a room that is an object", invalid, `421["join",{"room":{}}]`), lives("a join without a room", invalid, `421["join"]`),
		lives("more than 1000 rooms", `431[{"error":{"code":"limit"`, `421["join",[`+strings.TrimSuffix(strings.Repeat("1,", 1001), ",")+"]]"),
		lives("a room too many", `432[{"error":{"code":"limit"`, "421"+joinOf(0, 999), "422"+joinOf(999, 1001)),
	}
	for _, name := range []string{"connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"} {
		all = append(all, closed("the event "+name, fmt.Sprintf("42[%q]", name)))
	}
	return all
}

// joinOf makes the payload of an event that joins rooms.
func joinOf(from, to int) string {
	var rooms []string
	for i := from; i < to; i++ {
		rooms = append(rooms, fmt.Sprintf(`"room:%d"`, i))
	}
	return `["join",[` + strings.Join(rooms, ",") + "]]"
}

// Answers of Engine.IO.
const (
	unknownTransport = `400 {"code":0,"message":"Transport unknown"}`
	unknownSession   = `400 {"code":1,"message":"Session ID unknown"}`
	badMethod        = `400 {"code":2,"message":"Bad handshake method"}`
	badRequest       = `400 {"code":3,"message":"Bad request"}`
	forbidden        = `403 {"code":4,"message":"Forbidden"}`
	badVersion       = `400 {"code":5,"message":"Unsupported protocol version"}`
)

// request is one of a client that polls. SID stands for its session.
type request struct {
	name, method, query, body string
	header                    string // one
	want                      string // the status, and how the body begins
	lives                     bool   // the session
}

// requests are the rows of the contract (socketio.md, sections 1.1 and 7) that are requests.
func requests() []request {
	const poll, own = "EIO=4&transport=polling", "EIO=4&transport=polling&sid=SID"
	all := []request{
		{name: "no transport", query: "EIO=4", want: unknownTransport, lives: true},
		{name: "a transport that is none", query: "EIO=4&transport=flash", want: unknownTransport, lives: true},
		{name: "a session that is none", query: poll + "&sid=none", want: unknownSession, lives: true},
		{name: "a long session", query: poll + "&sid=" + strings.Repeat("x", 4000), want: unknownSession, lives: true},
		{name: "a POST to a session that is none", method: "POST", query: poll + "&sid=none", body: "40", want: unknownSession, lives: true},
		{name: "websocket without an upgrade", query: "EIO=4&transport=websocket", want: badRequest, lives: true},
		{name: "websocket with a session, without an upgrade", query: "EIO=4&transport=websocket&sid=SID", want: badRequest, lives: true},
		{name: "a POST without a session", method: "POST", query: poll, body: "40", want: badMethod, lives: true},
		{name: "version 3", query: "EIO=3&transport=polling", want: badVersion, lives: true},
		{name: "no version", query: "transport=polling", want: badVersion, lives: true},
		{name: "a foreign origin", query: poll, header: "Origin: https://evil.example", want: forbidden, lives: true},
		{name: "a POST of a foreign origin", method: "POST", query: own, body: "40", header: "Origin: https://evil.example", want: forbidden, lives: true},
		{name: "PUT", method: "PUT", query: own, body: "40", want: badRequest, lives: true},
		{name: "DELETE", method: "DELETE", query: own, want: badRequest, lives: true},
		{name: "HEAD", method: "HEAD", query: own, want: "400 ", lives: true},
		{name: "binary data", method: "POST", query: own, body: "40", header: "Content-Type: application/octet-stream", want: badRequest},
		{name: "over maxPayload", method: "POST", query: own, body: strings.Repeat("x", 3*maxMessage), want: "413 "},
	}
	for name, body := range map[string]string{
		"an empty body": "", "a separator": "\x1e", "a separator at the end": "3\x1e", "two separators": "3\x1e\x1e3", "bad base64": "b!!!!", "base64 without padding": "bAA",
		"base64 in lines": "bAA\r\n==", "not UTF-8": "4\xff", "half a character": "42[\"\xe2\x82\"]", "a type that is none": "x",
	} {
		all = append(all, request{name: name, method: "POST", query: own, body: body, want: badRequest})
	}
	return all
}
