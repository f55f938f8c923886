package admin

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/publish"
)

// FuzzLines: a body gives as many messages as it has lines, or none and the line that is wrong. If the hub does not take
// them, that names a line too.
func FuzzLines(f *testing.F) {
	h := hub.New(hub.Config{})
	f.Cleanup(func() { h.Close(hub.ReasonRestart, "", 0, 0) })
	f.Add([]byte(`{"channel":"a","event":"b","data":{"c":[1,null]}}` + "\n\r\n" + `{"data":"\ud800"}`))
	f.Add([]byte(`{"data":"AP8=","encoding":"base64"}`))
	f.Add([]byte(`{"data":1}{"data":2}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		ms, numbers, err := parseLines(bytes.Clone(body))
		if err != nil {
			if ms != nil || !strings.HasPrefix(err.Error(), "line ") && err.Error() != "the body has no lines" {
				t.Fatalf("%d messages, %v", len(ms), err)
			}
			return
		}
		var want []int
		n := 0
		for line := range bytes.Lines(body) {
			n++
			if len(bytes.TrimSpace(line)) > 0 {
				want = append(want, n)
			}
		}
		if !slices.Equal(numbers, want) || len(ms) != len(want) {
			t.Fatalf("%d messages of the lines %v, not %v", len(ms), numbers, want)
		}
		err = h.Publish(ms...)
		if invalid := new(hub.InvalidError); err != nil && (!errors.As(err, &invalid) || invalid.Index >= len(ms)) && err != hub.ErrKeyReused {
			t.Fatal(err)
		}
		for _, m := range ms {
			if (m.Seq > 0) != (err == nil) {
				t.Fatalf("%v, and the message %d", err, m.Seq)
			}
		}
	})
}

func TestTooManyLines(t *testing.T) {
	body := bytes.Repeat([]byte("{\"data\":1}\n"), maxLines)
	if ms, _, err := parseLines(body); len(ms) != maxLines || err != nil {
		t.Errorf("%d messages, %v", len(ms), err)
	}
	ms, _, err := parseLines(append(body, `{"data":1}`...))
	if refusal := new(publish.HTTPError); ms != nil || !errors.As(err, &refusal) || refusal.Status != 413 {
		t.Errorf("%d messages, %v", len(ms), err)
	}
}

func TestKeyTwice(t *testing.T) {
	ms, _, err := parseLines([]byte(`{"data":1,"key":"a"}` + "\n" + `{"data":1,"key":"a","channel":"b"}` + "\n" + `{"data":1,"key":"a"}` + "\n" + `{"data":2,"key":"a"}`))
	if ms != nil || err == nil || !strings.Contains(err.Error(), "line 4: the idempotency key was used") {
		t.Errorf("%d messages, %v", len(ms), err)
	}
}
