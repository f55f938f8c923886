package admin

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/post"
)

// FuzzLines: a body gives as many messages as it has lines, all fit to be published, or none and the line that is
// wrong.
func FuzzLines(f *testing.F) {
	f.Add([]byte(`{"channel":"a","event":"b","data":{"c":[1,null]}}` + "\n\r\n" + `{"data":"\ud800"}`))
	f.Add([]byte(`{"data":"AP8=","encoding":"base64"}`))
	f.Add([]byte(`{"data":1}{"data":2}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		ms, err := parseLines(bytes.Clone(body))
		if err != nil {
			if ms != nil || !strings.HasPrefix(err.Error(), "line ") && err.Error() != "the body has no lines" {
				t.Fatalf("%d messages, %v", len(ms), err)
			}
			return
		}
		lines := 0
		for line := range bytes.Lines(body) {
			if len(bytes.TrimSpace(line)) > 0 {
				lines++
			}
		}
		if lines != len(ms) {
			t.Fatalf("%d messages of %d lines", len(ms), lines)
		}
		for _, m := range ms {
			if hub.CheckName(m.Channel) != nil || m.Event != "" && hub.CheckName(m.Event) != nil {
				t.Fatalf("names %q, %q", m.Channel, m.Event)
			}
			if m.Kind == hub.Text && !utf8.Valid(m.Data) {
				t.Fatalf("text %q", m.Data)
			}
		}
	})
}

func TestTooManyLines(t *testing.T) {
	body := bytes.Repeat([]byte("{\"data\":1}\n"), maxLines)
	if ms, err := parseLines(body); len(ms) != maxLines || err != nil {
		t.Errorf("%d messages, %v", len(ms), err)
	}
	ms, err := parseLines(append(body, `{"data":1}`...))
	if refusal := new(post.Error); ms != nil || !errors.As(err, &refusal) || refusal.Status != 413 {
		t.Errorf("%d messages, %v", len(ms), err)
	}
}

func TestKeyTwice(t *testing.T) {
	ms, err := parseLines([]byte(`{"data":1,"key":"a"}` + "\n" + `{"data":1,"key":"a","channel":"b"}` + "\n" + `{"data":1,"key":"a"}` + "\n" + `{"data":2,"key":"a"}`))
	if ms != nil || err == nil || !strings.Contains(err.Error(), "line 4: the idempotency key is") {
		t.Errorf("%d messages, %v", len(ms), err)
	}
}
