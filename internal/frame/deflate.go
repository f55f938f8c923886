package frame

import (
	"bytes"
	"compress/flate"
	"errors"
	"io"
	"sync"
)

// deflaters are lent and not kept by connections, because each holds about 800 KiB.
var deflaters = sync.Pool{New: func() any {
	w, _ := flate.NewWriter(nil, flate.DefaultCompression) // fails on an invalid level only
	return w
}}

// syncMarker is what ends a flush. It is not sent (RFC 7692, section 7.2.1).
var syncMarker = []byte{0, 0, 0xff, 0xff}

// Deflate compresses a message without context takeover: it needs no other message to be inflated (RFC 7692, section
// 7.2.1). So one compressed form serves all clients.
func Deflate(data []byte) []byte {
	w := deflaters.Get().(*flate.Writer)
	defer deflaters.Put(w)
	var b bytes.Buffer // it is kept with the message, for all connections, so it is not pooled
	w.Reset(&b)
	w.Write(data) // writing to a bytes.Buffer cannot fail
	w.Flush()
	return bytes.TrimSuffix(b.Bytes(), syncMarker)
}

var (
	// inflaters are lent too: each holds a window of 32 KiB.
	inflaters = sync.Pool{New: func() any { return flate.NewReader(nil) }}

	// inflateTail ends the message with the marker that was not sent, and then the stream with an empty last block, so
	// that the reader sees an end.
	inflateTail = []byte{0, 0, 0xff, 0xff, 1, 0, 0, 0xff, 0xff}
)

// inflate undoes Deflate (RFC 7692, section 7.2.2). It stops one byte beyond the limit, so that the caller can tell that
// there is more: a few bytes can inflate to gigabytes.
func inflate(data []byte, limit int) ([]byte, error) {
	r := inflaters.Get().(io.ReadCloser)
	defer inflaters.Put(r)
	if err := r.(flate.Resetter).Reset(io.MultiReader(bytes.NewReader(data), bytes.NewReader(inflateTail)), nil); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	_, err := io.Copy(&b, io.LimitReader(r, int64(limit)+1))
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if data := b.Bytes(); cap(data) > 2*len(data) {
		return bytes.Clone(data), nil // the message may be kept in the history, and with it the buffer's unused half
	}
	return b.Bytes(), nil
}
