package frame

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/gobwas/ws"

	"github.com/caddy-broadcast/caddy-broadcast/internal/frame/frametest"
)

// record is a Receiver that writes down what it gets.
type record struct{ strings.Builder }

func (r *record) Message(m Message) *CloseError {
	fmt.Fprintf(r, "message %d %v %x\n", m.Opcode, m.deflated, m.payload)
	return nil
}

func (r *record) Control(op Opcode, payload []byte) *CloseError {
	fmt.Fprintf(r, "control %d %x\n", op, payload)
	return nil
}

func (r *record) Closed(code Code) { fmt.Fprintf(r, "close %d\n", code) }

func closeWith(code Code) string { return string(binary.BigEndian.AppendUint16(nil, uint16(code))) }

// FuzzFrames: whatever the bytes, and however they are cut up, the frames are those that another reader finds.
func FuzzFrames(f *testing.F) {
	f.Add(bytes.Join([][]byte{frametest.Mask(0x81, "hello"), frametest.Mask(0x01, "in "), frametest.Mask(0x89, "ping"), frametest.Mask(0x80, "parts"), frametest.Mask(0x88, closeWith(1000)+"bye")}, nil), uint8(3), false)
	f.Add(append(frametest.Mask(0xc2, strings.Repeat("x", 70_000)), frametest.Mask(0x82, "")...), uint8(255), true)
	f.Add([]byte{0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4}, uint8(1), false)
	f.Add(bytes.Join([][]byte{frametest.Mask(0x01, "\xce\xba\xe1\xbd\xb9\xf4"), frametest.Mask(0x00, "\x8f"), frametest.Mask(0x80, "\xbf\xbf")}, nil), uint8(0), false)
	f.Add(bytes.Join([][]byte{frametest.Mask(0x01, "\xf4"), frametest.Mask(0x00, "\x90"), frametest.Mask(0x80, "\x80\x80")}, nil), uint8(0), false)
	f.Add(frametest.Mask(0x81, "long enough and \xed\xa0\x80 in it")[:24], uint8(255), false)
	f.Fuzz(func(t *testing.T, input []byte, piece uint8, deflates bool) {
		const limit = 1000
		var got, want record
		reader := NewReader(limit, deflates)
		rest := bytes.Clone(input)
		var bad *CloseError
		for len(rest) > 0 && bad == nil && !reader.Closed() {
			n := min(len(rest), int(piece)+1)
			_, bad = reader.Feed(rest[:n], &got)
			rest = rest[n:]
		}
		code := byOther(input, limit, deflates, &want)
		if bad != nil && bad.Code != code || bad == nil && code != 0 {
			t.Fatalf("error %v, the other says %d", bad, code)
		}
		if got.String() != want.String() {
			t.Fatalf("got\n%s\nthe other\n%s", got.String(), want.String())
		}
	})
}

// beginsUTF8 reports whether UTF-8 can begin with p, or is p, by trying what may follow.
func beginsUTF8(p []byte, whole bool) bool {
	for _, rest := range []string{"", "\x80", "\x80\x80", "\x80\x80\x80", "\x90\x80\x80", "\xa0\x80"} {
		if utf8.Valid(append(bytes.Clone(p), rest...)) {
			return rest == "" || !whole
		}
	}
	return false
}

// registered are the codes below 3000 that may be sent (IANA, WebSocket Close Code Number Registry).
const registered = "1000 1001 1002 1003 1007 1008 1009 1010 1011 1012 1013 1014"

// byOther reads frames with gobwas/ws, and returns the code of what is wrong.
func byOther(input []byte, limit int, deflates bool, to *record) (code Code) {
	o := &other{input: input, r: bytes.NewReader(input), limit: limit, deflates: deflates, to: to}
	for {
		if code, ended := o.frame(); ended {
			return code
		}
	}
}

// other reads frames with gobwas/ws.
type other struct {
	input    []byte
	r        *bytes.Reader
	limit    int
	deflates bool
	to       *record
	first    *ws.Header // of the message that has begun
	message  []byte     // its payload so far
}

