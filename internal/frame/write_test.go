package frame

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/gobwas/ws"
)

// TestHeaders: another reader finds in a header what was written, at every length where its form changes.
func TestHeaders(t *testing.T) {
	for _, n := range []int{0, 1, 125, 126, 65535, 65536, 1 << 20} {
		for _, flag := range []Opcode{0, Deflated} {
			p := AppendHeader(nil, Binary|flag, n)
			h, err := ws.ReadHeader(bytes.NewReader(p))
			if err != nil || h.Length != int64(n) || !h.Fin || h.Rsv1() != (flag == Deflated) || h.OpCode != ws.OpBinary || h.Masked || len(p) != ws.HeaderSize(h) || len(p) > MaxHeader {
				t.Errorf("%d bytes, flag %x: %x is %+v, %v", n, flag, p, h, err)
			}
		}
	}
}

// TestCloseFrame: a close frame is never too long for a control frame, and its reason is always UTF-8.
func TestCloseFrame(t *testing.T) {
	if p := CloseFrame(NoStatus, "not sent"); string(p) != "\x88\x00" {
		t.Errorf("without a code: %x", p)
	}
	for _, reason := range []string{"", "short", strings.Repeat("x", 123), strings.Repeat("x", 124), "x" + strings.Repeat("ä", 100), strings.Repeat("\U0001f600", 50)} {
		p := CloseFrame(ServiceRestart, reason)
		h, err := ws.ReadHeader(bytes.NewReader(p))
		payload := p[2:]
		if err != nil || h.OpCode != ws.OpClose || h.Length != int64(len(payload)) || len(payload) > maxControl {
			t.Fatalf("%q: %+v, %v", reason, h, err)
		}
		code, got := ws.ParseCloseFrameData(payload)
		if code != 1012 || !strings.HasPrefix(reason, got) || !utf8.ValidString(got) || len(reason) <= maxControl-2 && got != reason || len(reason)-len(got) > 0 && len(got) < maxControl-2-3 {
			t.Errorf("%q: %d %q", reason, code, got)
		}
	}
}

// TestDeflate: what was deflated inflates to the same, but not beyond the limit and one byte.
func TestDeflate(t *testing.T) {
	random := make([]byte, 10_000)
	for i := range random {
		random[i] = byte(rand.Uint32())
	}
	for _, data := range [][]byte{nil, []byte("a"), bytes.Repeat([]byte("ab"), 50_000), random} {
		p := Deflate(data)
		if got, err := inflate(p, len(data)); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%d bytes became %d: %v", len(data), len(got), err)
		}
		if len(data) > 10 {
			if got, err := inflate(p, 9); err != nil || len(got) != 10 {
				t.Errorf("%d bytes inflated to %d over the limit: %v", len(data), len(got), err)
			}
		}
	}
}
