// Package frametest makes frames as clients send them, also wrong ones, and reads those of the server. It is made of
// another implementation of RFC 6455, so that a test does not repeat an error of package frame.
package frametest

import (
	"bytes"
	"compress/flate"
	"fmt"
	"io"
	"strings"

	"github.com/gobwas/ws"
)

// maxRead is the longest frame that Read accepts: no test makes the server send more at once.
const maxRead = 64 << 20

// Read reads a frame of the server, which does not mask. It exists because ws.ReadFrame is deprecated, since that reads
// whatever length a frame announces.
func Read(r io.Reader) (f ws.Frame, err error) {
	if f.Header, err = ws.ReadHeader(r); err != nil {
		return f, err
	}
	if f.Header.Length > maxRead {
		return f, fmt.Errorf("a frame of %d bytes", f.Header.Length)
	}
	f.Payload = make([]byte, f.Header.Length)
	_, err = io.ReadFull(r, f.Payload)
	return f, err
}

// Mask makes a client's frame. Its first byte is taken as it is: the FIN bit, the reserved bits and the opcode.
func Mask(first byte, payload string) []byte {
	h := ws.Header{Fin: first&0x80 != 0, Rsv: first >> 4 & 7, OpCode: ws.OpCode(first & 0x0f), Length: int64(len(payload))}
	return ws.MustCompileFrame(ws.MaskFrameWith(ws.Frame{Header: h, Payload: []byte(payload)}, [4]byte{1, 2, 3, 4}))
}

// Deflate makes the payload of a compressed message. RFC 7692, section 7.2.1, omits the end of the last block.
func Deflate(s string) string {
	var b bytes.Buffer
	w, _ := flate.NewWriter(&b, flate.BestCompression) // fails only for a level that does not exist
	io.WriteString(w, s)
	w.Flush()
	return strings.TrimSuffix(b.String(), "\x00\x00\xff\xff")
}
