// Package inspector is a page that shows the hub of a running Caddy, and publishes, by its admin API. The admin endpoint
// serves it, but answers no browser that navigates to it, unless its origins have an empty one. So there is a server
// for the page, too, on this machine, which passes on what the page asks the API.
package inspector

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"mime"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"path"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-broadcast/caddy-broadcast/client"
)

//go:embed index.html ui.css ui.js
var files embed.FS

// Nothing comes from elsewhere, and nothing in the page runs but its own files.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// Page serves the page's files. Where says where the admin endpoint is: its "url", and its "socket" if that is a unix
// socket.
func Page(where func(*http.Request) map[string]string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /admin", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(where(r))
	})
	mux.HandleFunc("GET /broadcast.js", func(w http.ResponseWriter, r *http.Request) { client.Serve(w, r) })
	mux.HandleFunc("GET /", file)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("Referrer-Policy", "same-origin") // the admin endpoint asks for it
		h.Set("X-Content-Type-Options", "nosniff")
		mux.ServeHTTP(w, r)
	})
}

// Handler serves the page, and passes on what it asks, for requests to the host of the listener alone.
func Handler(host, admin string) (http.Handler, error) {
	addr, err := caddy.ParseNetworkAddress(admin)
	if err != nil {
		return nil, fmt.Errorf("the admin address %q: %w", admin, err)
	}
	target := &url.URL{Scheme: "http", Host: addr.JoinHostPort(0)}
	if addr.IsUnixNetwork() {
		target.Host = "localhost"
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			for name := range r.Out.Header { // to the admin endpoint it is no browser who asks: that was checked here
				if name == "Origin" || name == "Referer" || name == "Cookie" || strings.HasPrefix(name, "Sec-") {
					delete(r.Out.Header, name)
				}
			}
		},
		Transport: &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			if addr.IsUnixNetwork() {
				network, address = addr.Network, addr.Host
			}
			return new(net.Dialer).DialContext(ctx, network, address)
		}},
	}
	where := map[string]string{"url": target.String()}
	if addr.IsUnixNetwork() {
		where["socket"] = addr.Host
	}
	mux := http.NewServeMux()
	mux.Handle("/broadcast", proxy)
	mux.Handle("/broadcast/", proxy)
	mux.Handle("/", Page(func(*http.Request) map[string]string { return where }))
	return own(host, mux), nil
}

// own lets only the page itself ask: not other pages, nor names that somebody points here (DNS rebinding).
func own(host string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		origin, site := r.Header.Get("Origin"), r.Header.Get("Sec-Fetch-Site")
		if r.Host != host || origin != "" && origin != "http://"+host || site != "" && site != "same-origin" && site != "none" {
			http.Error(w, "only the inspector's own page, at http://"+host+", may ask", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func file(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(r.URL.Path, "/")
	if name == "" {
		name = "index.html"
	}
	data, err := files.ReadFile(name)
	if err != nil {
		http.NotFound(w, r)
		return
	}
	sum := sha256.Sum256(data)
	w.Header().Set("Etag", `"`+hex.EncodeToString(sum[:12])+`"`)
	w.Header().Set("Cache-Control", "no-cache")
	w.Header().Set("Content-Type", mime.TypeByExtension(path.Ext(name)))
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
}
