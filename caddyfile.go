package broadcast

import (
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-broadcast/caddy-broadcast/internal/backend"
	"github.com/caddy-broadcast/caddy-broadcast/internal/option"
	"github.com/caddy-broadcast/caddy-broadcast/internal/retention"
)

func init() {
	httpcaddyfile.RegisterHandlerDirective("broadcast", parseHandler)
	httpcaddyfile.RegisterDirectiveOrder("broadcast", httpcaddyfile.Before, "respond")
	httpcaddyfile.RegisterGlobalOption("broadcast", parseApp)
}

func parseHandler(helper httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	h := new(Handler)
	return h, h.UnmarshalCaddyfile(helper.Dispenser)
}

func parseApp(d *caddyfile.Dispenser, existing any) (any, error) {
	d.Next()
	if existing != nil {
		return nil, d.Err("the global option broadcast is given twice")
	}
	d.Reset()
	a := new(App)
	if err := a.UnmarshalCaddyfile(d); err != nil {
		return nil, err
	}
	return httpcaddyfile.App{Name: "broadcast", Value: caddyconfig.JSON(a, nil)}, nil
}

// UnmarshalCaddyfile sets up the app from the global option:
//
//	broadcast {
//	    history         [<pattern>] <count> [<max_age>]
//	    history_file    on|off
//	    history_bytes   <size>
//	    coalesce        <duration>
//	    max_connections <n>
//	    max_channels    <n>
//	    max_memory      <size>
//	    shutdown_delay  <duration>
//	    broker          <name> ...
//	    node            <name>
//	    partition_timeout <duration>
//	    redis listen    [<address>] { ... }
//	    redis connect   <url> { ... }
//	}
func (a *App) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the option's name
	start := d.Token()
	if d.NextArg() {
		return d.ArgErr()
	}
	redis := new(backend.Redis)
	err := option.Block(d, map[string]option.Parser{
		"redis listen":    redis.ParseListen,
		"redis connect":   redis.ParseConnect,
		"history":         a.parseHistory,
		"history_file":    option.OnOff(&a.HistoryFile),
		"history_bytes":   option.Size(&a.HistoryBytes),
		"coalesce":        option.DurationOrZero(&a.Coalesce),
		"max_connections": option.Int(&a.MaxConnections),
		"max_channels":    option.Int(&a.MaxChannels),
		"max_memory":      option.Size(&a.MaxMemory),
		"shutdown_delay":  option.DurationOrZero(&a.ShutdownDelay),
		"broker":          a.parseBroker,
		"node":            option.Word(&a.Node),

		"partition_timeout": option.Duration(&a.PartitionTimeout),
	}, "history")
	if err != nil {
		return err
	}
	if *redis != (backend.Redis{}) {
		a.Redis = redis
	}
	return option.At(start, a.Validate())
}

// parseHistory parses a line of history, for some channels or for all others.
func (a *App) parseHistory(d *caddyfile.Dispenser) error {
	rule, err := retention.Parse(d)
	if err != nil {
		return err
	}
	if rule.Channels != "" {
		a.HistoryRules = append(a.HistoryRules, rule)
		return nil
	}
	if a.historyLine > 0 {
		return d.Errf("history without a pattern is given twice, first on line %d", a.historyLine)
	}
	a.History, a.HistoryMaxAge, a.historyLine = rule.Count, rule.MaxAge, d.Line()
	return nil
}

// parseBroker has the broker's module parse what follows its name.
func (a *App) parseBroker(d *caddyfile.Dispenser) error {
	if !d.NextArg() {
		return d.Err("broker needs the name of a message broker, such as nats")
	}
	name := d.Val()
	if _, err := caddy.GetModule("broadcast.brokers." + name); err != nil {
		return d.Errf("this Caddy has no message broker %q; one of this project's is added by "+
			"xcaddy build --with github.com/caddy-broadcast/caddy-broadcast/brokers/%[1]s", name)
	}
	module, err := caddyfile.UnmarshalModule(d, "broadcast.brokers."+name)
	if err != nil {
		return err
	}
	a.Broker = caddyconfig.JSONModuleObject(module, "broker", name, nil)
	return nil
}

