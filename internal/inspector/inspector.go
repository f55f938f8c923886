// Package inspector is a server for the inspector's page, on this machine, which passes on what the page asks the admin
// API: the admin endpoint itself answers no browser that navigates to it, unless its origins have an empty one.
package inspector

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-broadcast/caddy-broadcast/internal/admin/ui"
)

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
		ModifyResponse: func(r *http.Response) error {
			if !addr.IsUnixNetwork() { // what the page shows for a shell goes there, for this server ends with its command
				r.Header.Set("Broadcast-Admin", target.String())
			}
			return nil
		},
	}
	mux := http.NewServeMux()
	mux.Handle("/broadcast", proxy)
	mux.Handle("/broadcast/", proxy)
	mux.HandleFunc(ui.Prefix, func(w http.ResponseWriter, r *http.Request) {
		if err := ui.Serve(w, r); err != nil {
			http.Error(w, err.Error(), http.StatusNotFound)
		}
	})
	mux.Handle("/{$}", http.RedirectHandler(ui.Prefix, http.StatusFound))
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
