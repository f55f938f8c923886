package admin

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
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
