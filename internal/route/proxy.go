package route

import (
	"net"
	"net/http"
	"net/netip"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
)

// warnOfProxy warns of a proxy in front that Caddy does not trust, on a route with limits for each address: all clients behind it
// would share them, and the proxy's 21st client would be rejected by per_ip 20.
//
// Only a peer in a private network counts. The header is forged easily, and strangers must not be able to write the log.
func (route *Route) warnOfProxy(r *http.Request) {
	if len(r.Header["X-Forwarded-For"]) == 0 {
		return
	}
	if trusted, _ := caddyhttp.GetVar(r.Context(), caddyhttp.TrustedProxyVarKey).(bool); trusted || !isPrivate(r.RemoteAddr) {
		return
	}
	if warnOnce("proxy", route.channels) {
		route.logger.Warn("a proxy in front is not trusted, so all clients behind it count as one: name it in trusted_proxies",
			zap.String("proxy", r.RemoteAddr), zap.Strings("channels", route.channels))
	}
}

// isPrivate reports whether an address with a port is one of this machine or of a private network (RFC 1918, RFC 4193).
func isPrivate(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && (ip.IsPrivate() || ip.IsLoopback())
}
