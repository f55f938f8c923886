package client

import (
	"bytes"
	"compress/gzip"
	"testing"
)

// TestSize: the module that every page loads stays small. .ci/run checks that it matches broadcast.js.
func TestSize(t *testing.T) {
	if n := len(module); n > 3584 {
		t.Errorf("the module has %d bytes, more than 3.5 KiB", n)
	}
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	w.Write(module)
	w.Close()
	if n := b.Len(); n > 1945 { // 1.9 KiB
		t.Errorf("gzipped it has %d bytes, which is not 1.9 KiB any more", n)
	}
}
