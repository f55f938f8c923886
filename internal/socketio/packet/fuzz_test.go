package packet

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/caddy-broadcast/caddy-broadcast/internal/frame"
	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
)

// FuzzParse: a packet that is accepted is valid JSON, its content goes to clients as a packet that is accepted too, and that one
// has the same content.
func FuzzParse(f *testing.F) {
	for _, c := range sent {
		if text, ok := c.messages[0].(string); ok {
			f.Add([]byte(text))
		}
	}
	f.Fuzz(checkParse)
}

// TestParseMutated does the same with packets that are nearly right, which a fuzzer rarely finds.
func TestParseMutated(t *testing.T) {
	random := rand.New(rand.NewPCG(16, 3))
	for range 500 {
		for _, c := range sent {
			if text, ok := c.messages[0].(string); ok {
				checkParse(t, []byte(mutate(random, text)))
			}
		}
	}
}

func checkParse(t *testing.T, data []byte) {
	before := bytes.Clone(data)
	p, closing := Parse(data)
	if !bytes.Equal(before, data) {
		t.Fatal("it was changed")
	}
	if closing != nil {
		return
	}
	if p.Payload != nil && !json.Valid(p.Payload) {
		t.Fatalf("%q is not JSON", p.Payload)
	}
	p.Credentials()
	p.Rooms()
	if p.Type != Event && p.Type != BinaryEvent {
		return
	}
	attachments := make([][]byte, p.Attachments)
	for i := range attachments {
		attachments[i] = []byte{byte(i)}
	}
	c, err := p.Content(attachments)
	if err != nil {
		return
	}
	relay(t, p.Name, c)
}

// relay checks that what a message becomes for clients is what they can parse, and that it has the same content.
func relay(t *testing.T, name string, c Content) {
	plain := c.Data
	if c.Args != nil {
		plain = AppendPlain(nil, c.Args, c.Attachments)
		if len(plain) > PlainSize(c.Args, c.Attachments) {
			t.Fatalf("%d bytes for other clients are more than announced", len(plain))
		}
	}
	if c.Kind == hub.JSON && !json.Valid(plain) {
		t.Fatalf("%q, for other clients, is not JSON", plain)
	}
	for _, offset := range [][]byte{nil, []byte("e-1")} {
		frames := AppendEvent(nil, &Outgoing{Channel: "/a,b", Event: name, Data: c.Data, Kind: c.Kind, Args: c.Args, Attachments: c.Attachments, Offset: offset})
		_, text, rest, ok := cutFrame(frames)
		if !ok {
			t.Fatalf("%q is not a frame", frames)
		}
		p, closing := Parse(text[1:])
		if closing != nil || p.Rejected != nil || p.Name != name || p.Namespace != "/a" {
			t.Fatalf("%q: %v, %+v", text, closing, p)
		}
		var attachments [][]byte
		for len(rest) > 0 {
			op, a, r, ok := cutFrame(rest)
			if !ok || op != frame.Binary {
				t.Fatalf("%q is not a binary frame", rest)
			}
			attachments, rest = append(attachments, a), r
		}
		again, err := p.Content(attachments)
		if err != nil {
			t.Fatal(err)
		}
		if offset == nil && !equalContent(again, c) {
			t.Fatalf("%q\ncomes back as\n%q", c, again)
		}
	}
}

// equalContent takes attachments that are nil for empty ones.
func equalContent(a, b Content) bool {
	if len(a.Attachments) != len(b.Attachments) || !bytes.Equal(a.Data, b.Data) || a.Kind != b.Kind || !bytes.Equal(a.Args, b.Args) {
		return false
	}
	for i := range a.Attachments {
		if !bytes.Equal(a.Attachments[i], b.Attachments[i]) {
			return false
		}
	}
	return true
}

// FuzzContent: arguments that are accepted are valid JSON, have no placeholder that a client would throw for as encoding/json
// sees them, and can be relayed.
func FuzzContent(f *testing.F) {
	for _, args := range []string{`[]`, `[ 1 ]`, `["a",{"b":[null,true]}]`, `["\ud83d\ude00"]`, `[` + placeholder + `]`, `[[` + placeholder + `],1]`,
		`[{"\u005fplaceholder":true,"num":0}]`, `[{"_placeholder":true,"num":0,"num":1}]`, `[{"a":` + placeholder + `}]`, placeholders(3)[1:]} {
		f.Add([]byte(args), 0)
		f.Add([]byte(args), 1)
	}
	f.Fuzz(func(t *testing.T, args []byte, n int) {
		attachments := make([][]byte, min(max(n, 0), MaxAttachments+1))
		for i := range attachments {
			attachments[i] = []byte{byte(i)}
		}
		c, err := NewContent(args, attachments)
		if err != nil {
			return
		}
		var list []any
		if err := json.Unmarshal(args, &list); err != nil {
			t.Fatalf("%q: %v", args, err)
		}
		if len(attachments) > 0 {
			checkPlaceholders(t, list, len(attachments))
		}
		relay(t, "e", c)
	})
}

// checkPlaceholders checks that no client could throw for what looks like a placeholder. An attachment may be missing, where
// an object has two members of one name.
func checkPlaceholders(t *testing.T, v any, n int) {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			checkPlaceholders(t, e, n)
		}
	case map[string]any:
		if _, ok := v["_placeholder"]; ok {
			num, _ := v["num"].(float64)
			if len(v) != 2 || v["_placeholder"] != true || num < 0 || num >= float64(n) || num != float64(int(num)) {
				t.Fatalf("%v is a placeholder that clients throw for", v)
			}
		}
		for _, e := range v {
			checkPlaceholders(t, e, n)
		}
	}
}

// FuzzPayload: the packets of a payload are together no larger than it, and, put in frames, become it again.
func FuzzPayload(f *testing.F) {
	for _, c := range payloads {
		f.Add([]byte(c.body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var frames []byte
		size := 0
		for p, err := range Payload(body) {
			if err != nil {
				return
			}
			size += len(p.Data)
			if p.Binary {
				frames = append(frame.AppendHeader(frames, frame.Binary, len(p.Data)), p.Data...)
				continue
			}
			frames = append(append(frame.AppendHeader(frames, frame.Text, 1+len(p.Data)), byte(p.Type)), p.Data...)
		}
		if size > len(body) {
			t.Fatalf("%d bytes of %d", size, len(body))
		}
		if got, left := AppendPayload(nil, frames, len(body)); !bytes.Equal(got, body) || len(left) > 0 {
			t.Fatalf("%q\nbecomes\n%q", body, got)
		}
	})
}

// FuzzAppendPayload: bytes that are no frames do no harm, and whatever is left is the end of them.
func FuzzAppendPayload(f *testing.F) {
	f.Add(frame.TextFrame("4a"), 10)
	f.Add([]byte{0x82, 127, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}, 1)
	f.Add([]byte{0x82, 126, 0xff, 0xff, 1}, 1)
	f.Fuzz(func(t *testing.T, frames []byte, n int) {
		p, left := AppendPayload(nil, frames, n)
		if !bytes.HasSuffix(frames, left) || len(p) > 4*len(frames)+4 {
			t.Fatalf("%q becomes %q, %q left", frames, p, left)
		}
		if again, _ := AppendPayload(nil, frames, n); !reflect.DeepEqual(p, again) {
			t.Fatal("it becomes something else the next time")
		}
	})
}
