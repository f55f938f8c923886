package queue

import (
	"encoding/base64"
	"strings"
	"testing"
)

// outcome is a payload and what it is decoded to, as show writes it. An error only has to contain what follows "error: ".
type outcome struct{ name, payload, want string }

func checkOutcomes(t *testing.T, channel string, outcomes []outcome) {
	t.Helper()
	for _, o := range outcomes {
		t.Run(o.name, func(t *testing.T) {
			got := show(testDecoder.Decode(channel, []byte(o.payload)))
			failure, fails := strings.CutPrefix(o.want, "error: ")
			if fails && !(strings.HasPrefix(got, "error: ") && strings.Contains(got, failure)) || !fails && got != o.want {
				t.Errorf("got  %s\nwant %s", got, o.want)
			}
			checkEvent(t, []byte(o.payload), channel)
		})
	}
}

// emitJSON is a message as python-socketio 5.14 and later write it (json.dumps), up to the data and behind it.
func emitJSON(event, data, rest string) string {
	return `{"method": "emit", "event": ` + event + `, "data": ` + data + rest +
		`, "namespace": "/chat", "room": "room:7", "skip_sid": null, "callback": null, "host_id": "c6757b0123456789abcdef0123456789"}`
}

// TestJSONForms: the forms of python-socketio 5.14.0 to 5.16, from the contract.
func TestJSONForms(t *testing.T) {
	const plain, binary = `, "binary": false`, `, "binary": true`
	placeholder := func(n string) string { return `{"_placeholder": true, "num": ` + n + `}` }
	checkOutcomes(t, "socketio", []outcome{
		// 5.14.0 and 5.14.1
		{"old dict", emitJSON(`"update"`, `{"price": 3}`, ""), `emit /chat rooms=room:7 update 1 ["update",{"price": 3}]`},
		{"old list is one", emitJSON(`"update"`, `[1, 2]`, ""), `emit /chat rooms=room:7 update 1 ["update",[1, 2]]`},
		{"old list of null", emitJSON(`"update"`, `[null]`, ""), `emit /chat rooms=room:7 update 1 ["update",[null]]`},
		{"old null", emitJSON(`"update"`, `null`, ""), `emit /chat rooms=room:7 update 0 ["update"]`},
		{"old string", emitJSON(`"update"`, `"\u20ac \ud83d\ude00"`, ""), `emit /chat rooms=room:7 update 1 ["update","\u20ac \ud83d\ude00"]`},
		// 5.14.2 to 5.15.0
		{"middle dict", emitJSON(`"update"`, `{"price": 3}`, plain), `emit /chat rooms=room:7 update 1 ["update",{"price": 3}]`},
		{"middle null", emitJSON(`"update"`, `null`, plain), `emit /chat rooms=room:7 update 0 ["update"]`},
		{"middle binary", emitJSON(`"f"`, `[{"a": `+placeholder("0")+`, "b": `+placeholder("1")+`}, "AP8=", ""]`, binary),
			`emit /chat rooms=room:7 f 1 ["f",{"a": {"_placeholder": true, "num": 0}, "b": {"_placeholder": true, "num": 1}}] "\x00\xff" ""`},
		{"middle binary alone", emitJSON(`"f"`, `[`+placeholder("0")+`, "YWJj"]`, binary),
			`emit /chat rooms=room:7 f 1 ["f",{"_placeholder": true, "num": 0}] "abc"`},
		// 5.15.1 and later
		{"new dict", emitJSON(`"update"`, `[{"price": 3}]`, plain), `emit /chat rooms=room:7 update 1 ["update",{"price": 3}]`},
		{"new several", emitJSON(`"update"`, `[ 1, "two", [3] ]`, plain), `emit /chat rooms=room:7 update 3 ["update",1, "two", [3]]`},
		{"new list is one", emitJSON(`"update"`, `[[1, 2]]`, plain), `emit /chat rooms=room:7 update 1 ["update",[1, 2]]`},
		{"new none", emitJSON(`"update"`, `[null]`, plain), `emit /chat rooms=room:7 update 0 ["update"]`},
		{"new empty", emitJSON(`"update"`, `[]`, plain), `emit /chat rooms=room:7 update 0 ["update"]`},
		{"new two nulls", emitJSON(`"update"`, `[null, null]`, plain), `emit /chat rooms=room:7 update 2 ["update",null, null]`},
		{"new binary", emitJSON(`"f"`, `[[`+placeholder("0")+`, 1], "AP8="]`, binary),
			`emit /chat rooms=room:7 f 2 ["f",{"_placeholder": true, "num": 0}, 1] "\x00\xff"`},
		{"placeholder without attachments", emitJSON(`"f"`, `[`+placeholder("7")+`]`, plain),
			`emit /chat rooms=room:7 f 1 ["f",{"_placeholder": true, "num": 7}]`},
		// The other fields
		{"shortest", `{"method":"emit","event":"x"}`, `emit / x 0 ["x"]`},
		{"white space", " \t\r\n{ \"method\" : \"emit\" , \"event\" : \"x\" } \n", `emit / x 0 ["x"]`},
		{"escapes", `{"m\u0065thod":"\u0065mit","event":"\u0078","data":1}`, `emit / x 1 ["\u0078",1]`},
		{"rooms", `{"method":"emit","event":"x","room":["a",5,"c"],"skip_sid":["s"]}`, `emit / rooms=a|5|c except=s x 0 ["x"]`},
		{"skip nobody", `{"method":"emit","event":"x","skip_sid":""}`, `emit / x 0 ["x"]`},
		{"skip nobody and one", `{"method":"emit","event":"x","skip_sid":[null,"s","a\u0000"]}`, `emit / except=s x 0 ["x"]`},
		{"int room", `{"method":"emit","event":"x","room":5,"skip_sid":"s"}`, `emit / rooms=5 except=s x 0 ["x"]`},
		{"last key counts", `{"method":"callback","method":"emit","event":"x","room":"a","room":"b"}`, `emit / rooms=b x 0 ["x"]`},
		{"number for a name", `{"method":"emit","event":7,"data":1}`, `emit / 7 1 [7,1]`},
		{"callback", `{"method":"emit","event":"x","room":"s","callback":["s","/",1]}`, `emit / rooms=s ack x 0 ["x"]`},
		{"enter_room", `{"method": "enter_room", "sid": "s", "room": "a", "namespace": "/chat", "host_id": "h"}`, `join /chat rooms=s change=a`},
		{"leave_room", `{"method": "leave_room", "sid": "s", "room": 5, "namespace": "/", "host_id": "h"}`, `leave / rooms=s change=5`},
		{"close_room", `{"method": "close_room", "room": "a", "namespace": "/", "host_id": "h"}`, `close_room / rooms=a`},
		{"disconnect", `{"method": "disconnect", "sid": "s", "namespace": "/chat", "host_id": "h"}`, `disconnect /chat rooms=s`},
		{"answer", `{"method": "callback", "host_id": "h", "sid": "s", "namespace": "/", "id": 1, "args": [1]}`, `ignore`},
		{"unknown method", `{"method": "new", "room": {}}`, `ignore`},
	})
}

