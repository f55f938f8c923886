package doctor

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// route looks at whether there is a route, and whether it would let this client in.
var route = Check{
	Name: "route", About: "whether there is a route, and whether it lets the client in", needs: aServer,
	run: func(ctx context.Context, x *exam) []Finding {
		resp, err := x.probe(ctx, x.page, nil)
		if err != nil {
			return []Finding{noResponse(x, err)}
		}
		x.version = resp.ProtoMajor
		if v := resp.Header.Get("Alt-Svc"); v != "" {
			x.altSvc = v
		}
		if resp.StatusCode == http.StatusNoContent {
			x.has[aRoute] = true
			x.proxy = proxyOf(resp.Header)
			return []Finding{ok("the route at %s would let the client connect", visible(x.path()))}
		}
		return []Finding{x.rejection(ctx, resp)}
	},
}

// proxyOf returns what the headers of a response tell of a proxy, or "". In the route's own response that is in front of Caddy. In a
// rejection it may be behind it: forward_auth passes on what the app responds, with a Via of this Caddy.
func proxyOf(h http.Header) string {
	// Caddy as a proxy adds a Via, and others put their own name in place of Caddy's.
	if v := h.Get("Via"); v != "" {
		return "a proxy (Via: " + visible(v) + ")"
	} else if v := h.Get("Server"); v != "" && v != "Caddy" {
		return "a proxy (Server: " + visible(v) + ")"
	}
	return ""
}

// noResponse says why a request got no response.
func noResponse(x *exam, err error) Finding {
	if errors.Is(err, context.DeadlineExceeded) {
		return problem("the server accepts the connection, and does not respond within %s", x.Wait).fixedBy(
			"look at what listens on port " + x.port + ": it may wait for a backend of its own")
	}
	// A server for TLS responds to plain HTTP with a 400, and some close the connection.
	if !x.secure && strings.Contains(err.Error(), "malformed HTTP response") {
		u := *x.URL
		u.Scheme = "https"
		return problem("port %s does not speak HTTP, but perhaps TLS: %v", x.port, err).fixedBy("use " + u.Redacted())
	}
	return problem("the request got no response: %v", err).fixedBy("look for the reason in the log of what listens on port " + x.port)
}

// rejection says why a request to the route got this response, and not the route's.
func (x *exam) rejection(ctx context.Context, r response) Finding {
	why := visible(r.Status)
	if reason := r.reason(); reason != "" {
		why += ": " + reason
		x.rejected = r.StatusCode >= 400
	}
	switch code := r.StatusCode; {
	case code >= 300 && code < 400:
		return x.redirected(r)
	case code == http.StatusUnauthorized:
		return x.unauthorized(r, why)
	case code == http.StatusForbidden:
		return x.forbidden(ctx, r, why)
	case code < 300 && r.isPage():
		return x.aPage(ctx, r, why)
	case code < 300 || code == http.StatusNotFound || code == http.StatusMethodNotAllowed || code == http.StatusUpgradeRequired:
		return x.noRoute(ctx, r, why)
	case code == http.StatusBadRequest && (strings.Contains(r.text, "HTTPS server") || strings.Contains(r.text, "HTTPS port")): // Go's and nginx's
		u := *x.URL
		u.Scheme = "https"
		return problem("port %s speaks TLS", x.port).fixedBy("use " + u.Redacted())
	case code == http.StatusTooManyRequests || code == http.StatusServiceUnavailable && r.Header.Get("Retry-After") != "":
		return problem("the server has no room for another client (%s)", why).fixedBy(
			"wait, or raise the limit: max_connections of the route or in the global options, and what limits requests in front of it")
	case code == http.StatusBadGateway || code == http.StatusServiceUnavailable || code == http.StatusGatewayTimeout:
		return problem("a proxy in front does not reach Caddy (%s)", why).fixedBy("start Caddy, and have the proxy forward to an address on which it listens"+x.listens(ctx),
			caddyfile("the proxy's site", "reverse_proxy localhost:8080"), nginx("location "+x.path(), "proxy_pass http://localhost:8080;"))
	}
	return problem("the request got the response %s", why).fixedBy("look for the reason in Caddy's log, and in the logs of proxies in front")
}

