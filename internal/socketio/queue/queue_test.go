package queue

import (
	"strings"
	"testing"

	"github.com/caddy-broadcast/caddy-broadcast/internal/protocol"
)

// TestFitsJSON: the size is that of what is appended, to the byte.
func TestFitsJSON(t *testing.T) {
	for _, s := range []string{"", "x", "é", `"`, `\`, "\n", "\r", "\t", "\x00", "\x1f", "\x7f", strings.Repeat("\x01", 100), "a\"b\n\x02" + strings.Repeat("y", 100)} {
		n := len(protocol.AppendString(nil, s))
		if !fitsJSON([]byte(s), n) || fitsJSON([]byte(s), n-1) {
			t.Errorf("%q takes %d bytes: fits %t, fits in one less %t", s, n, fitsJSON([]byte(s), n), fitsJSON([]byte(s), n-1))
		}
	}
}

// TestCommandOwnsMemory: a command keeps nothing of the payload, which the caller uses for the next one, and two that append
// to its array do not write to the same memory.
func TestCommandOwnsMemory(t *testing.T) {
	for _, c := range []struct{ channel, payload string }{
		{"socketio", emitJSON(`"update"`, `[{"_placeholder": true, "num": 0}, "AP8="]`, `, "binary": true`)},
		{"socketio", pickleOf("C\x02ab\x8c\x04room\x8c\x01r")},
		{"socket.io#/#", packed(2, "\xc4\x02ab\xa1y")},
		{"socket.io-request#/#", `{"type":2,"opts":{"rooms":["a"],"except":["e"]},"rooms":["x"]}`},
	} {
		p := []byte(c.payload)
		got, err := testDecoder.Decode(c.channel, p)
		before := show(got, err)
		for i := range p {
			p[i] = '!'
		}
		if after := show(got, err); err != nil || after != before {
			t.Errorf("%s\nbecomes %s", before, after)
		}
		if cap(got.Array) != len(got.Array) {
			t.Errorf("the array has %d bytes, and room for %d", len(got.Array), cap(got.Array))
		}
	}
}
