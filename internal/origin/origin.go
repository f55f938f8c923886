// Package origin decides which pages may use a route: a browser names the page's origin in a header (RFC 6454), and
// sends WebSocket handshakes and simple posts to any server without asking it.
package origin

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// Pattern is a set of origins.
type Pattern struct {
	any      bool
	scheme   string // "" is any
	host     string // lower case, without the port
	wildcard bool   // host and all below it, but not itself
	port     string // "" is the scheme's own
}

// Parse reads a pattern: "*", an origin as in the header ("https://example.com"), one without the scheme for any
// ("example.com:8080"), or either with "*." before the host for all hosts below it; or "null", the origin of
// sandboxed pages and of files.
func Parse(s string) (Pattern, error) {
	switch s {
	case "*":
		return Pattern{any: true}, nil
	case "null":
		return Pattern{scheme: "null"}, nil
	}
	var p Pattern
	rest := s
	if scheme, after, ok := strings.Cut(s, "://"); ok {
		p.scheme, rest = strings.ToLower(scheme), after
		if p.scheme == "" {
			return Pattern{}, fmt.Errorf("origin %q has no scheme before ://", s)
		}
	}
	rest, p.wildcard = strings.CutPrefix(rest, "*.")
	if strings.Contains(rest, "*") {
		return Pattern{}, fmt.Errorf("origin %q: * stands alone, or as *. before a host", s)
	}
	u, err := url.Parse("//" + rest)
	if err != nil {
		return Pattern{}, fmt.Errorf("origin %q: %v", s, err)
	}
	if u.Hostname() == "" || u.User != nil || u.Host != rest {
		return Pattern{}, fmt.Errorf("origin %q is not [scheme://]host[:port]", s)
	}
	p.host, p.port = strings.ToLower(u.Hostname()), u.Port()
	if p.port == defaultPort(p.scheme) {
		p.port = ""
	}
	return p, nil
}

// Verdict says why a request may come from the page it comes from, if it may.
type Verdict int

// Verdicts.
const (
	Denied     Verdict = iota
	SameOrigin         // it comes from no page, or from one of the server it goes to
	Any                // only because any page may
	Named              // a pattern names its page
)

// Check says whether the request may come from the page it comes from. The page's own server is always allowed, others
// as the patterns say. It is the page's own by the Host header, or because the browser says so: a proxy in front may
// have changed the Host header.
//
// Without an Origin header the request comes from no page, unless the browser says that it does (Fetch Metadata, section
// 2.3): it sends no Origin with a GET whose answer the page may not read. Which page that is it does not say, so no
// pattern but * lets it in.
func Check(r *http.Request, patterns []Pattern) Verdict {
	values := r.Header["Origin"]
	site := r.Header.Get("Sec-Fetch-Site")
	switch {
	case len(values) > 1:
		return Denied
	case len(values) == 1:
	case site != "cross-site" && site != "same-site":
		return SameOrigin
	case slices.ContainsFunc(patterns, func(p Pattern) bool { return p.any }):
		return Any
	default:
		return Denied
	}
	u, err := url.Parse(values[0])
	if values[0] == "null" {
		u = nil
	} else if err != nil || u.Scheme == "" || u.Hostname() == "" || u.User != nil {
		return Denied
	} else if r.TLS != nil && u.Scheme == "http" {
		// Not the page's own: whoever is on the way can write http pages.
	} else if sameHost(u, r.Host) || site == "same-origin" {
		return SameOrigin
	}
	verdict := Denied
	for _, p := range patterns {
		switch {
		case p.any:
			verdict = Any
		case p.matches(u):
			return Named
		}
	}
	return verdict
}

// HostChanged reports whether a request looks like one of the server's own page that came through a proxy which has
// changed the Host header.
func HostChanged(r *http.Request) bool {
	u, err := url.Parse(r.Header.Get("Origin"))
	if err != nil || u.Hostname() == "" || sameHost(u, r.Host) {
		return false
	}
	return r.Header.Get("Sec-Fetch-Site") == "same-origin" || sameHost(u, r.Header.Get("X-Forwarded-Host"))
}

// SetHeaders tells a browser that a page of another origin may read the answer (Fetch Standard, section 3.3): with its
// user's credentials only if the page is named.
func (v Verdict) SetHeaders(h http.Header, r *http.Request) {
	switch v {
	case Any:
		h.Set("Access-Control-Allow-Origin", "*")
	case Named:
		h.Set("Access-Control-Allow-Origin", r.Header.Get("Origin"))
		h.Set("Access-Control-Allow-Credentials", "true")
	}
	h.Add("Vary", "Origin")
}

// IsPreflight says whether a browser asks whether it may send a request.
func IsPreflight(r *http.Request) bool {
	return r.Method == http.MethodOptions && r.Header.Get("Origin") != "" && r.Header.Get("Access-Control-Request-Method") != ""
}

// sameHost compares an origin with a Host header. The scheme is not compared: behind a proxy that ends TLS we do not
// know our own.
func sameHost(u *url.URL, host string) bool {
	h, err := url.Parse("//" + host)
	if err != nil || h.Host != host || !strings.EqualFold(u.Hostname(), h.Hostname()) {
		return false
	}
	own := defaultPort(u.Scheme)
	return portOr(u, own) == portOr(h, own)
}

// matches says whether the pattern names the origin; nil is null.
func (p Pattern) matches(u *url.URL) bool {
	if u == nil || p.scheme == "null" {
		return u == nil && p.scheme == "null"
	}
	if p.scheme != "" && p.scheme != u.Scheme { // url.Parse has lowered it
		return false
	}
	own := defaultPort(u.Scheme)
	want := p.port
	if want == "" {
		want = own
	}
	if portOr(u, own) != want {
		return false
	}
	host := strings.ToLower(u.Hostname())
	if p.wildcard {
		below, ok := strings.CutSuffix(host, "."+p.host)
		return ok && below != ""
	}
	return host == p.host
}

func portOr(u *url.URL, own string) string {
	if p := u.Port(); p != "" {
		return p
	}
	return own
}

func defaultPort(scheme string) string {
	switch scheme {
	case "http", "ws":
		return "80"
	case "https", "wss":
		return "443"
	}
	return ""
}