func jsonOf(rest string) string { return `{"method":"emit","event":"x",` + rest + `}` }

// TestJSONInvalid: what is not JSON, and what some client could not read.
func TestJSONInvalid(t *testing.T) {
	emit := jsonOf
	nested := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	checkOutcomes(t, "socketio", []outcome{
		{"nothing", ``, "error: neither"},
		{"array", `["method"]`, "error: neither"},
		{"text", `hello`, "error: neither"},
		{"behind", `{"method":"emit","event":"x"}{`, "error: not valid JSON"},
		{"NaN", emit(`"data":[NaN]`), `error: "data": NaN or Infinity`},
		{"Infinity", emit(`"data":Infinity`), "error: NaN or Infinity"},
		{"-Infinity", emit(`"data":{"a":-Infinity}`), "error: NaN or Infinity"},
		{"NaN elsewhere", emit(`"host_id":NaN`), "error: NaN or Infinity"},
		{"too large", emit(`"data":1e999`), "error: range of a float64"},
		{"too long", emit(`"data":` + strings.Repeat("9", 400)), "error: range of a float64"},
		{"not UTF-8", emit("\"data\":\"\xff\""), "error: not valid UTF-8"},
		{"half a pair", emit(`"data":"\ud800"`), "error: half of a surrogate pair"},
		{"the other half", emit(`"data":"\udc00\ud800"`), "error: half of a surrogate pair"},
		{"two first halves", emit(`"data":"\ud800\ud800"`), "error: half of a surrogate pair"},
		{"at the limit of depth", emit(`"binary":false,"data":` + nested(maxDepth)), "emit / x 1 [\"x\"," + nested(maxDepth-1) + "]"},
		{"too deep", emit(`"data":` + nested(maxDepth+1)), "error: levels"},
		{"far too deep", emit(`"data":` + nested(100000)), "error: levels"},
		{"too deep elsewhere", emit(`"host_id":` + strings.Repeat(`{"a":`, 1000)), "error: levels"},
		{"escape of another letter", emit(`"data":"\x41"`), "error: not valid JSON"},
		{"escape of no digits", emit(`"data":"\u00g0"`), "error: not valid JSON"},
		{"escape of a sign", emit(`"data":"\u+123"`), "error: not valid JSON"},
		{"half a pair, then text", emit(`"data":"\ud800x"`), "error: half of a surrogate pair"},
		{"half a pair, then no digits", emit(`"data":"\ud800\uzzzz"`), "error: half of a surrogate pair"},
		{"leading zero", emit(`"data":01`), "error: not valid JSON"},
		{"no fraction", emit(`"data":1.`), "error: not valid JSON"},
		{"no exponent", emit(`"data":1e+`), "error: not valid JSON"},
		{"only a sign", emit(`"data":-`), "error: not valid JSON"},
		{"comma at the end", emit(`"data":[1,]`), "error: not valid JSON"},
		{"comma at the end of an object", emit(`"data":{"a":1,}`), "error: not valid JSON"},
		{"no comma", emit(`"data":[1 2]`), "error: not valid JSON"},
		{"no colon", emit(`"data":{"a" 1}`), "error: not valid JSON"},
		{"wrong bracket", emit(`"data":[1}`), "error: not valid JSON"},
		{"control", emit("\"data\":\"\n\""), "error: not valid JSON"},
	})
}

