package packet

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// The behaviour of the npm packages is recorded in testdata/*.jsonl, so that these tests need neither node nor npm. Where they are
// installed, the recording is checked too, and more is compared:
//
//	npm install --prefix /tmp/sio socket.io-parser@4.2.7 engine.io-parser@5.2.3
//	NODE_PATH=/tmp/sio/node_modules go test ./internal/socketio/packet
//
// RECORD=1 records again. In what is sent to the script, and in what it answers, {"base64":"…"} is binary data.

// object is a JSON object of the script.
type object = map[string]any

// blob is how the script reads and shows binary data.
func blob(p []byte) object { return object{"base64": base64.StdEncoding.EncodeToString(p)} }

// ask asks the npm packages. It skips the test if they are not installed.
func ask(t testing.TB, questions []object) []object {
	var in bytes.Buffer
	for _, q := range questions {
		in.Write(line(t, q))
	}
	c := exec.Command("node", "testdata/reference.js")
	c.Stdin = &in
	out, err := c.Output()
	if failed := new(exec.ExitError); errors.Is(err, exec.ErrNotFound) || errors.As(err, &failed) && failed.ExitCode() == 3 {
		t.Skip("node, socket.io-parser or engine.io-parser is not installed")
	} else if err != nil {
		t.Fatal(err)
	}
	return answers(t, out, len(questions))
}

func line(t testing.TB, o object) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(o); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func answers(t testing.TB, lines []byte, n int) (list []object) {
	for l := range bytes.Lines(lines) {
		o := object{}
		if err := json.Unmarshal(l, &o); err != nil {
			t.Fatal(err)
		}
		list = append(list, o)
	}
	if len(list) != n {
		t.Fatalf("%d answers, want %d", len(list), n)
	}
	return list
}

