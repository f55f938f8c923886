package doctor

import (
	"context"
	"fmt"
	"net"
	"strings"
)

// address looks at the URL itself.
var address = Check{
	Name: "address", About: "the URL: its scheme and its path", needs: aURL,
	run: func(_ context.Context, x *exam) []Finding {
		if x.URL.Fragment != "" {
			return []Finding{advice("the URL has a fragment, #%s, and a browser opens no WebSocket with one", visible(x.URL.Fragment)).
				fixedBy("remove it")}
		}
		if x.URL.User != nil {
			// Fetch Standard, section 2: credentials in URLs are rejected by fetch, and by WebSocket in Safari.
			return []Finding{ok("%s, with the user %s: a page cannot have credentials in the URL, and sends those of its own login",
				visible(x.URL.Redacted()), visible(x.URL.User.Username()))}
		}
		if !x.secure && !isLocal(x.host) {
			return []Finding{advice("%s is without TLS: a page that was loaded over https may not use it, and proxies on the way may break it",
				visible(x.URL.Redacted())).fixedBy("give the site a name, for which Caddy gets a certificate, and use https",
				caddyfile("", fmt.Sprintf("%s {\n\tbroadcast %s\n}", exampleName(x.host), x.path())))}
		}
		return []Finding{ok("%s, used by pages of %s", visible(x.URL.Redacted()), visible(x.page))}
	},
}

// isLocal reports whether browsers trust a host without TLS (Secure Contexts, section 3.1).
func isLocal(host string) bool {
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || host == "::1" || strings.HasPrefix(host, "127.")
}

// exampleName returns the name of a site for an example: the host, unless it is an IP address.
func exampleName(host string) string {
	if net.ParseIP(host) != nil {
		return "example.com"
	}
	return host
}