// TestJSONRefused: what would make clients fail, and what would select clients by mistake.
func TestJSONRefused(t *testing.T) {
	emit := jsonOf
	binary := func(data string) string { return emit(`"binary":true,"data":` + data) }
	checkOutcomes(t, "socketio", []outcome{
		{"no method", `{"event":"x"}`, "error: method"},
		{"method of another type", `{"method":1}`, "error: method"},
		{"no event", `{"method":"emit"}`, "error: the event"},
		{"event null", `{"method":"emit","event":null}`, "error: the event"},
		{"event a float", `{"method":"emit","event":1.5}`, "error: the event"},
		{"event empty", `{"method":"emit","event":""}`, "error: the event is empty"},
		{"event long", `{"method":"emit","event":"` + strings.Repeat("x", 256) + `"}`, "error: the event has 256 bytes"},
		{"event of control characters", `{"method":"emit","event":"a\u0000"}`, "error: control character"},
		{"reserved", `{"method":"emit","event":"disconnect"}`, `error: "disconnect" is reserved`},
		{"reserved by escapes", `{"method":"emit","event":"c\u006fnnect"}`, `error: "connect" is reserved`},
		{"empty list of rooms", emit(`"room":[]`), "error: selects nobody"},
		{"empty room", emit(`"room":""`), "error: a room is empty"},
		{"null among rooms", emit(`"room":["a",null]`), "error: a room is empty"},
		{"object as room", emit(`"room":{}`), "error: neither a string nor an integer"},
		{"boolean as room", emit(`"room":true`), "error: neither a string nor an integer"},
		{"float as room", emit(`"room":1.5`), "error: neither a string nor an integer"},
		{"rooms without end", emit(`"room":[` + strings.Repeat("1,", maxRooms) + `1]`), "error: 10001 names"},
		{"room of control characters", emit(`"room":"a\n"`), "error: control character"},
		{"namespace without slash", emit(`"namespace":"chat"`), "error: does not begin with /"},
		{"namespace with a comma", emit(`"namespace":"/a,b"`), "error: comma"},
		{"namespace of control characters", emit(`"namespace":"/a\u0000"`), "error: control character"},
		{"skip_sid an object", emit(`"skip_sid":{}`), "error: skip_sid"},
		{"namespace a number", emit(`"namespace":1`), "error: the namespace"},
		{"enter_room of nobody", `{"method":"enter_room","room":"a"}`, "error: sid"},
		{"enter_room of null", `{"method":"enter_room","room":"a","sid":null}`, "error: sid"},
		{"enter_room of several", `{"method":"enter_room","room":"a","sid":["s"]}`, "error: sid"},
		{"enter_room without room", `{"method":"enter_room","sid":"s"}`, "error: room"},
		{"close_room without room", `{"method":"close_room"}`, "error: room"},
		{"disconnect of nobody", `{"method":"disconnect","namespace":"/"}`, "error: sid"},
		{"disconnect of an empty sid", `{"method":"disconnect","sid":""}`, "error: empty"},
		{"binary not an array", binary(`{"a":1}`), "error: not an array"},
		{"binary empty", binary(`[]`), "error: not an array"},
		{"binary not base64", binary(`[{"_placeholder":true,"num":0},"%"]`), "error: not base64"},
		{"binary not a string", binary(`[{"_placeholder":true,"num":0},5]`), "error: not a string"},
		{"binary wrong number", binary(`[{"_placeholder":true,"num":1},"AA=="]`), "error: does not name"},
		{"binary unnamed", binary(`[{"_placeholder":true,"num":0},"AA==","AA=="]`), "error: no placeholder names attachment 1"},
		{"too many attachments", binary(`[[]` + strings.Repeat(`,"AA=="`, 11) + `]`), "error: 11 attachments"},
	})
}

