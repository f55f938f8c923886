// Package placement looks at where among a server's routes a handler is: at what keeps requests from it, or does not.
//
// Caddy has no function for this, so the package reads the routes as they are while they are provisioned. What it finds leads
// to an error or a warning about a configuration that looks correct and is not. Where it meets something that it does not
// know, it reports nothing: a configuration that works must not be rejected by a guess.
package placement

import (
	"cmp"
	"regexp"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/fileserver"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/rewrite"
)

// Place is where a handler is: the routes that it is in, from the server's to the innermost subroute's.
type Place []step

// step is a list of routes, and the one of them that leads to the handler.
type step struct {
	routes caddyhttp.RouteList
	index  int
}

// Description is what an administrator wants to know of a route.
type Description struct {
	Hosts       []string `json:"hosts"` // none is any
	Paths       []string `json:"paths"` // patterns; none is any, or a matcher of another kind
	Channels    []string `json:"channels"`
	Transports  []string `json:"transports"`
	Publish     bool     `json:"publish"`
	Subscribe   bool     `json:"subscribe"`
	Compression bool     `json:"compression"`
	Warnings    []string `json:"warnings,omitempty"` // about directives that hide it, or break it
}

// Of returns the place of the handler that is being provisioned with ctx, or false if it cannot be told: in a named route,
// an error route, or a handler that has routes of its own and is not a subroute.
//
// All routes before its own are provisioned already, and its own has its matchers.
func Of(ctx caddy.Context) (Place, bool) {
	server, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	lineage := ctx.Modules()
	if !ok || len(lineage) < 2 {
		return nil, false
	}
	place := Place{{routes: server.Routes}}
	for _, m := range lineage[1 : len(lineage)-1] { // the first is the app, the last the handler
		sub, ok := m.(*caddyhttp.Subroute)
		if !ok {
			return nil, false
		}
		place = append(place, step{routes: sub.Routes})
	}
	for i := range place {
		if place[i].index = beingProvisioned(place[i].routes); place[i].index < 0 {
			return nil, false
		}
	}
	return place, true
}

// beingProvisioned returns the index of the route whose handlers are not there yet, or -1. Caddy provisions the routes of a
// list in order, and fills in Handlers when all handlers of the route are loaded (caddyhttp.Route.ProvisionHandlers). So the
// first route without them is the one that it is at.
func beingProvisioned(routes caddyhttp.RouteList) int {
	for i, r := range routes {
		if len(r.Handlers) == 0 && len(r.HandlersRaw) > 0 {
			return i
		}
	}
	return -1
}

// Restricted reports whether a matcher lets only some of a site's requests through to the handler. The matchers that make
// the site do not: they are those of a server's route that is terminal.
func (p Place) Restricted() bool {
	// A request reaches a route if one of its matcher sets takes it, so all of them have to restrict.
	for i, s := range p {
		sets := s.routes[s.index].MatcherSets
		all := len(sets) > 0
		for _, set := range sets {
			all = all && restricts(set, i == 0 && s.routes[s.index].Terminal)
		}
		if all {
			return true
		}
	}
	return false
}

func restricts(set caddyhttp.MatcherSet, ofSite bool) bool {
	for _, m := range set {
		switch m.(type) {
		// Caddy registers some matchers as values and others as pointers, and modules are free to make either.
		case caddyhttp.MatchHost, *caddyhttp.MatchHost, caddyhttp.MatchProtocol, *caddyhttp.MatchProtocol:
			if !ofSite {
				return true
			}
		default:
			return true
		}
	}
	return false
}

// RewrittenBefore returns the path patterns, or regular expressions, that let requests through to the handler, if none
// comes: a try_files before has rewritten them to one of its files.
func (p Place) RewrittenBefore() (paths []string) {
	fallback := ""
	for _, s := range p {
		for _, r := range s.routes[:s.index] {
			fallback = cmp.Or(fallback, triesFiles(r))
		}
		if fallback != "" {
			paths = append(paths, pathsOf(s.routes[s.index])...)
			paths = append(paths, regexpsOf(s.routes[s.index], fallback)...)
		}
	}
	return paths
}

// regexpsOf returns the regular expressions that a route has for paths, without those that match one path.
func regexpsOf(r caddyhttp.Route, except string) (patterns []string) {
	for _, set := range r.MatcherSets {
		for _, m := range set {
			if m, ok := m.(*caddyhttp.MatchPathRE); ok {
				if re, err := regexp.Compile(m.Pattern); err == nil && !re.MatchString(except) {
					patterns = append(patterns, m.Pattern)
				}
			}
		}
	}
	return patterns
}

// try_files is not a module: the Caddyfile adapter makes it a matcher `file`, and a rewrite to the file that the
// matcher found. That is what is looked for, since nothing else in the JSON tells of it.
//
// triesFiles returns the fallback of a route that is what a try_files with one makes, and is for all requests, or "".
func triesFiles(r caddyhttp.Route) (fallback string) {
	rewrites := false
	for _, h := range r.Handlers {
		if to, ok := h.(*rewrite.Rewrite); ok && strings.HasPrefix(to.URI, "{http.matchers.file.relative}") {
			rewrites = true
		}
	}
	if !rewrites {
		return ""
	}
	for _, set := range r.MatcherSets {
		if len(set) != 1 {
			continue // for some requests only
		}
		file, ok := set[0].(*fileserver.MatchFile)
		if !ok {
			continue
		}
		for _, try := range file.TryFiles {
			// A name without a placeholder is the fallback: it exists or not, whatever the request is.
			if !strings.Contains(try, "{") {
				return try
			}
		}
	}
	return ""
}

// pathsOf returns the path patterns of a route, without those that match every path.
func pathsOf(r caddyhttp.Route) (paths []string) {
	for _, set := range r.MatcherSets {
		for _, m := range set {
			var patterns caddyhttp.MatchPath
			switch m := m.(type) {
			case caddyhttp.MatchPath:
				patterns = m
			case *caddyhttp.MatchPath:
				patterns = *m
			}
			for _, p := range patterns {
				if p != "*" && p != "/*" {
					paths = append(paths, p)
				}
			}
		}
	}
	return paths
}

// Hosts returns the names that requests to the handler can be for, or none if they can be for any.
func (p Place) Hosts() (hosts []string) {
	for _, s := range p {
		for _, set := range s.routes[s.index].MatcherSets {
			for _, m := range set {
				switch m := m.(type) {
				case caddyhttp.MatchHost:
					hosts = append(hosts, m...)
				case *caddyhttp.MatchHost:
					hosts = append(hosts, *m...)
				}
			}
		}
	}
	return hosts
}

// Paths returns the path patterns of the innermost matchers that have some.
func (p Place) Paths() []string {
	for _, s := range slices.Backward(p) {
		if paths := pathsOf(s.routes[s.index]); len(paths) > 0 {
			return paths
		}
	}
	return nil
}
