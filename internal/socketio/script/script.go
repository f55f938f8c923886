// Package script is the client of Socket.IO for browsers. Servers of Socket.IO serve it next to their sessions, and pages load
// it from there. The files are those of the npm package socket.io-client 4.8.4, in dist, compressed with gzip -9n; see LICENSE.
// A test in package npm compares them.
package script

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"io"
	"net/http"
	"path"
	"slices"
	"strconv"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp/encode"
)

//go:embed socket.io.min.js.gz
var classic []byte

//go:embed socket.io.esm.min.js.gz
var module []byte

// file is a file that pages load.
type file struct {
	compressed []byte
	tag        string
}

func newFile(compressed []byte) file {
	sum := sha256.Sum256(compressed)
	return file{compressed, hex.EncodeToString(sum[:12])}
}

// files are those that the reference serves, by their names. The one that it has for developers is the short one here: nobody
// debugs it.
var files = map[string]file{
	"socket.io.js":         newFile(classic),
	"socket.io.min.js":     newFile(classic),
	"socket.io.esm.min.js": newFile(module),
}

// Wants reports whether a request is for one of the files.
func Wants(r *http.Request) bool {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return false
	}
	_, ok := files[path.Base(r.URL.Path)]
	return ok
}

// Serve responds with the file. Pages of any origin may load it, because it is public code.
func Serve(w http.ResponseWriter, r *http.Request) error {
	f := files[path.Base(r.URL.Path)]
	h := w.Header()
	h.Set("Content-Type", "text/javascript; charset=utf-8")
	h.Set("Cache-Control", "public, max-age=604800")
	h.Set("Vary", "Accept-Encoding")
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Cross-Origin-Resource-Policy", "cross-origin")
	h.Set("X-Content-Type-Options", "nosniff")
	data, etag := f.compressed, `"`+f.tag+`-gzip"`
	if slices.Contains(encode.AcceptedEncodings(r, []string{"gzip"}), "gzip") {
		h.Set("Content-Encoding", "gzip")
	} else {
		// For programs: all browsers take gzip.
		var err error
		if data, err = decompress(data); err != nil {
			return err
		}
		etag = `"` + f.tag + `"`
	}
	h.Set("Etag", etag)
	h.Set("Content-Length", strconv.Itoa(len(data))) // ServeContent sets none for what is encoded
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
	return nil
}

func decompress(p []byte) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(p))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(z)
}
