package wire

import (
	"bytes"
	"compress/flate"
	"sync"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
)

// deflated is the key of a message's deflated data, which every connection shares.
type deflated struct{}

// Each deflater holds about 800 KiB, so they are few and lent.
var deflaters = sync.Pool{New: func() any {
	w, _ := flate.NewWriter(nil, flate.DefaultCompression) // errs on a bad level only
	return w
}}

// deflateData is deflate for a message's data.
func deflateData(m *hub.Message) []byte { return deflate(m.Data) }

// deflate compresses a frame's payload as one that stands alone (RFC 7692, section 7.2.1, without context takeover).
func deflate(data []byte) []byte {
	w := deflaters.Get().(*flate.Writer)
	defer deflaters.Put(w)
	var b bytes.Buffer
	w.Reset(&b)
	w.Write(data) // a bytes.Buffer takes everything
	w.Flush()
	return bytes.TrimSuffix(b.Bytes(), []byte{0, 0, 0xff, 0xff})
}