// redirected says where a redirect leads.
func (x *exam) redirected(r response) Finding {
	to, err := x.URL.Parse(r.Header.Get("Location"))
	if err != nil {
		to = &url.URL{}
	}
	found := problem("the server redirects to %s (%s), and browsers follow no redirect when they open a WebSocket", visible(to.Redacted()), visible(r.Status))
	if to.Path != x.URL.Path && strings.TrimSuffix(to.Path, "/") != strings.TrimSuffix(x.URL.Path, "/") {
		return found.fixedBy("if this is a login, log in and give doctor the cookie; let the authentication respond with a 401 to requests of the route",
			shell("caddy broadcast doctor --header 'Cookie: <name>=<value>' "+x.URL.Redacted()))
	}
	q := to.Query()
	q.Del("protocol")
	to.RawQuery = q.Encode()
	return found.fixedBy("use the address that it redirects to", Lines{"JavaScript", "the page", `connect("` + visible(to.String()) + `")`})
}

// unauthorized is about a 401.
func (x *exam) unauthorized(r response, why string) Finding {
	scheme := r.Header.Get("WWW-Authenticate")
	at := *x.URL
	at.User = nil
	password := shell("caddy broadcast doctor " + at.Scheme + "://<user>:<password>@" + at.Host + at.RequestURI())
	cookie := shell("caddy broadcast doctor --header 'Cookie: <name>=<value>' " + at.String())
	basic := len(scheme) >= 5 && strings.EqualFold(scheme[:5], "Basic")
	if scheme != "" {
		scheme = ", which asks for " + visible(scheme)
	}
	switch rejects := problem("the authentication in front of the route rejects these credentials (%s%s)", why, scheme); {
	case (len(x.Header) > 0 || x.URL.User != nil) && basic:
		return rejects.fixedBy("give doctor a user and a password that basic_auth has; caddy hash-password makes the hash for the Caddyfile", password)
	case len(x.Header) > 0 || x.URL.User != nil:
		return rejects.fixedBy("give doctor what a page that is logged in sends, for example its cookie: see the browser's developer tools", cookie)
	case basic:
		return problem("the route is behind authentication (%s%s)", why, scheme).fixedBy("give doctor the credentials", password)
	}
	return problem("the route is behind authentication (%s%s)", why, scheme).fixedBy(
		"give doctor the credentials; a page cannot set headers of a WebSocket, so it needs a cookie, a login by basic_auth, or a token in the query",
		cookie, shell("caddy broadcast doctor --header 'Authorization: Bearer <token>' "+at.String()), password)
}

// arrived finds the host that a rejected handshake had when it arrived: see deniedOrigin in internal/route.
var arrived = regexp.MustCompile(`may not use this route of the host "([^"]+)"`)

// forbidden is about a 403.
func (x *exam) forbidden(ctx context.Context, r response, why string) Finding {
	m := arrived.FindStringSubmatch(r.text)
	if m == nil {
		// With handle_errors, the site may hide the reason. Without an Origin it is no page's request.
		if again, err := x.probe(ctx, "", nil); err != nil || again.StatusCode != http.StatusNoContent {
			return problem("the site refuses access (%s), with and without an Origin", why).fixedBy(
				"look at the directives before broadcast in the site: an authentication, or a matcher that respond 403 belongs to")
		}
	}
	origins := caddyfile("broadcast "+x.path(), "origins "+x.page)
	if x.Origin != "" && (m == nil || m[1] == x.URL.Host) {
		return problem("pages of %s may not use the route (%s)", visible(x.page), why).fixedBy("name the origin in the route's options", origins)
	}
	as := "another Host header"
	if m != nil {
		as = "the Host header " + visible(m[1])
	}
	return problem("a proxy in front sends %s in place of %s, so the site's own pages are rejected as another site's (%s)", as, x.URL.Host, why).fixedBy(
		"have the proxy pass the Host header on; if you cannot change it, name the site in the route's options",
		append(x.passHost(), origins)...)
}

