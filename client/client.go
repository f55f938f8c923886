// Package client is the browser's half: an ES module that routes serve themselves.
package client

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"net/http"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/protocol"
	"github.com/caddy-broadcast/caddy-broadcast/internal/protocol/v1"
)

//go:generate go run github.com/evanw/esbuild/cmd/esbuild@v0.25.12 broadcast.js --bundle --minify --format=esm --target=es2022 --outfile=broadcast.min.js

//go:embed broadcast.min.js
var module []byte

var etag = func() string {
	sum := sha256.Sum256(module)
	return `"` + hex.EncodeToString(sum[:12]) + `"`
}()

// Asks reports whether a request asks only whether the route lets the client in: a GET that names broadcast.v1 in its
// query, and is neither a WebSocket's nor an event stream's. The client sends it when a connection fails, because browsers
// do not tell pages why.
func Asks(r *http.Request) bool {
	return r.Method == http.MethodGet && r.URL.Query().Get(protocol.QueryParameter) == v1.Name
}

// Admit responds to such a request from a client that may connect.
func Admit(w http.ResponseWriter) error {
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// Wants reports whether a request is for the module: its query is just the word client.
func Wants(r *http.Request) bool {
	return r.URL.RawQuery == "client" && (r.Method == http.MethodGet || r.Method == http.MethodHead)
}

// Serve responds with the module. Pages of any origin may import it, because it is public code.
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
