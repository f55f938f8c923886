package inspector

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"

	"github.com/caddyserver/caddy/v2"
)

// Handler serves the page, and forwards the page's requests to the admin API. It accepts requests only for host, which is that
// of the listener. The admin endpoint itself rejects a browser that navigates to it, because such a request has no Origin header.
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
			// Caddy compares the origin of a request that has Origin or Sec-Fetch-Mode with the endpoint's own, and would
			// reject this page's (adminHandler.serveHTTP in caddy's admin.go). So the request goes on without what shows
			// that a browser sent it. sameOriginOnly has checked it already.
			for name := range r.Out.Header {
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
			// The commands that the page shows for a shell name the endpoint itself, because this server ends with its command.
			if !addr.IsUnixNetwork() {
				r.Header.Set("Broadcast-Admin", target.String())
			}
			return nil
		},
		// The page tells people when Caddy is gone. It asks every second, so the log of this command would be full of it.
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusBadGateway)
			// The page is gone if this fails, and there is nobody else to tell.
			_ = json.NewEncoder(w).Encode(map[string]string{"error": fmt.Sprintf("Caddy does not answer at %s (%v)", admin, cause(err))})
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
	return sameOriginOnly(host, mux), nil
}

// cause leaves out of an error what the message around it says: the address, and that it was dialed.
func cause(err error) error {
	if e, ok := errors.AsType[*os.SyscallError](err); ok {
		return e.Err
	}
	return err
}

// sameOriginOnly rejects requests that do not come from the inspector's page. A page of another origin is known by Origin or
// Sec-Fetch-Site. One whose name was made to resolve to this machine (DNS rebinding) is of the same origin to the browser,
// and is known by Host. The port in Host is another one than the listener's if it was forwarded, as by ssh -L.
func sameOriginOnly(host string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		origin, site := r.Header.Get("Origin"), r.Header.Get("Sec-Fetch-Site")
		if !isLoopback(r.Host) || origin != "" && origin != "http://"+r.Host || site != "" && site != "same-origin" && site != "none" {
			http.Error(w, "only the inspector's own page, at http://"+host+", may ask", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// isLoopback reports whether a Host header is a name or an address of this machine that nobody can have resolve to it for a page
// of theirs. Browsers resolve localhost themselves (W3C Secure Contexts, section 3.1).
func isLoopback(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	return name == "localhost" || net.ParseIP(strings.Trim(name, "[]")).IsLoopback()
}
