package doctor

import (
	"context"
	"net/http"
)

// strange is an origin, and a name, that no site has (RFC 6761, section 6.4).
const strange = "doctor.invalid"

// foreignOrigin looks at whether the page of a stranger could use the route with its visitors' cookies.
var foreignOrigin = Check{
	Name: "origin", About: "whether the route rejects pages of other sites", needs: aRoute,
	run: func(ctx context.Context, x *exam) []Finding {
		resp, err := x.probe(ctx, "https://"+strange, nil)
		switch {
		case err != nil:
			return []Finding{noResponse(x, err)}
		case resp.StatusCode != http.StatusNoContent:
			return []Finding{ok("pages of other sites are rejected (%s)", visible(resp.Status))}
		}
		return []Finding{advice("pages of any site may use the route, with the cookies of their visitors").fixedBy(
			"unless all of its messages are public, and anybody may publish there, name the origins in place of *",
			caddyfile("broadcast "+x.path(), "origins "+x.page))}
	},
}

// rebinding looks at whether a page can come to be of the site's own origin by pointing its name at the site's address (DNS
// rebinding). With TLS it cannot, because the certificate is not for that name.
var rebinding = Check{
	Name: "names", About: "whether the site responds to any name (DNS rebinding)", needs: aRoute,
	run: func(ctx context.Context, x *exam) []Finding {
		if x.secure {
			return nil
		}
		resp, err := x.probe(ctx, "http://"+strange, func(r *http.Request) { r.Host = strange })
		switch {
		case err != nil: // some proxies close the connection
			return []Finding{ok("the route does not respond to other names: %v", err)}
		case resp.StatusCode != http.StatusNoContent:
			return []Finding{ok("the route does not respond to other names (%s)", visible(resp.Status))}
		}
		return []Finding{advice("the site responds to any name, so a stranger's page can point its own name at this address and use the route as if it were yours (DNS rebinding)").fixedBy(
			"give the site its name", caddyfile("", "http://"+x.URL.Host+" {\n\tbroadcast "+x.path()+"\n}"))}
	},
}
