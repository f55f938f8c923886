package hub

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

// TestCheck: what some client could not accept gets no place in the log, and neither does what it was published with.
func TestCheck(t *testing.T) {
	h := New(Config{})
	defer closeHub(h)
	long := strings.Repeat("x", MaxName+1)
	bad := map[string]*Message{
		"no channel":                  {},
		"a long channel":              {Channel: long},
		"a channel not UTF-8":         {Channel: "\xff"},
		"a channel of two lines":      {Channel: "a\nb"},
		"a long event":                {Channel: "a", Event: long},
		"an event of two lines":       {Channel: "a", Event: "a\r"},
		"an event not UTF-8":          {Channel: "a", Event: "\xc3"},
		"a long key":                  {Channel: "a", Key: long},
		"a long publisher":            {Channel: "a", Publisher: long + long},
		"an unknown kind":             {Channel: "a", Kind: 3},
		"text not UTF-8":              {Channel: "a", Data: []byte("a\xff")},
		"text of a surrogate":         {Channel: "a", Data: []byte("\xed\xa0\x80")},
		"JSON not UTF-8":              {Channel: "a", Kind: JSON, Data: []byte("\"\xff\"")},
		"no JSON":                     {Channel: "a", Kind: JSON},
		"JSON with a byte order mark": {Channel: "a", Kind: JSON, Data: []byte("\ufeff1")},
		"two JSON values":             {Channel: "a", Kind: JSON, Data: []byte("1 2")},
		"half a pair":                 {Channel: "a", Kind: JSON, Data: []byte(`"\ud83d"`)},
		"the other half":              {Channel: "a", Kind: JSON, Data: []byte(`{"\uDE00":1}`)},
		"halves the wrong way":        {Channel: "a", Kind: JSON, Data: []byte(`"\ude00\ud83d"`)},
		"two first halves":            {Channel: "a", Kind: JSON, Data: []byte(`"\ud83d\ud83d\ude00"`)},
		"a huge number":               {Channel: "a", Kind: JSON, Data: []byte(`[-1e999]`)},
		"a long number":               {Channel: "a", Kind: JSON, Data: []byte(strings.Repeat("9", 310))},
		"deep JSON":                   {Channel: "a", Kind: JSON, Data: []byte(nested(maxDepth + 1))},
	}
	for name, m := range bad {
		t.Run(name, func(t *testing.T) {
			good := &Message{Channel: "a"}
			err := h.Publish(good, m)
			if e := new(InvalidError); !errors.As(err, &e) || e.Index != 1 || good.Seq != 0 {
				t.Error(err)
			}
		})
	}
}

func nested(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }

// TestCheckPasses: what all clients can accept is published.
func TestCheckPasses(t *testing.T) {
	h := New(Config{})
	defer closeHub(h)
	for name, m := range map[string]*Message{
		"long names":            {Channel: strings.Repeat("ä", MaxName/2), Event: "\u2028 \"\\", Key: "k"},
		"text of control codes": {Channel: "a", Data: []byte("\x00\r\n\u2028\ufeff\U0001f600")},
		"binary":                {Channel: "a", Data: []byte{0xff, 0}, Kind: Binary},
		"JSON of all kinds":     {Channel: "a", Kind: JSON, Data: []byte(" {\r\n\"a\\u0000\\ud83d\\ude00\\\\ud83d\":\t[1e308,1E-999,-0.0]} ")},
		"deep JSON":             {Channel: "a", Kind: JSON, Data: []byte(nested(maxDepth))},
		"deep JSON twice":       {Channel: "a", Kind: JSON, Data: []byte("[" + nested(maxDepth-1) + "," + nested(maxDepth-1) + "]")},
		"a precise number":      {Channel: "a", Kind: JSON, Data: []byte("0." + strings.Repeat("9", 5000))},
	} {
		t.Run(name, func(t *testing.T) {
			if err := h.Publish(m); err != nil {
				t.Errorf("%.50q: %v", m.Data, err)
			}
		})
	}
}