// TestLimits: the limit is that of the array and the attachments.
func TestLimits(t *testing.T) {
	d := *testDecoder
	d.MaxMessage = 100
	for _, c := range []struct {
		what    string
		payload string
		want    string
	}{
		{"just small enough", `{"method":"emit","event":"x","data":"` + strings.Repeat("y", 92) + `"}`, ""},
		{"too large", `{"method":"emit","event":"x","data":"` + strings.Repeat("y", 94) + `"}`, "100 bytes"},
		{"attachment", `{"method":"emit","event":"x","binary":true,"data":[{"_placeholder":true,"num":0},"` +
			base64.StdEncoding.EncodeToString(make([]byte, 80)) + `"]}`, "100 bytes"},
		{"payload", strings.Repeat(" ", 200+64<<10+1), "65737 bytes, more than 65736"},
	} {
		_, err := d.Decode("socketio", []byte(c.payload))
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.what, err)
		}
	}
}

// TestPickleOff: a pickle is refused with what to do about it if pickles are turned off.
func TestPickleOff(t *testing.T) {
	d := *testDecoder
	d.Pickle = false
	if _, err := d.Decode("socketio", []byte("\x80\x04N.")); err == nil || !strings.Contains(err.Error(), "5.14") {
		t.Error(err)
	}
}

// TestJSONTruncated cuts messages at every byte. None of it is accepted, and none of it is read beyond its end.
func TestJSONTruncated(t *testing.T) {
	p := emitJSON(`"update"`, `[{"price": 3.5e+1, "b": {"_placeholder": true, "num": 0}, "\u20ac": "\ud83d\ude00\n"}, "AP8="]`, `, "binary": true`)
	for i := range len(p) {
		if _, err := testDecoder.Decode("socketio", []byte(p[:i])); err == nil {
			t.Errorf("%s is accepted", p[:i])
		}
	}
}

