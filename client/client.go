// Package client is the browser's half: an ES module that a route serves itself.
package client

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"net/http"
	"time"
)

//go:generate go run github.com/evanw/esbuild/cmd/esbuild@v0.25.12 broadcast.js --minify --format=esm --target=es2022 --outfile=broadcast.min.js

//go:embed broadcast.min.js
var module []byte

var etag = func() string {
	sum := sha256.Sum256(module)
	return `"` + hex.EncodeToString(sum[:12]) + `"`
}()

// Wants says whether a request is one for the module: its query is the word client alone.
func Wants(r *http.Request) bool {
	return r.URL.RawQuery == "client" && (r.Method == http.MethodGet || r.Method == http.MethodHead)
}

// Serve answers a request with the module. Pages of any origin may import it.
func Serve(w http.ResponseWriter, r *http.Request) error {
	h := w.Header()
	h.Set("Content-Type", "text/javascript; charset=utf-8")
	h.Set("Cache-Control", "public, max-age=604800")
	h.Set("Etag", etag)
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Cross-Origin-Resource-Policy", "cross-origin")
	h.Set("X-Content-Type-Options", "nosniff")
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(module))
	return nil
}
