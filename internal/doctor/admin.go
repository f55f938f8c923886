package doctor

import (
	"context"
	"fmt"
	"net"
	"regexp"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-broadcast/caddy-broadcast/internal/adminclient"
	"github.com/caddy-broadcast/caddy-broadcast/internal/buildinfo"
)

// adminAPI looks at whether the admin API can be reached, from where it should be and from nowhere else.
var adminAPI = Check{
	Name: "admin", About: "whether the admin API can be reached, and the version of the running Caddy's module", needs: anAPI,
	run: func(ctx context.Context, x *exam) []Finding {
		in := x.insideOf(ctx)
		if in.err != nil {
			// Most likely this is another machine than Caddy's.
			if !x.Named && x.URL != nil {
				return []Finding{skipped("the admin API at %s was not reached, so nothing was looked at from inside: run it where Caddy runs, or see --address (%v)",
					x.Admin.Address(), dialError(in.err))}
			}
			return []Finding{problem("the admin API at %s cannot be used: %v", x.Admin.Address(), dialError(in.err)).fixedBy(adminclient.Advice(in.err))}
		}
		x.has[aHub] = true
		if isExposed(in.config.Admin.Listen) {
			return []Finding{advice("the admin API listens on %s: whoever reaches that can change Caddy's configuration, and read and publish on every channel", in.config.Admin.Listen).fixedBy(
				"let it listen on this machine only; backends on other machines publish by a route", caddyfile("the global options", "admin localhost:2019"))}
		}
		if running, own := in.totals.Version, buildinfo.Read().Version; running != own && running != "" && own != "" {
			return []Finding{advice("the Caddy at %s runs version %s of the module, and this program has %s", x.Admin.Address(), visible(running), own).fixedBy(
				"restart Caddy if its program was replaced", shell("systemctl restart caddy"))}
		}
		return []Finding{ok("it responds at %s, with %d connections", x.Admin.Address(), in.totals.Connections)}
	},
}

// isExposed reports whether other machines can reach an address of the admin API.
func isExposed(listen string) bool {
	addr, err := caddy.ParseNetworkAddress(listen)
	if listen == "" || err != nil || addr.IsUnixNetwork() || addr.IsFdNetwork() {
		return false // the default is localhost
	}
	ip := net.ParseIP(addr.Host)
	return addr.Host != "localhost" && (ip == nil || !ip.IsLoopback())
}

// broker looks at whether this node should get clients, and at the message broker.
var broker = Check{
	Name: "health", About: "whether this node should get clients, and the state of the message broker", needs: aHub,
	run: func(ctx context.Context, x *exam) []Finding {
		t := x.insideOf(ctx).totals
		if _, err := x.Admin.Get(ctx, "/broadcast/health"); err != nil {
			return []Finding{problem("this node should get no clients: %v", err).fixedBy(
				"start the broker, and see whether Caddy can log in to it; docs/operations.md has the log messages")}
		}
		if t.Broker == nil {
			return []Finding{ok("healthy, without a message broker")}
		}
		if t.Broker.Problem != "" || !t.Broker.Up {
			return []Finding{problem("the message broker: %s", visible(t.Broker.Problem)).fixedBy(
				"start the broker, and see whether Caddy can log in to it; docs/operations.md has the log messages")}
		}
		epochs, versions := make(map[string]bool), make(map[string]bool)
		var away []string
		for _, n := range t.Nodes {
			if n.Away {
				away = append(away, visible(n.Name))
				continue
			}
			if n.Epoch != "" {
				epochs[n.Epoch] = true
			}
			versions[n.Version] = true
		}
		switch {
		case len(epochs) > 1:
			return []Finding{problem("the nodes have %d different epochs, so they do not share one log", len(epochs)).fixedBy(
				"give all of them the same broker, with the same name of the stream or prefix of the keys; it is normal for a moment after the broker was reset")}
		case len(away) > 0:
			return []Finding{advice("these nodes are away: %s", strings.Join(away, ", ")).fixedBy("start them, or wait a minute if they were removed")}
		case len(versions) > 1:
			return []Finding{advice("the nodes run different versions of the module").fixedBy("finish the upgrade: docs/operations.md, Upgrade")}
		}
		return []Finding{ok("healthy, with a message broker at %s and %d nodes", visible(t.Broker.Server), max(1, len(t.Nodes)))}
	},
}

// routes looks at how routes are placed among a site's directives. Caddy has found that out when it loaded the configuration.
var routes = Check{
	Name: "routes", About: "whether other directives of a site hide a route or break it", needs: aHub,
	run: func(ctx context.Context, x *exam) (all []Finding) {
		in := x.insideOf(ctx)
		for _, r := range in.routes {
			for _, w := range r.Warnings {
				f := advice("%s: %s", r, visible(w))
				switch {
				case strings.Contains(w, "try_files"):
					path := "/ws"
					if len(r.Paths) > 0 {
						path = r.Paths[0]
					}
					f.State = Problem // no request reaches it
					f = f.fixedBy(ownHandle, caddyfile("the site", handles(path, r.Channels)))
				case strings.Contains(w, "forward_auth"):
					f = f.fixedBy("keep the headers from the backend of forward_auth", caddyfile("forward_auth", "header_up -Upgrade\nheader_up -Connection"))
				}
				all = append(all, f)
			}
		}
		if all == nil && len(in.routes) > 0 {
			all = append(all, ok("%d routes, and no directive hides one", len(in.routes)))
		}
		return all
	},
}