// recorded returns the recorded answers to the questions. A recording has each question with its answer.
func recorded(t *testing.T, name string, questions []object) (list []object) {
	file := "testdata/" + name + ".jsonl"
	if os.Getenv("RECORD") != "" {
		var b bytes.Buffer
		for i, a := range ask(t, questions) {
			both := maps.Clone(a)
			both["question"] = questions[i]
			b.Write(line(t, both))
		}
		if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	lines, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	list = answers(t, lines, len(questions))
	for i, a := range list {
		if q := a["question"]; !reflect.DeepEqual(q, decoded(t, questions[i])) {
			t.Fatalf("the recording has %v in the place of %v: record it again", q, questions[i])
		}
		delete(a, "question")
	}
	t.Run("still", func(t *testing.T) {
		if now := ask(t, questions); !reflect.DeepEqual(now, list) {
			t.Errorf("%s is not what the packages do now: record it again", file)
		}
	})
	return list
}

// decoded returns the value as it is after it was encoded in JSON.
func decoded(t testing.TB, v any) (p any) {
	b, err := json.Marshal(v)
	if err == nil {
		err = json.Unmarshal(b, &p)
	}
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// decode parses Socket.IO messages as a session does, and shows the packets as the script does. Reasons why an event is rejected
// are not errors.
func decode(t testing.TB, messages []any) (packets []any, err error) {
	var pending *Assembly
	for _, m := range messages {
		if b, ok := m.(object); ok {
			data, _ := base64.StdEncoding.DecodeString(b["base64"].(string))
			if pending == nil {
				return packets, Unexpected
			}
			complete, closing := pending.Add(data)
			if closing != nil {
				return packets, closing
			}
			if complete {
				packets = append(packets, show(t, &pending.Packet, pending.Attachments))
				pending = nil
			}
			continue
		}
		if pending != nil {
			return packets, Missing
		}
		p, closing := Parse([]byte(m.(string)))
		if closing != nil {
			return packets, closing
		}
		if p.Attachments == 0 {
			packets = append(packets, show(t, &p, nil))
			continue
		}
		if pending, closing = NewAssembly(p, 1<<20); closing != nil {
			return packets, closing
		}
	}
	return packets, nil
}

// show shows a packet as the script does.
func show(t testing.TB, p *Packet, attachments [][]byte) object {
	o := object{"type": float64(p.Type - '0'), "nsp": p.Namespace}
	if p.Attachments > 0 { // the decoder makes them packets without
		o["type"] = float64(p.Type - '3')
	}
	if p.ID != nil {
		o["id"] = number(t, p.ID)
	}
	if p.Payload == nil {
		return o
	}
	var payload []byte
	from := 0
	for _, at := range p.list.places[:p.list.found] {
		payload = append(payload, p.Payload[from:at.start]...)
		payload = append(payload, bytes.TrimSpace(line(t, blob(attachments[at.num])))...)
		from = at.end
	}
	o["data"] = decoded(t, json.RawMessage(append(payload, p.Payload[from:]...)))
	return o
}

// number returns the number that an ack ID is to JavaScript.
func number(t testing.TB, id []byte) float64 {
	n, err := strconv.ParseFloat(string(id), 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// packets are messages of clients, as Socket.IO packets, and those that servers and other clients send.
var sent = []struct {
	name     string
	messages []any // binary ones are blob(…)
	stricter bool  // the npm package accepts them, and so does no other client's encoder make them
}{
	{"connect", []any{"0"}, false},
	{"connect with credentials", []any{`0{"pid":"p","offset":"o","token":"x"}`}, false},
	{"connect to a namespace", []any{"0/admin,"}, false},
	{"connect to a namespace, without a comma", []any{"0/admin"}, false},
	{"connect to a namespace, with a payload", []any{`0/admin,{"token":"123"}`}, false},
	{"connect to a namespace with a query", []any{"0/custom?x=1,"}, false},
	{"connect to the main namespace by name", []any{"0/,{}"}, false},
	{"connect with an array", []any{"0[]"}, false},
	{"connect with a string", []any{`0"a"`}, false},
	{"connect with null", []any{"0null"}, false},
	{"connect with a number, which is an ID", []any{"01"}, true},
	{"connect with an ID and a payload", []any{"01{}"}, true},
	{"disconnect", []any{"1"}, false},
	{"disconnect from a namespace", []any{"1/admin,"}, false},
	{"disconnect with a payload", []any{"1{}"}, false},
	{"disconnect with an ID", []any{"17"}, true},
	{"event", []any{`2["hello"]`}, false},
	{"event with arguments", []any{`2["hello",1,"2",{"3":[true,null]}]`}, false},
	{"event of a namespace", []any{`2/admin,["hello"]`}, false},
	{"event with an ID", []any{`212["hello"]`}, false},
	{"event with an ID of a namespace", []any{`2/admin,456["project:delete",123]`}, false},
	{"event with the ID 0", []any{`20["hello"]`}, false},
	{"event with zeros before its ID", []any{`2007["hello"]`}, false},
	{"event with an ID of 15 digits", []any{`2123456789012345["hello"]`}, false},
	{"event with an ID of 16 digits", []any{`21234567890123456["hello"]`}, true},
	{"event with a negative ID", []any{`2-1["hello"]`}, false},
	{"event with a fraction as its ID", []any{`21.5["hello"]`}, false},
	{"event with a space for its ID", []any{`2 ["hello"]`}, true},
	{"event with a space after its ID", []any{`21 ["hello"]`}, true},
	{"event with white space in it and after it", []any{"2[ \"a\" ,\t1\r\n] \n"}, false},
	{"event with escapes in its name", []any{`2["\u0068\"\\\/\n"]`}, false},
	{"event with a number for its name", []any{`2[1,"a"]`}, false},
	{"event without a name", []any{`2[]`}, false},
	{"event without a payload", []any{`2`}, true},
	{"event of a namespace without a payload", []any{`2/admin`}, true},
	{"event with an object", []any{`2{}`}, false},
	{"event with the name null", []any{`2[null]`}, false},
	{"event with the name true", []any{`2[true]`}, false},
	{"event with an array for its name", []any{`2[["a"]]`}, false},
	{"event with something after it", []any{`2["a"]x`}, false},
	{"event that ends too early", []any{`2["a"`}, false},
	{"event with a comma too many", []any{`2["a",]`}, false},
	{"event with NaN", []any{`2["a",NaN]`}, false},
	{"event with a number that begins with zero", []any{`2["a",01]`}, false},
	{"event with a control character", []any{"2[\"a\x01\"]"}, false},
	{"event with half of a pair", []any{`2["a","\ud800"]`}, false},
	{"event with an empty name", []any{`2[""]`}, false},
	{"event connect", []any{`2["connect"]`}, false},
	{"event connect_error", []any{`2["connect_error"]`}, false},
	{"event disconnect", []any{`2["disconnect"]`}, false},
	{"event disconnecting", []any{`2["disconnecting"]`}, false},
	{"event newListener", []any{`2["newListener"]`}, false},
	{"event removeListener, escaped", []any{`2["removeListene\u0072"]`}, false},
	{"event with what looks like an attachment", []any{`2["a",{"_placeholder":true,"num":5}]`}, false},
	{"event with 256 levels", []any{`2["a",` + strings.Repeat("[", 255) + strings.Repeat("]", 255) + `]`}, false},
	{"event with 257 levels", []any{`2["a",` + strings.Repeat("[", 256) + strings.Repeat("]", 256) + `]`}, true},
	{"ack", []any{`312[]`}, false},
	{"ack of a namespace", []any{`3/admin,456["ok"]`}, false},
	{"ack with an object", []any{`312{}`}, false},
	{"ack without a payload", []any{`312`}, true},
	{"ack without an ID", []any{`3[]`}, true},
	{"connect error", []any{`4{"message":"Not authorized"}`}, true},
	{"unknown type", []any{`7`}, false},
	{"unknown type that is a letter", []any{`abc`}, false},
	{"nothing", []any{``}, true},
	{"one attachment", []any{`51-["a",{"_placeholder":true,"num":0}]`, blob([]byte{1, 2, 3})}, false},
	{"two attachments", []any{`52-["a",{"x":[{"_placeholder":true,"num":0}]},{"_placeholder":true,"num":1}]`,
		blob([]byte{1, 2, 3}), blob([]byte{4})}, false},
	{"attachment of a namespace with an ID", []any{`51-/admin,456["a",{"num":0,"_placeholder":true}]`, blob([]byte("x"))}, false},
	{"attachment of an ack", []any{`61-/admin,456[{"_placeholder":true,"num":0}]`, blob([]byte("x"))}, false},
	{"attachments in another order", []any{`52-["a",{"_placeholder":true,"num":1},{"_placeholder":true,"num":0}]`,
		blob([]byte{1}), blob([]byte{2})}, false},
	{"empty attachment", []any{`51-["a",{"_placeholder":true,"num":0}]`, blob(nil)}, false},
	{"ten attachments", append([]any{`510-["a"` + placeholders(10) + `]`}, binaries(10)...), false},
	{"eleven attachments", append([]any{`511-["a"` + placeholders(11) + `]`}, binaries(11)...), false},
	{"a name for a key that is escaped", []any{`51-["a",{"\u005fplaceholder":true,"n\u0075m":0}]`, blob([]byte("x"))}, false},
	{"no attachment", []any{`50-["a"]`}, false},
	{"attachments without a number", []any{`5["a"]`}, false},
	{"attachments without a number before the dash", []any{`5-["a"]`}, false},
	{"a negative number of attachments", []any{`5-1-["a"]`}, false},
	{"a fraction of attachments", []any{`51.0-["a",{"_placeholder":true,"num":0}]`, blob(nil)}, true},
	{"attachments that do not end", []any{`51`}, false},
	{"attachment that comes when none is due", []any{blob([]byte("x"))}, false},
	{"attachment too many", []any{`51-["a",{"_placeholder":true,"num":0}]`, blob(nil), blob(nil)}, false},
	{"text in the place of an attachment", []any{`51-["a",{"_placeholder":true,"num":0}]`, `2["a"]`}, false},
	{"attachment that is missing", []any{`52-["a",{"_placeholder":true,"num":2}]`, blob(nil), blob(nil)}, false},
	{"attachment with a negative number", []any{`51-["a",{"_placeholder":true,"num":-1}]`, blob(nil)}, false},
	{"attachment with a fraction", []any{`51-["a",{"_placeholder":true,"num":0.5}]`, blob(nil)}, true},
	{"attachment without a number", []any{`51-["a",{"_placeholder":true}]`, blob(nil)}, false},
	{"attachment with text for its number", []any{`51-["a",{"_placeholder":true,"num":"0"}]`, blob(nil)}, false},
	{"attachment that nothing refers to", []any{`51-["a"]`, blob(nil)}, true},
	{"attachment that two refer to", []any{`51-["a",{"_placeholder":true,"num":0},{"_placeholder":true,"num":0}]`, blob(nil)}, true},
	{"placeholder with more members", []any{`51-["a",{"_placeholder":true,"num":0,"x":1}]`, blob(nil)}, true},
	{"placeholder with two numbers", []any{`51-["a",{"_placeholder":true,"num":5,"num":0}]`, blob(nil)}, true},
	{"placeholder that is none", []any{`51-["a",{"_placeholder":false,"num":7},{"_placeholder":true,"num":0}]`, blob(nil)}, true},
}

func placeholders(n int) (list string) {
	for i := range n {
		list += fmt.Sprintf(`,{"_placeholder":true,"num":%d}`, i)
	}
	return list
}

func binaries(n int) (list []any) {
	for i := range n {
		list = append(list, blob([]byte{byte(i)}))
	}
	return list
}

// TestDecode: packets are to us what they are to the npm package, except for those that we are stricter with.
func TestDecode(t *testing.T) {
	questions := make([]object, len(sent))
	for i, c := range sent {
		questions[i] = object{"decode": c.messages}
	}
	list := recorded(t, "decode", questions)
	for i, c := range sent {
		t.Run(c.name, func(t *testing.T) {
			packets, err := decode(t, c.messages)
			_, refused := list[i]["error"]
			if c.stricter {
				if err == nil || refused {
					t.Fatalf("%v, and the npm package has %v: we are not stricter", err, list[i])
				}
				return
			}
			if (err != nil) != refused {
				t.Fatalf("%v, where the npm package has %v", err, list[i])
			}
			if !refused && !reflect.DeepEqual(packets, list[i]["packets"]) {
				t.Errorf("%v\nwhere the npm package has\n%v", packets, list[i]["packets"])
			}
		})
	}
}

// TestDecodeMutated: what a mutated packet is to the npm package it is to us as well, if we accept it.
func TestDecodeMutated(t *testing.T) {
	random := rand.New(rand.NewPCG(16, 1))
	var questions []object
	for range 200 {
		for _, c := range sent {
			messages := slices.Clone(c.messages)
			for i, m := range messages {
				if text, ok := m.(string); ok {
					messages[i] = mutate(random, text)
				}
			}
			questions = append(questions, object{"decode": messages})
		}
	}
	accepted := 0
	for i, a := range ask(t, questions) {
		messages := questions[i]["decode"].([]any)
		packets, err := decode(t, messages)
		if err != nil {
			continue
		}
		accepted++
		if !reflect.DeepEqual(packets, a["packets"]) && len(packets) > 0 {
			t.Errorf("%q is\n%v\nwhere the npm package has\n%v", messages, packets, a)
		}
		if a["error"] != nil {
			t.Errorf("%q is accepted, where the npm package has %v", messages, a)
		}
	}
	t.Logf("accepted %d of %d", accepted, len(questions))
}

// mutate changes a few characters of a packet.
func mutate(random *rand.Rand, text string) string {
	const letters = `0123456789-/,"[]{}:\ab_ .eE+` + "\n\x7f"
	p := []byte(text)
	for range 1 + random.IntN(2) {
		i := random.IntN(len(p) + 1)
		switch c := letters[random.IntN(len(letters))]; {
		case i == len(p) || random.IntN(3) == 0:
			p = slices.Insert(p, i, c)
		case random.IntN(2) == 0:
			p[i] = c
		default:
			p = slices.Delete(p, i, i+1)
		}
	}
	return strings.ToValidUTF8(string(p), "?")
}
