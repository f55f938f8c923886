package route

import (
	"fmt"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/caddy-broadcast/caddy-broadcast/internal/placement"
)

// CheckPlace rejects a route that would accept every POST of its site, such as a login, and publish it: a directive
// without a matcher rarely means that. It warns of a route that no request reaches, and of a forward_auth whose backend
// may reject handshakes. Transports are nil if the options do not list them. It returns where the route is, and the warnings.
func CheckPlace(ctx caddy.Context, channels, transports []string, publish bool) (d placement.Description, err error) {
	place, ok := placement.Of(ctx)
	if !ok {
		return d, nil
	}
	if len(transports) == 0 && !place.Restricted() {
		return d, unrestricted(channels, publish)
	}
	d.Hosts, d.Paths = place.Hosts(), place.Paths()
	if paths := place.RewrittenBefore(); len(paths) > 0 {
		path := paths[0]
		if !strings.HasPrefix(path, "/") { // a regular expression
			path = "@…"
		}
		warning := fmt.Sprintf("no request reaches this route: try_files comes first, and rewrites %s to a file; "+
			`write "handle %s { broadcast }", and put try_files, and file_server, into a "handle { … }" of their own`, strings.Join(paths, " "), path)
		ctx.Logger().Warn(warning, zap.Strings("channels", channels))
		d.Warnings = append(d.Warnings, warning)
	}
	// Only warned of, because most backends do not mind the headers.
	sockets := len(transports) == 0 || slices.Contains(transports, WebSocket)
	if sockets && place.AuthGetsUpgrade() {
		const warning = "forward_auth passes WebSocket handshakes on as such, and some backends refuse them, such as Flask's: " +
			`write "header_up -Upgrade" and "header_up -Connection" into forward_auth`
		if warnOnce("forward_auth", channels) {
			ctx.Logger().Warn(warning, zap.Strings("channels", channels))
		}
		d.Warnings = append(d.Warnings, warning)
	}
	return d, nil
}

// unrestricted returns the error for a route without a matcher.
func unrestricted(channels []string, publish bool) error {
	path := "/ws"
	// The path is an example to copy, so it has the channel's name where that can be a path.
	if len(channels) > 0 && !strings.ContainsAny(channels[0], "{/: ") {
		path = "/" + channels[0]
	}
	does := "publishes"
	if !publish {
		does = "refuses"
	}
	return fmt.Errorf(`without a path this route takes every POST of its site, and %s it: `+
		`write "broadcast %s", put it into "handle %[2]s { … }", or list the transports that it is for`, does, path)
}

// Describe adds what the options say to the description of a route.
func (c Config) Describe(d *placement.Description) {
	d.Channels, d.Transports, d.Publish, d.Subscribe = c.Channels, c.Transports, c.Publish, c.Subscribe
	d.Compression = c.Compression.minSize() > 0
}