// FuzzCheckJSON: what passes can be read by encoding/json, numbers too, and says the same if it is written again.
func FuzzCheckJSON(f *testing.F) {
	for _, s := range []string{`{"a":[1,"\ud83d\ude00",null]}`, `"\ud83d"`, "1e999", `"\\ud800"`, "\"\xff\"", "[[[]]]", "-", `"\u0000"`, `"\x"`, "01", "1.", "1e", "-0e+1", `{"a" : true , "b":false}`, "{]", "[1,]", `{"a"}`, "\"\n\"", `"a`, `"\u12`, "tru", "\v1", " [1e5 , -2.5]\n"} {
		f.Add([]byte(s))
	}
	half := regexp.MustCompile(`\\u[dD][89a-fA-F]`)
	f.Fuzz(func(t *testing.T, p []byte) {
		err := checkJSON(p)
		if (err == errNotJSON) != (utf8.Valid(p) && !json.Valid(p)) && (err == nil || err == errNotJSON) {
			t.Fatalf("%q: %v, valid: %v", p, err, json.Valid(p))
		}
		if (err == errNotUTF8) != !utf8.Valid(p) {
			t.Fatalf("%q: %v", p, err)
		}
		if err == nil {
			var v any
			if err := json.Unmarshal(p, &v); err != nil || CheckUnicode(p) != nil {
				t.Fatalf("%q passes: %v", p, err)
			}
			if strings.Contains(fmt.Sprint(v), "\ufffd") && !strings.Contains(string(p), "\ufffd") && !strings.Contains(strings.ToLower(string(p)), `\ufffd`) {
				t.Fatalf("%q loses something", p)
			}
			return
		}
		// What does not has one of the faults.
		var v any
		if utf8.Valid(p) && json.Unmarshal(p, &v) == nil && !half.Match(p) && depth(v) <= maxDepth {
			t.Fatalf("%q: %v", p, err)
		}
		if json.Valid(p) {
			CheckUnicode(p)
		}
	})
}

func depth(v any) int {
	n := 0
	switch v := v.(type) {
	case []any:
		for _, v := range v {
			n = max(n, depth(v))
		}
	case map[string]any:
		for _, v := range v {
			n = max(n, depth(v))
		}
	default:
		return 0
	}
	return n + 1
}

// FuzzEncodedText: the fast count is that of the slow one.
func FuzzEncodedText(f *testing.F) {
	f.Add([]byte("plain text that is longer than eight bytes"))
	f.Add([]byte("\x00\r\n\"\\ \x7f\x80\xff!#[]\x1f"))
	f.Fuzz(func(t *testing.T, p []byte) {
		stream, json := 0, 0
		for _, c := range p {
			stream++
			json++
			switch {
			case c == '\n' || c == '\r':
				stream += 6
				json++
			case c == '"' || c == '\\' || c == '\t':
				json++
			case c < ' ':
				json += 5
			}
		}
		if got := encodedText(p); got != max(stream, json) {
			t.Fatalf("%q: %d, not %d", p, got, max(stream, json))
		}
	})
}

func BenchmarkCheck(b *testing.B) {
	for _, c := range []struct {
		name string
		kind Kind
		data string
	}{
		{"text", Text, strings.Repeat("some text, as it is mostly ", 5)[:128]},
		{"JSON", JSON, `{"user":"ann","text":"` + strings.Repeat("hello ", 13) + `","at":1732550000.25}`},
		{"text 64 KiB", Text, strings.Repeat("some text, as it is mostly ", 4096)[:64<<10]},
		{"quotes 64 KiB", Text, strings.Repeat(`"`, 64<<10)},
		{"JSON 64 KiB", JSON, "[" + strings.Repeat(`{"user":"ann","text":"hello","at":17325},`, 1600) + "1]"},
	} {
		b.Run(c.name, func(b *testing.B) {
			m := &Message{Channel: "channel", Kind: c.kind, Data: []byte(c.data)}
			b.SetBytes(int64(len(c.data)))
			for b.Loop() {
				if err := m.check(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