func TestChannels(t *testing.T) {
	python, emitter := `{"method":"emit","event":"x"}`, "\x93\xa1u\x82\xa4type\x02\xa4data\x91\xa1x\x80"
	for _, c := range []struct{ channel, payload, want string }{
		{"socketio", python, `emit / x 0 ["x"]`},
		{"flask-socketio", python, `emit / x 0 ["x"]`},
		{"/0.socketio", `{"body":"{\"method\":\"emit\",\"event\":\"x\"}"}`, `emit / x 0 ["x"]`},
		{"/15.flask-socketio", `{"body":"eyJtZXRob2QiOiJlbWl0IiwiZXZlbnQiOiJ4In0=","properties":{"body_encoding":"base64"}}`, `emit / x 0 ["x"]`},
		{"/0.socketio", `{"body":"%","properties":{"body_encoding":"base64"}}`, "error: kombu: the body is not base64"},
		{"/0.socketio", `{"body":5}`, "error: kombu: the body is not a string"},
		{"/0.socketio", `{"body":"x","properties":5}`, "error: kombu: the properties are not a JSON object"},
		{"/0.socketio", `{`, "error: kombu: not valid JSON"},
		{"socket.io#/#", emitter, `emit / x 0 ["x"]`},
		{"socket.io#/#room:7#", emitter, `emit / x 0 ["x"]`},
		{"socket.io-request#/chat#", `{"type":4,"opts":{"rooms":["s"]}}`, `disconnect /chat rooms=s`},
		{"socket.io-response#/#", "x", "error: not a channel of Socket.IO"},
		{"socket.io-request#", "x", "error: not a channel of Socket.IO"},
		{"socket.io#", emitter, `emit / x 0 ["x"]`},
		{"socket.io", "x", "error: not a channel of Socket.IO"},
		{"/.socketio", "x", "error: not a channel of Socket.IO"},
		{"/a.socketio", "x", "error: not a channel of Socket.IO"},
		{"socketio2", "x", "error: not a channel of Socket.IO"},
		{"", "x", "error: not a channel of Socket.IO"},
	} {
		if got := show(testDecoder.Decode(c.channel, []byte(c.payload))); got != c.want {
			t.Errorf("%s: got %s, want %s", c.channel, got, c.want)
		}
	}
	d := Decoder{Channels: []string{"a*"}, Key: "k[]"}
	channels, patterns := d.Subscriptions()
	if got := strings.Join(append(channels, patterns...), " "); got != `a* /*.a\* k\[\]#* k\[\]-request#*` {
		t.Error(got)
	}
}

// TestRequests: redis-emitter's requests, and those of adapters, which are ignored.
func TestRequests(t *testing.T) {
	checkOutcomes(t, "socket.io-request#/#", []outcome{
		{"all rooms of all", `{"type":2,"opts":{"rooms":[],"except":["e"]},"rooms":["x"]}`, "join / except=e change=x"},
		{"no rooms to join", `{"type":2,"opts":{"rooms":[]},"rooms":[]}`, "ignore"},
		{"of an adapter", `{"type":2,"requestId":"x","sid":"s","room":"a"}`, "ignore"},
		{"sockets", `{"type":0,"requestId":"x","rooms":[]}`, "ignore"},
		{"server side", `{"type":6,"data":["x"]}`, "ignore"},
		{"type as text", `{"type":"4","opts":{"rooms":[]}}`, "ignore"},
		{"disconnect without opts", `{"type":4}`, "ignore"},
		{"disconnect without rooms", `{"type":4,"opts":{}}`, "error: rooms is not an array"},
		{"disconnect with null", `{"type":4,"opts":{"rooms":null}}`, "error: rooms is not an array"},
		{"disconnect with a string", `{"type":4,"opts":{"rooms":"a"}}`, "error: rooms is not an array"},
		{"opts an array", `{"type":4,"opts":[]}`, "error: opts: not a JSON object"},
		{"not JSON", `x`, "error: not a JSON object"},
	})
	if got := show(testDecoder.Decode("socket.io-request#chat#", []byte(`{"type":4,"opts":{"rooms":[]}}`))); !strings.HasPrefix(got, "error: ") {
		t.Error(got)
	}
}