// frame reads a frame, and reports whether the input ends with it. If something is wrong it returns the code.
func (o *other) frame() (code Code, ended bool) {
	at := len(o.input) - o.r.Len()
	h, err := ws.ReadHeader(o.r)
	if code, ended := o.checkHeader(o.input[at:], h, err); ended {
		return code, true
	}
	if isData(h) {
		o.first = &h
	}
	if o.tooBig(h) {
		return 1009, true
	}
	payload := make([]byte, min(h.Length, int64(o.r.Len())))
	io.ReadFull(o.r, payload)
	ws.Cipher(payload, h.Mask, 0)
	whole := int64(len(payload)) == h.Length
	if !h.OpCode.IsControl() && o.first.OpCode == ws.OpText && !hasRSV1(*o.first) && !beginsUTF8(append(bytes.Clone(o.message), payload...), whole && h.Fin) {
		return 1007, true
	} else if !whole {
		return 0, true
	}
	return o.deliver(h, payload)
}

func isData(h ws.Header) bool { return h.OpCode == ws.OpText || h.OpCode == ws.OpBinary }

func hasRSV1(h ws.Header) bool { return h.Rsv&4 != 0 }

// checkHeader judges a header that was read from input, or what is there of it.
func (o *other) checkHeader(input []byte, h ws.Header, err error) (code Code, ended bool) {
	short := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
	if short && len(input) < 2 {
		return 0, true
	}
	head := h
	if short {
		head = ws.Header{Fin: input[0]&0x80 != 0, Rsv: input[0] >> 4 & 7, OpCode: ws.OpCode(input[0] & 15), Masked: input[1]&0x80 != 0, Length: int64(input[1] & 0x7f)}
	}
	switch {
	case head.Rsv&3 != 0, hasRSV1(head) && !(o.deflates && isData(head)), !head.Masked,
		head.OpCode.IsReserved(),
		head.OpCode.IsControl() && (!head.Fin || head.Length > 125),
		isData(head) && o.first != nil, head.OpCode == ws.OpContinuation && o.first == nil:
		return 1002, true
	case short:
		return 0, true
	case err != nil: // a length over 2^63
		return 1002, true
	}
	size := input[1] & 0x7f
	if size == 126 && h.Length < 126 || size == 127 && h.Length < 1<<16 {
		return 1002, true
	}
	return 0, false
}

// tooBig returns whether a message becomes larger than the limit.
func (o *other) tooBig(h ws.Header) bool {
	if h.OpCode.IsControl() {
		return false
	}
	most := o.limit
	if hasRSV1(*o.first) {
		most += o.limit/1000 + 64
	}
	return h.Length > int64(most-len(o.message))
}

// deliver records what a whole frame is to the receiver.
func (o *other) deliver(h ws.Header, payload []byte) (code Code, ended bool) {
	switch {
	case h.OpCode == ws.OpPing, h.OpCode == ws.OpPong, len(payload) == 0 && !h.Fin:
		opcode := h.OpCode
		if isData(h) {
			opcode = ws.OpContinuation
		}
		o.to.Control(Opcode(opcode), payload)
	case h.OpCode == ws.OpClose:
		c, reason := ws.ParseCloseFrameData(payload)
		switch {
		case len(payload) == 0:
			c = 1005
		case len(payload) == 1 || !utf8.ValidString(reason) || !(c/1000 == 3 || c/1000 == 4 || slices.Contains(strings.Fields(registered), fmt.Sprint(c))):
			return 1002, true
		}
		o.to.Closed(Code(c))
		return 0, true
	case !h.OpCode.IsControl():
		o.message = append(o.message, payload...)
		if h.Fin {
			o.to.Message(Message{Opcode(o.first.OpCode), o.message, hasRSV1(*o.first), true, o.limit})
			o.message, o.first = nil, nil
		}
	}
	return 0, false
}
