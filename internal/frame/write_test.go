package frame

import (
	"bytes"
	"fmt"
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
			t.Run(fmt.Sprintf("%d bytes, flag %x", n, flag), func(t *testing.T) {
				p := AppendHeader(nil, Binary|flag, n)
				h, err := ws.ReadHeader(bytes.NewReader(p))
				if err != nil || h.Length != int64(n) || !h.Fin || h.Rsv1() != (flag == Deflated) || h.OpCode != ws.OpBinary || h.Masked || len(p) != ws.HeaderSize(h) || len(p) > MaxHeader {
					t.Errorf("%x is %+v, %v", p, h, err)
				}
			})
		}
	}
}

// TestCloseFrame: a close frame is never too long for a control frame, and its reason is always UTF-8.
func TestCloseFrame(t *testing.T) {
	t.Run("without a code", func(t *testing.T) {
		if p := CloseFrame(NoStatus, "not sent"); string(p) != "\x88\x00" {
			t.Errorf("%x", p)
		}
	})
	for name, reason := range map[string]string{
		"no reason":             "",
		"a short reason":        "short",
		"the longest reason":    strings.Repeat("x", 123),
		"a byte too long":       strings.Repeat("x", 124),
		"cut within two bytes":  "x" + strings.Repeat("ä", 100),
		"cut within four bytes": strings.Repeat("\U0001f600", 50),
	} {
		t.Run(name, func(t *testing.T) {
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
		})
	}
}

// TestDeflate: what was deflated inflates to the same, but not beyond the limit and one byte.
func TestDeflate(t *testing.T) {
	random := make([]byte, 10_000)
	for i := range random {
		random[i] = byte(rand.Uint32())
	}
	for name, data := range map[string][]byte{"nothing": nil, "a byte": []byte("a"), "a pattern": bytes.Repeat([]byte("ab"), 50_000), "random": random} {
		t.Run(name, func(t *testing.T) {
			p := Deflate(data)
			if got, err := inflate(p, len(data)); err != nil || !bytes.Equal(got, data) {
				t.Errorf("%d bytes became %d: %v", len(data), len(got), err)
			}
			if len(data) > 10 {
				if got, err := inflate(p, 9); err != nil || len(got) != 10 {
					t.Errorf("%d bytes inflated to %d over the limit: %v", len(data), len(got), err)
				}
			}
		})
	}
}
