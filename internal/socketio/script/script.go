// Package script is the client of Socket.IO for browsers. Servers of Socket.IO serve it next to their sessions, and pages load
// it from there. The files are those of the npm package socket.io-client 4.8.4, in dist, unchanged; see LICENSE.
package script

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"net/http"
	"path"
	"time"
)

//go:embed socket.io.min.js
var classic []byte

//go:embed socket.io.esm.min.js
var module []byte

// file is a file that pages load.
type file struct {
	data []byte
	etag string
}

func newFile(data []byte) file {
	sum := sha256.Sum256(data)
	return file{data, `"` + hex.EncodeToString(sum[:12]) + `"`}
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
	h.Set("Etag", f.etag)
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Cross-Origin-Resource-Policy", "cross-origin")
	h.Set("X-Content-Type-Options", "nosniff")
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(f.data))
	return nil
}
