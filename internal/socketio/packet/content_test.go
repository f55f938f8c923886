package packet

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
)

// contents are arguments, and what clients of other protocols get for them.
var contents = []struct {
	args        string
	attachments [][]byte
	kind        hub.Kind
	data        string
	back        string // the arguments in an event, if they are not written as in args
}{
	{`[]`, nil, hub.JSON, `null`, ``},
	{" [ ] ", nil, hub.JSON, `null`, `[]`},
	{`[null]`, nil, hub.JSON, `null`, ``},
	{`[{"price": 3}]`, nil, hub.JSON, `{"price": 3}`, ``},
	{" [ 1 ] ", nil, hub.JSON, `1`, `[1]`},
	{`["a\u0041\n"]`, nil, hub.Text, "aA\n", `["aA\n"]`},
	{`[""]`, nil, hub.Text, "", ``},
	{`[1, "2",[3] ]`, nil, hub.JSON, `[1, "2",[3]]`, `[1, "2",[3]]`},
	{`[[1,2]]`, nil, hub.JSON, `[1,2]`, ``},
	{`[{"_placeholder":true,"num":0}]`, [][]byte{{1, 2}}, hub.Binary, "\x01\x02", ``},
	{`[ {"num": 0, "_placeholder": true} ]`, [][]byte{{1, 2}}, hub.Binary, "\x01\x02", `[{"_placeholder":true,"num":0}]`},
	{`[[{"_placeholder":true,"num":0}]]`, [][]byte{{1, 2}}, hub.JSON, `["AQI="]`, ``},
	{`[{"a":{"_placeholder":true,"num":0}},1]`, [][]byte{{1, 2}}, hub.JSON, `[{"a":"AQI="},1]`, ``},
	{`[{"_placeholder":true,"num":1},{"_placeholder":true,"num":0}]`, [][]byte{{1, 2}, []byte("x")}, hub.JSON, `["eA==","AQI="]`, ``},
	{`[{"_placeholder":true,"num":0}]`, nil, hub.JSON, `{"_placeholder":true,"num":0}`, ``},
}

// TestContent: arguments become what clients of all protocols understand.
func TestContent(t *testing.T) {
	for _, c := range contents {
		got, err := NewContent([]byte(c.args), c.attachments)
		if err != nil {
			t.Errorf("%s: %v", c.args, err)
			continue
		}
		data := got.Data
		if got.Args != nil {
			data = AppendPlain(nil, got.Args, got.Attachments)
			if n := PlainSize(got.Args, got.Attachments); len(data) > n {
				t.Errorf("%s: %d bytes, more than %d", c.args, len(data), n)
			}
			if has := got.Data != nil; has != (len(got.Attachments) == 0) || has && string(got.Data) != string(data) {
				t.Errorf("%s: has the data %q", c.args, got.Data)
			}
		}
		if got.Kind != c.kind || string(data) != c.data {
			t.Errorf("%s: %v %q, want %v %q", c.args, got.Kind, data, c.kind, c.data)
		}
	}
}

// TestContentComesBack: an event with the content has the arguments that they were, and is the same content again.
func TestContentComesBack(t *testing.T) {
	for _, c := range contents {
		content, err := NewContent([]byte(c.args), c.attachments)
		if err != nil {
			t.Fatal(err)
		}
		list := messages(t, AppendEvent(nil, content.event("e")))
		text := list[0].(string)
		want := `["e",` + cmp.Or(c.back, c.args)[1:]
		if strings.TrimLeft(text, "250-1") != strings.Replace(want, ",]", "]", 1) {
			t.Errorf("%s: the event is %s, want %s", c.args, text, want)
		}
		p, closing := Parse([]byte(text))
		if closing != nil {
			t.Fatal(closing)
		}
		if again, err := p.Content(c.attachments); err != nil || !reflect.DeepEqual(again, content) {
			t.Errorf("%s: comes back as %v, %v, want %v", c.args, again, err, content)
		}
	}
}

// event returns the event with the content.
func (c Content) event(name string) *Outgoing {
	return &Outgoing{Event: name, Data: c.Data, Kind: c.Kind, Args: c.Args, Attachments: c.Attachments}
}

// TestOfficial: what the official tests' server would echo. It changes the event's name, and nothing else may change. See
// https://github.com/socketio/socket.io-protocol/blob/main/test-suite/test-suite.js.
func TestOfficial(t *testing.T) {
	for _, c := range []struct {
		messages []any
		want     string
	}{
		{[]any{`2["message",1,"2",{"3":[true]}]`}, `2["message-back",1,"2",{"3":[true]}]`},
		{[]any{`2["message","message to main namespace"]`}, `2["message-back","message to main namespace"]`},
		{[]any{`2456["message-with-ack",1,"2",{"3":[false]}]`}, `2["message-back",1,"2",{"3":[false]}]`},
		{[]any{`52-["message",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]`, blob([]byte{1, 2, 3}), blob([]byte{4, 5, 6})},
			`52-["message-back",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]`},
	} {
		if got := echo(t, c.messages); got[0] != c.want || !reflect.DeepEqual(got[1:], c.messages[1:]) {
			t.Errorf("%v, want %s", got, c.want)
		}
	}
}

