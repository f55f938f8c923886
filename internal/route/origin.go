package route

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"

	"go.uber.org/zap"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/origin"
)

// checkOrigin reports why the request's page may not use the route, or lets the page read the response.
func (route *Route) checkOrigin(w http.ResponseWriter, r *http.Request) error {
	verdict := origin.Check(r, route.origins)
	// An origin that the options name needs no comparison with Host, so a proxy that changes Host does no harm there.
	if verdict != origin.Named && origin.HostChanged(r) {
		route.warnOfHost(r)
	}
	if verdict == origin.Denied {
		route.hub.CountRejected(hub.LimitOrigin)
		return deniedOrigin(r)
	}
	if len(route.origins) > 0 {
		verdict.SetHeaders(w.Header(), r)
	}
	return nil
}

// deniedOrigin returns the error for a rejected page. It is for the operator: browsers show a page nothing of it.
func deniedOrigin(r *http.Request) error {
	from := r.Header.Get("Origin")
	if from == "" {
		return errors.New("a page of another site may not use this route, and says no origin that the option origins could name")
	}
	return fmt.Errorf("a page of origin %q may not use this route of the host %q: name the origin in the option origins, "+
		"or if a proxy in front changes the Host header, have it pass Host on", from, r.Host)
}

// allowPreflight lets a page send any request that the route accepts (Fetch Standard, section 4.8).
func allowPreflight(w http.ResponseWriter) {
	h := w.Header()
	h.Set("Access-Control-Allow-Methods", "GET, POST")
	if h.Get("Access-Control-Allow-Headers") == "" {
		h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type, Idempotency-Key, Last-Event-ID")
	}
	h.Set("Access-Control-Max-Age", "600") // 10 minutes, so that a change of the origins is not noticed much later
	w.WriteHeader(http.StatusNoContent)
}

// warned records what the logs already warned about, so that neither a reload nor the next request repeats it.
var warned sync.Map

// warnOnce reports whether there was no warning of the kind yet about the route with these channels. Handlers do not survive a
// reload, so a route is known by its channels.
func warnOnce(about string, channels []string) bool {
	_, again := warned.LoadOrStore([2]string{about, quotaKey(channels)}, true)
	return !again
}

// warnOfHost warns of a proxy in front that changes the Host header. With a WebSocket handshake browsers send the page's
// origin and nothing else that would show that the page is the site's own.
func (route *Route) warnOfHost(r *http.Request) {
	if warnOnce("host", route.channels) {
		route.logger.Warn("a proxy in front seems to change the Host header, so pages of this site are rejected as if they were another's: "+
			"have it pass Host on, or name the site in the option origins",
			zap.String("origin", r.Header.Get("Origin")), zap.String("host", r.Host), zap.Strings("channels", route.channels))
	}
}

// warnOfOpenPublishing warns of an option that is rarely meant.
func (route *Route) warnOfOpenPublishing(c Config) {
	// A browser may send the visitor's cookies along, so any page could act with the visitor's rights.
	if c.Publish && slices.Contains(c.Origins, "*") && warnOnce("origins", c.Channels) {
		c.Logger.Warn("any page that a visitor looks at may publish here as that visitor: name the origins, or set publish off",
			zap.Strings("origins", c.Origins), zap.Strings("channels", c.Channels))
	}
}
