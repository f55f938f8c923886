// Package client is the browser's half: ES modules that routes serve themselves.
package client

import (
	"bytes"
	"embed"
	"fmt"
	"net/http"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/protocol"
	"github.com/caddy-broadcast/caddy-broadcast/internal/protocol/v1"
)

// The newest version is the one that is generated. How to begin the next: CONTRIBUTING.md, "Release".
//go:generate go run github.com/evanw/esbuild/cmd/esbuild@v0.25.12 broadcast.js --bundle --minify --format=esm --target=es2022 --outfile=versions/1/broadcast.min.js
//go:generate go run github.com/evanw/esbuild/cmd/esbuild@v0.25.12 presence.js --bundle --minify --format=esm --target=es2022 --outfile=versions/1/presence.min.js

//go:embed versions/*/*.min.js
var files embed.FS

// served is what routes serve.
var served = load(files)

// Version returns the newest version of the client. All earlier ones are served too.
func Version() int { return served.newest }

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

// Wants reports whether a request is for one of the modules: its query is nothing but that. A version that does not exist is
// one too. Otherwise the next handler would respond with something that is not a module, and the page would not learn what is wrong.
func Wants(r *http.Request) bool {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return false
	}
	_, ok := parse(r.URL.RawQuery)
	return ok
}

// Serve responds with the module that the request wants. Pages of any origin may import it, because it is public code. A
// version that does not exist is an error, and nothing but headers has been written then.
func Serve(w http.ResponseWriter, r *http.Request) error {
	h := w.Header()
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Cross-Origin-Resource-Policy", "cross-origin")
	a, _ := parse(r.URL.RawQuery)
	m, ok := served.modules[a]
	if !ok {
		// Not even for a while: after an upgrade the version may exist.
		h.Set("Cache-Control", "no-store")
		return fmt.Errorf("there is no version %s of the client: this server has %s", a.version, served.has(a.name))
	}
	write(w, r, m, a.caching())
	return nil
}

// ServeNewest responds with the newest client, to pages of the same origin only.
func ServeNewest(w http.ResponseWriter, r *http.Request) {
	write(w, r, served.modules[address{}], address{}.caching())
}

func write(w http.ResponseWriter, r *http.Request, m module, caching string) {
	h := w.Header()
	h.Set("Content-Type", "text/javascript; charset=utf-8")
	h.Set("Cache-Control", caching)
	h.Set("Etag", m.etag)
	h.Set("X-Content-Type-Options", "nosniff")
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(m.data))
}