// echo returns what an event becomes for clients, named message-back.
func echo(t *testing.T, sent []any) []any {
	p, closing := Parse([]byte(sent[0].(string)))
	if closing != nil {
		t.Fatalf("%s: %v", sent[0], closing)
	}
	var attachments [][]byte
	for _, m := range sent[1:] {
		data, err := base64.StdEncoding.DecodeString(m.(object)["base64"].(string))
		if err != nil {
			t.Fatal(err)
		}
		attachments = append(attachments, data)
	}
	c, err := p.Content(attachments)
	if err != nil {
		t.Fatalf("%s: %v", sent[0], err)
	}
	return messages(t, AppendEvent(nil, c.event("message-back")))
}

// TestEchoRandom: what the npm package emits comes back from us byte for byte, and is to the npm package what it was.
func TestEchoRandom(t *testing.T) {
	random := rand.New(rand.NewPCG(16, 2))
	var emitted, decodes []object
	var datas []any
	for range 3000 {
		data := []any{"message-back"}
		for range random.IntN(4) {
			data = append(data, anything(random, 4))
		}
		emitted = append(emitted, object{"encode": object{"type": 2, "nsp": "/", "data": data}})
		datas = append(datas, decoded(t, data))
	}
	for i, a := range ask(t, emitted) {
		sent := a["messages"].([]any)
		if n := len(sent) - 1; n > MaxAttachments {
			emitted[i] = nil
			decodes = append(decodes, object{"decode": []any{}})
			continue
		}
		got := echo(t, sent)
		if !reflect.DeepEqual(got, sent) {
			t.Errorf("%v, want %v", got, sent)
		}
		decodes = append(decodes, object{"decode": got})
	}
	for i, a := range ask(t, decodes) {
		if emitted[i] == nil {
			continue
		}
		if packets := a["packets"].([]any); len(packets) != 1 || !reflect.DeepEqual(packets[0].(object)["data"], datas[i]) {
			t.Errorf("%v is %v, want %v", decodes[i], a, datas[i])
		}
	}
}

// anything returns a random value of at most this many levels.
func anything(random *rand.Rand, depth int) any {
	n := 7
	if depth == 0 {
		n = 5
	}
	switch random.IntN(n) {
	case 0:
		return nil
	case 1:
		return random.IntN(2) == 0
	case 2:
		return []any{0, -1, 1.5, 1e21, 1e-7, 42}[random.IntN(6)]
	case 3:
		return []any{"", "a", `"`, `\\`, "\n\x01é\u2028😀</", "_placeholder", "num"}[random.IntN(7)]
	case 4:
		return blob(bytes.Repeat([]byte{byte(random.IntN(256))}, random.IntN(4)))
	case 5:
		list := []any{}
		for range random.IntN(4) {
			list = append(list, anything(random, depth-1))
		}
		return list
	}
	o := object{}
	for range random.IntN(4) {
		o[[]string{"a", "b", `"`, "num", "é", "_placeholders"}[random.IntN(6)]] = anything(random, depth-1)
	}
	return o
}

// TestNewContentInvalid: what backends must not emit, because it would disconnect their pages.
func TestNewContentInvalid(t *testing.T) {
	one := [][]byte{{1}}
	for _, c := range []struct {
		name, args  string
		attachments [][]byte
	}{
		{"nothing", "", nil}, {"no array", "{}", nil}, {"two arrays", "[][]", nil}, {"NaN", "[NaN]", nil}, {"Infinity", "[-Infinity]", nil},
		{"not UTF-8", "[\"\xff\"]", nil}, {"half of a pair", `["\ud800"]`, nil}, {"second half first", `["\udc00\ud800"]`, nil},
		{"too deep", strings.Repeat("[", 257) + strings.Repeat("]", 257), nil}, {"does not end", strings.Repeat("[", 1e6), nil},
		{"attachment without a placeholder", "[1]", one}, {"placeholder without its attachment", "[" + placeholders(2)[1:] + "]", one},
		{"the same placeholder twice", `[` + placeholder + `,` + placeholder + `]`, one},
		{"number that is not an index", `[{"_placeholder":true,"num":00}]`, one}, {"exponent", `[{"_placeholder":true,"num":0e0}]`, one},
		{"eleven attachments", "[" + placeholders(11)[1:] + "]", make([][]byte, 11)},
	} {
		if got, err := NewContent([]byte(c.args), c.attachments); err == nil {
			t.Errorf("%s: %v", c.name, got)
		}
	}
	if got := AppendPlain(nil, []byte("[1]"), one); string(got) != "[1]" {
		t.Errorf("%q", got)
	}
}