// UnmarshalCaddyfile sets up the handler from the directive:
//
//	broadcast [<matcher>] [<channels...>] {
//	    channel       <names...>
//	    user          <value>
//	    expires       <placeholder>
//	    presence      [<grace>]
//	    member        <json or placeholder>
//	    publish       on|off
//	    subscribe     on|off
//	    join          <patterns...>
//	    transports    websocket sse post
//	    query         <names...>
//	    origins       <patterns...>
//	    echo          on|off
//	    greeting      <text>
//	    replay        <n>
//	    ping_interval <duration>
//	    write_timeout <duration>
//	    max_message   <size>
//	    max_backlog   <size>
//	    slow          close|drop|conflate
//	    deliver_every <duration>
//	    rate          <n>[/s|/m|/h] [<burst>]
//	    max_connections <n> [per_ip <n>]
//	    ipv6_prefix   <bits>
//	    compression   off|on [<min_size>]
//	    socketio [{
//	        namespaces  <patterns...>
//	        recovery    <duration>|off
//	        join_event  <name>
//	        leave_event <name>
//	        greeting_event <name>
//	    }]
//	    close_on_reload
//	}
//
// All options are optional. They are those of the JSON, with the same defaults. A size is a number of bytes, or has a unit
// (64KiB, 1MB).
func (h *Handler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the directive's name
	start := d.Token()
	h.Channels = d.RemainingArgs()
	err := option.Block(d, map[string]option.Parser{
		"channel":         h.parseChannel,
		"user":            option.Word(&h.User),
		"expires":         option.Word(&h.Expires),
		"presence":        h.parsePresence,
		"member":          option.Word(&h.Member),
		"publish":         option.OnOff(&h.Publish),
		"subscribe":       option.OnOff(&h.Subscribe),
		"join":            option.Words(&h.Join),
		"transports":      option.Words(&h.Transports),
		"query":           option.Words(&h.Query),
		"origins":         option.Words(&h.Origins),
		"echo":            option.OnOff(&h.Echo),
		"greeting":        option.Word(&h.Greeting),
		"replay":          option.Int(&h.Replay),
		"ping_interval":   option.Duration(&h.PingInterval),
		"write_timeout":   option.Duration(&h.WriteTimeout),
		"max_message":     option.Size(&h.MaxMessage),
		"max_backlog":     option.Size(&h.MaxBacklog),
		"slow":            option.Word(&h.Slow),
		"deliver_every":   option.Duration(&h.DeliverEvery),
		"compression":     h.parseCompression,
		"rate":            h.parseRate,
		"max_connections": h.parseMaxConnections,
		"ipv6_prefix":     option.IntBetween(&h.IPv6Prefix, 1, 128),
		"socketio":        h.parseSocketIO,
		"close_on_reload": option.Flag(&h.CloseOnReload),
	})
	if err != nil {
		return err
	}
	return option.At(start, h.Validate())
}

func (h *Handler) parseChannel(d *caddyfile.Dispenser) error {
	if len(h.Channels) > 0 {
		return d.Err("channels are already given as arguments of broadcast")
	}
	return option.Words(&h.Channels)(d)
}

func (h *Handler) parsePresence(d *caddyfile.Dispenser) error {
	h.Presence = new(Presence)
	switch args := d.RemainingArgs(); len(args) {
	case 0:
		return nil
	case 1:
		t, err := caddy.ParseDuration(args[0])
		if err != nil || t < 0 {
			return d.Errf("presence's grace is %q, must be a duration such as 5s, or 0", args[0])
		}
		h.Presence.Grace = (*caddy.Duration)(&t)
		return nil
	}
	return d.ArgErr()
}

func (h *Handler) parseRate(d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	if len(args) != 1 && len(args) != 2 {
		return d.ArgErr()
	}
	h.Rate = new(Rate)
	count, unit, _ := strings.Cut(args[0], "/")
	per, ok := map[string]time.Duration{"": 0, "s": 0, "m": time.Minute, "h": time.Hour}[unit]
	n, err := strconv.Atoi(count)
	if err != nil || n < 1 || !ok {
		return d.Errf("rate is %q, must be a positive number, optionally per /s, /m or /h", args[0])
	}
	h.Rate.Messages, h.Rate.Per = n, caddy.Duration(per)
	if len(args) == 2 {
		if h.Rate.Burst, err = strconv.Atoi(args[1]); err != nil || h.Rate.Burst < 1 {
			return d.Errf("rate's burst is %q, must be a positive number", args[1])
		}
	}
	return nil
}

func (h *Handler) parseMaxConnections(d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	if len(args) != 1 && (len(args) != 3 || args[1] != "per_ip") {
		return d.Errf("max_connections %s: must be <n> [per_ip <n>]", strings.Join(args, " "))
	}
	for i, v := range []*int{&h.MaxConnections, &h.MaxPerIP}[:(len(args)+1)/2] {
		n, err := option.ParseInt("max_connections", args[2*i])
		if err != nil {
			return d.WrapErr(err)
		}
		*v = n
	}
	return nil
}

func (h *Handler) parseSocketIO(d *caddyfile.Dispenser) error {
	if d.NextArg() {
		return d.ArgErr()
	}
	h.SocketIO = new(SocketIO)
	return option.Block(d, map[string]option.Parser{
		"namespaces":  option.Words(&h.SocketIO.Namespaces),
		"recovery":    h.parseRecovery,
		"join_event":  option.Word(&h.SocketIO.JoinEvent),
		"leave_event": option.Word(&h.SocketIO.LeaveEvent),

		"greeting_event": option.Word(&h.SocketIO.GreetingEvent),
	})
}

func (h *Handler) parseRecovery(d *caddyfile.Dispenser) error {
	h.SocketIO.Recovery = new(caddy.Duration)
	args := d.RemainingArgs()
	if len(args) != 1 {
		return d.ArgErr()
	}
	if args[0] == "off" {
		return nil
	}
	t, err := caddy.ParseDuration(args[0])
	if err != nil || t <= 0 {
		return d.Errf("recovery is %q, must be off or a duration such as 2m", args[0])
	}
	*h.SocketIO.Recovery = caddy.Duration(t)
	return nil
}

func (h *Handler) parseCompression(d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	switch {
	case len(args) == 1 && args[0] == "off":
		h.Compression = nil
	case len(args) > 0 && len(args) < 3 && args[0] == "on":
		h.Compression = new(Compression)
		if len(args) == 2 {
			n, err := option.ParseSize("compression", args[1])
			if err != nil {
				return d.WrapErr(err)
			}
			h.Compression.MinSize = int(n)
		}
	default:
		return d.Errf("compression %s: must be off, on, or on <min_size>", strings.Join(args, " "))
	}
	return nil
}

// Interface guards
var (
	_ caddyfile.Unmarshaler = (*App)(nil)
	_ caddyfile.Unmarshaler = (*Handler)(nil)
)
