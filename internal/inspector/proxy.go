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
)

// Handler serves the page, and passes on to the admin API what the page asks, for requests to the host of the listener
// alone. The admin endpoint itself rejects a browser that navigates to it, because such a request has no Origin header.
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
	mux.HandleFunc(Prefix, func(w http.ResponseWriter, r *http.Request) {
		if err := Serve(w, r); err != nil {
			http.Error(w, err.Error(), http.StatusNotFound)
		}
	})
	mux.Handle("/{$}", http.RedirectHandler(Prefix, http.StatusFound))
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