// addresses looks at whether Caddy knows the addresses of clients behind a proxy.
var addresses = Check{
	Name: "clients", About: "whether Caddy knows the addresses of clients behind a proxy", needs: aHub,
	run: func(ctx context.Context, x *exam) []Finding {
		if x.proxy == "" {
			return nil
		}
		for _, s := range x.insideOf(ctx).config.Apps.HTTP.Servers {
			if s.TrustedProxies != nil {
				return []Finding{ok("behind %s, and Caddy takes the addresses of clients from the proxies that it trusts", x.proxy)}
			}
		}
		return []Finding{advice("behind %s, and Caddy trusts no proxy, so all clients have the proxy's address: per_ip and rate count them as one", x.proxy).fixedBy(
			"name the proxy's addresses; it has to send X-Forwarded-For, as Caddy does and nginx is told to",
			caddyfile("the global options", "servers {\n\ttrusted_proxies static private_ranges\n}"),
			nginx("location "+x.path(), "proxy_set_header X-Forwarded-For $remote_addr;"))}
	},
}

// history looks at whether clients can resume.
var history = Check{
	Name: "history", About: "whether messages are kept, so that clients resume", needs: aHub,
	run: func(ctx context.Context, x *exam) []Finding {
		in := x.insideOf(ctx)
		if b := in.config.Apps.Broadcast; b.History > 0 || len(b.Rules) > 0 {
			return []Finding{ok("messages are kept, so clients resume after a cut")}
		}
		return []Finding{advice("no messages are kept: a client that is cut off for a moment misses what is published meanwhile, and is told so").fixedBy(
			"keep some, unless only the newest value matters", caddyfile("the global options", historyLines))}
	},
}

// Figures of Prometheus's process collector, which Caddy registers.
var (
	maxFiles  = regexp.MustCompile(`(?m)^process_max_fds (\S+)$`)
	openFiles = regexp.MustCompile(`(?m)^process_open_fds (\S+)$`)
)

// fewFiles is a limit that a busy site reaches: each connection is an open file.
const fewFiles = 8192

// files looks at how many more connections the system lets Caddy have.
var files = Check{
	Name: "files", About: "the limit of open files, of which each connection is one", needs: aHub,
	run: func(ctx context.Context, x *exam) []Finding {
		metrics, err := x.Admin.Get(ctx, "/metrics")
		if err != nil {
			return []Finding{skipped("the metrics, which have the limit of open files, cannot be read: %v", err)}
		}
		figure := func(re *regexp.Regexp) float64 {
			m := re.FindSubmatch(metrics)
			if m == nil {
				return 0
			}
			n, _ := strconv.ParseFloat(string(m[1]), 64) // 0 if it is no number
			return n
		}
		limit, used := figure(maxFiles), figure(openFiles)
		more := []Lines{
			{"systemd", "systemctl edit caddy", "[Service]\nLimitNOFILE=1048576"},
			{"compose", "services: caddy:", "ulimits:\n  nofile: 1048576"},
		}
		switch {
		case limit == 0: // not on every system
			return nil
		case used > 0.8*limit:
			return []Finding{problem("%.0f of at most %.0f files are open, and each connection needs one", used, limit).fixedBy("raise the limit", more...)}
		case limit < fewFiles:
			return []Finding{advice("at most %.0f files may be open, and each connection needs one", limit).fixedBy("raise the limit before there are more clients", more...)}
		}
		return []Finding{ok("%.0f of at most %.0f files are open", used, limit)}
	},
}

// routeLogger is the logger of routes.
const routeLogger = "http.handlers.broadcast"

// logLevel looks at whether the log says why requests are rejected.
var logLevel = Check{
	Name: "log", About: "whether the log says why requests are rejected", needs: aHub,
	run: func(ctx context.Context, x *exam) []Finding {
		for _, l := range x.insideOf(ctx).config.Logging.Logs {
			if strings.EqualFold(l.Level, "debug") && includes(l.Include, l.Exclude) {
				return []Finding{ok("the log says why requests are rejected")}
			}
		}
		const text = "the log does not say why requests are rejected, which is at level DEBUG"
		lines := caddyfile("the global options", fmt.Sprintf("log broadcast {\n\tlevel DEBUG\n\tinclude %s\n}", routeLogger))
		if x.rejected {
			return []Finding{advice(text).fixedBy("have it say so while you look for the reason", lines)}
		}
		return []Finding{ok(text)}
	},
}

// includes reports whether a log has the entries of routes.
func includes(include, exclude []string) bool {
	covers := func(names []string) bool {
		for _, name := range names {
			if name == routeLogger || strings.HasPrefix(routeLogger, name+".") {
				return true
			}
		}
		return false
	}
	return (len(include) == 0 || covers(include)) && !covers(exclude)
}