// aPage is about a web page in place of the route.
func (x *exam) aPage(ctx context.Context, r response, why string) Finding {
	for _, route := range x.insideOf(ctx).routes {
		for _, w := range route.Warnings {
			if route.matches(x.host, x.path()) && strings.Contains(w, "try_files") {
				return problem("the site responds with a web page: try_files comes before the route, and rewrites its path to a file").fixedBy(
					ownHandle, caddyfile("the site", handles(x.path(), route.Channels)))
			}
		}
	}
	if proxyOf(r.Header) != "" && x.known(ctx) {
		return x.notForwarded(ctx, why+", a web page")
	}
	if x.path() == "/" {
		return problem("the site responds with a web page, and the URL has no path").fixedBy(
			"use the URL of the route, with its path"+x.listed(ctx), shell("caddy broadcast doctor "+x.URL.Scheme+"://"+x.URL.Host+"/ws"))
	}
	return problem("the site responds with a web page: a single-page app's try_files hides the route, or there is no route at %s", visible(x.path())).fixedBy(
		ownHandle, caddyfile("the site", handles(x.path(), nil)))
}

const ownHandle = "put the route, with its options, into a handle of its own, and try_files and file_server into another one"

// handles returns a site with a route and a single-page app.
func handles(path string, channels []string) string {
	return "handle " + path + " {\n\t" + strings.TrimSpace("broadcast "+strings.Join(channels, " ")) + "\n}\n" +
		"handle {\n\ttry_files {path} /index.html\n\tfile_server\n}"
}

// noRoute is about a response of another handler.
func (x *exam) noRoute(ctx context.Context, r response, why string) Finding {
	add := caddyfile("the site "+x.URL.Host, "broadcast "+x.path())
	// Caddy's response to a request for a name that none of its sites has.
	if r.StatusCode == http.StatusOK && r.text == "" {
		why += ", and no content, as Caddy responds if no site has the name of the request"
		if x.known(ctx) {
			return problem("Caddy has a route for %s, and the request does not reach it: a proxy in front sends another Host header (%s)", visible(x.URL.Redacted()), why).fixedBy(
				"have the proxy pass the Host header on", x.passHost()...)
		}
		if proxyOf(r.Header) != "" {
			return problem("there is no route for %s, or a proxy in front sends another Host header (%s)", visible(x.URL.Redacted()), why).fixedBy(
				"have the proxy pass the Host header on; if it does, add the route to the site with this address"+x.listed(ctx), append(x.passHost(), add)...)
		}
	}
	if proxyOf(r.Header) != "" && x.known(ctx) {
		return x.notForwarded(ctx, why)
	}
	return problem("there is no route for %s (%s)", visible(x.URL.Redacted()), why).fixedBy(
		"add the route to the site with this address, or use the address of the one that there is"+x.listed(ctx), add)
}

// known reports whether Caddy has a route for the URL, as far as its hosts and paths tell.
func (x *exam) known(ctx context.Context) bool {
	return slices.ContainsFunc(x.insideOf(ctx).routes, func(r routeInfo) bool { return r.matches(x.host, x.path()) })
}

// notForwarded is about a proxy that has no rule for the route's path, or one that changes the path.
func (x *exam) notForwarded(ctx context.Context, why string) Finding {
	return problem("Caddy has a route for %s, and the request does not reach it: a proxy in front responds itself, or changes the path (%s)", visible(x.URL.Redacted()), why).fixedBy(
		"have the proxy forward this path as it is, without a path at the end of proxy_pass"+x.listens(ctx),
		nginx("server", "location "+x.path()+" {\n\tproxy_pass http://localhost:8080;\n\tproxy_http_version 1.1;\n"+
			"\tproxy_set_header Upgrade $http_upgrade;\n\tproxy_set_header Connection \"upgrade\";\n\tproxy_set_header Host $http_host;\n"+
			"\tproxy_set_header X-Forwarded-For $remote_addr;\n}"),
		caddyfile("the proxy's site", "reverse_proxy "+x.path()+" localhost:8080"))
}

// passHost returns what has a proxy pass the Host header on.
func (x *exam) passHost() []Lines {
	return []Lines{
		caddyfile("reverse_proxy of the proxy, in place of other lines for Host", "header_up Host {http.request.hostport}"),
		nginx("location "+x.path(), "proxy_set_header Host $http_host;"),
	}
}

// listed returns the end of a sentence: the routes of this Caddy.
func (x *exam) listed(ctx context.Context) string {
	var names []string
	for _, r := range x.insideOf(ctx).routes {
		names = append(names, r.String())
	}
	if names == nil {
		return ""
	}
	return "; this Caddy has these routes: " + strings.Join(names, ", ")
}
