package client

import (
	"bytes"
	"compress/gzip"
	"testing"
)

// TestSize: the module that every page loads stays small, and the one with presence adds little to it. .ci/run checks that they match
// their sources.
func TestSize(t *testing.T) {
	for name, limit := range map[string]struct{ size, gzipped int }{
		query:               {3584, 1945}, // 3.5 and 1.9 KiB
		query + "=presence": {4352, 2252}, // 4.25 and 2.2 KiB
	} {
		data := modules[name].data
		if n := len(data); n > limit.size {
			t.Errorf("?%s has %d bytes, more than %d", name, n, limit.size)
		}
		var b bytes.Buffer
		w, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
		if err != nil {
			t.Fatal(err)
		}
		w.Write(data)
		w.Close()
		if n := b.Len(); n > limit.gzipped {
			t.Errorf("?%s has %d bytes gzipped, more than %d", name, n, limit.gzipped)
		}
	}
}
