// Package inspector is a page that shows what the hub does. Caddy's admin endpoint serves it, and so does the command
// `caddy broadcast ui`, whose server also passes on what the page asks of the admin API.
package inspector

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"path"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-broadcast/caddy-broadcast/client"
)

// Prefix is where the page is: its files, and the browser's client.
const Prefix = "/broadcast/ui/"

//go:embed assets
var assets embed.FS

// types are the files' types, by their extensions. Package mime is not asked, because it reads the system's table, and on
// Windows any program can change that: it is known to say text/plain for JavaScript (golang/go#32350), which browsers then
// refuse to run.
var types = map[string]string{
	".html": "text/html; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
}

// policy is the second line of defense. Messages and names come from strangers, and the page only ever shows them as text. If
// one became markup by an error of ours, it still could not load, run or send anything.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// Serve answers a request with a file of the page.
func Serve(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		return caddy.APIError{
			HTTPStatus: http.StatusMethodNotAllowed,
			Err:        fmt.Errorf("method %s is not allowed, only GET", r.Method),
		}
	}
	h := w.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	// With the Etag below this costs a request, and after an upgrade of Caddy no part of the page is an old one.
	h.Set("Cache-Control", "no-cache")

	name := strings.TrimPrefix(r.URL.Path, Prefix)
	switch name {
	case "broadcast.js":
		// Not as a route serves it: pages of other origins may not load this one.
		client.ServeNewest(w, r)
		return nil
	case "":
		name = "index.html"
	}
	data, err := assets.ReadFile("assets/" + name)
	if err != nil {
		return caddy.APIError{HTTPStatus: http.StatusNotFound, Err: errors.New("the inspector has no such file")}
	}
	sum := sha256.Sum256(data)
	h.Set("Etag", `"`+hex.EncodeToString(sum[:12])+`"`)
	h.Set("Content-Type", types[path.Ext(name)])
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
	return nil
}
