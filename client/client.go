// Package client is the browser's half: ES modules that routes serve themselves.
package client

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"net/http"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/protocol"
	"github.com/caddy-broadcast/caddy-broadcast/internal/protocol/v1"
)

//go:generate go run github.com/evanw/esbuild/cmd/esbuild@v0.25.12 broadcast.js --bundle --minify --format=esm --target=es2022 --outfile=broadcast.min.js
//go:generate go run github.com/evanw/esbuild/cmd/esbuild@v0.25.12 presence.js --bundle --minify --format=esm --target=es2022 --outfile=presence.min.js

//go:embed broadcast.min.js presence.min.js
var files embed.FS

// module is a file that pages import.
type module struct {
	data []byte
	etag string
}

func load(name string) module {
	data, err := files.ReadFile(name)
	if err != nil {
		panic(err) // the names are embedded
	}
	sum := sha256.Sum256(data)
	return module{data, `"` + hex.EncodeToString(sum[:12]) + `"`}
}

// query is that of a request for the client. With presence it is another module, which contains the client.
const query = "client"

// modules are the client's, by the queries that request them.
var modules = map[string]module{
	query:               load("broadcast.min.js"),
	query + "=presence": load("presence.min.js"),
}

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

// Wants reports whether a request is for one of the modules: its query is nothing but that.
func Wants(r *http.Request) bool {
	_, ok := modules[r.URL.RawQuery]
	return ok && (r.Method == http.MethodGet || r.Method == http.MethodHead)
}

// Serve responds with the module that the request wants, or else with the client. Pages of any origin may import it, because it is
// public code.
func Serve(w http.ResponseWriter, r *http.Request) error {
	m, ok := modules[r.URL.RawQuery]
	if !ok {
		m = modules[query]
	}
	h := w.Header()
	h.Set("Content-Type", "text/javascript; charset=utf-8")
	h.Set("Cache-Control", "public, max-age=604800")
	h.Set("Etag", m.etag)
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Cross-Origin-Resource-Policy", "cross-origin")
	h.Set("X-Content-Type-Options", "nosniff")
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(m.data))
	return nil
}
