// Package origin decides which pages may use a route. A browser sends WebSocket handshakes and simple POSTs to any server
// without asking it first, so the server has to check the page's origin, which the browser puts in a header (RFC 6454).
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
	host     string // in lower case, without the port
	wildcard bool   // matches all subdomains of host, but not host itself
	port     string // "" is the scheme's default
}

// Parse parses a pattern. It is one of:
//   - "*" for any origin
//   - an origin as in the header, such as "https://example.com"
//   - an origin without a scheme, for any scheme, such as "example.com:8080"
//   - one of these two with "*." before the host, for all its subdomains
//   - "null", the origin of sandboxed pages and of files
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
		return Pattern{}, fmt.Errorf("origin %q: * may only be used alone or as *. before a host", s)
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

// Verdict is whether a page may send a request, and why.
type Verdict int

// Verdicts.
const (
	Denied     Verdict = iota
	SameOrigin         // it comes from no page, or from a page of the server it goes to
	Any                // only because any page may
	Named              // a pattern names its page
)

// Check decides whether the request may come from the page it comes from. A page may always use its own server, and others
// if a pattern allows it. The server is the page's own if the Host header agrees, or if the browser says so, because a
// proxy in front may have changed the Host header.
//
// A request without an Origin header comes from no page, unless the browser says that it does (Fetch Metadata, section
// 2.3). Browsers send no Origin with a GET whose response the page may not read. Then the page is unknown, so only the
// pattern * allows it.
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
		// Not the same server: a man in the middle can forge pages served over plain HTTP.
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

// HostChanged reports whether a request seems to come from a page of the same server, through a proxy that changed the Host
// header.
func HostChanged(r *http.Request) bool {
	from := r.Header.Get("Origin")
	if from == "" {
		return false // as from programs, for whose sake nothing is parsed
	}
	u, err := url.Parse(from)
	if err != nil || u.Hostname() == "" || sameHost(u, r.Host) {
		return false
	}
	return r.Header.Get("Sec-Fetch-Site") == "same-origin" || sameHost(u, r.Header.Get("X-Forwarded-Host"))
}

// SetHeaders lets a page of another origin read the response (Fetch Standard, section 3.3). A request with the user's
// credentials only has a response for the page if a pattern names its origin.
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

// IsPreflight reports whether a request is a CORS preflight, with which a browser asks whether a page may send a request.
func IsPreflight(r *http.Request) bool {
	return r.Method == http.MethodOptions && r.Header.Get("Origin") != "" && r.Header.Get("Access-Control-Request-Method") != ""
}

// sameHost reports whether an origin and a Host header have the same host and port. It does not compare schemes, because
// behind a proxy that terminates TLS the server does not know its own.
func sameHost(u *url.URL, host string) bool {
	h, err := url.Parse("//" + host)
	if err != nil || h.Host != host || !strings.EqualFold(u.Hostname(), h.Hostname()) {
		return false
	}
	own := defaultPort(u.Scheme)
	return portOr(u, own) == portOr(h, own)
}

// matches reports whether the pattern matches the origin u, or the origin "null" if u is nil.
func (p Pattern) matches(u *url.URL) bool {
	if u == nil || p.scheme == "null" {
		return u == nil && p.scheme == "null"
	}
	if p.scheme != "" && p.scheme != u.Scheme { // url.Parse returns it in lower case
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
