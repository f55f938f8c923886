package broadcast

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/dustin/go-humanize"
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
//	    history         <count> [<max_age>]
//	    history_bytes   <size>
//	    coalesce        <duration>
//	    max_connections <n>
//	    max_channels    <n>
//	    max_memory      <size>
//	    shutdown_delay  <duration>
//	}
func (a *App) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	return unmarshal(d, a, nil, map[string]func(*caddyfile.Dispenser) error{
		"history":         a.parseHistory,
		"history_bytes":   size(&a.HistoryBytes),
		"coalesce":        duration(&a.Coalesce, true),
		"max_connections": number(&a.MaxConnections),
		"max_channels":    number(&a.MaxChannels),
		"max_memory":      size(&a.MaxMemory),
		"shutdown_delay":  duration(&a.ShutdownDelay, true),
	})
}

func (a *App) parseHistory(d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	if len(args) != 1 && len(args) != 2 {
		return d.ArgErr()
	}
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return d.Errf("history is %q, must be a whole number", args[0])
	}
	a.History = n
	if len(args) == 2 {
		age, err := caddy.ParseDuration(args[1])
		if err != nil || age <= 0 {
			return d.Errf("history's max_age is %q, must be a duration such as 10m", args[1])
		}
		a.HistoryMaxAge = caddy.Duration(age)
	}
	return nil
}

// UnmarshalCaddyfile sets up the handler from the directive:
//
//	broadcast [<matcher>] [<channels...>] {
//	    channel       <names...>
//	    user          <value>
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
//	    slow          close|drop
//	    rate          <n>[/s|/m|/h] [<burst>]
//	    max_connections <n> [per_ip <n>]
//	    ipv6_prefix   <bits>
//	    compression   off|on [<min_size>]
//	    close_on_reload
//	}
//
// All options can be left out; they are those of the JSON, with the same defaults. Sizes are bytes or have a unit
// (64KiB, 1MB).
func (h *Handler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	channel := words(&h.Channels)
	options := map[string]func(*caddyfile.Dispenser) error{
		"user":          word(&h.User),
		"publish":       onOff(&h.Publish),
		"subscribe":     onOff(&h.Subscribe),
		"join":          words(&h.Join),
		"transports":    words(&h.Transports),
		"query":         words(&h.Query),
		"origins":       words(&h.Origins),
		"echo":          onOff(&h.Echo),
		"greeting":      word(&h.Greeting),
		"replay":        number(&h.Replay),
		"ping_interval": duration(&h.PingInterval, false),
		"write_timeout": duration(&h.WriteTimeout, false),
		"max_message":   size(&h.MaxMessage),
		"max_backlog":   size(&h.MaxBacklog),
		"slow":          word(&h.Slow),
		"compression":   h.parseCompression,
		"rate":          h.parseRate,
		"ipv6_prefix":   bits(&h.IPv6Prefix),
		"close_on_reload": func(d *caddyfile.Dispenser) error {
			h.CloseOnReload = true
			if d.NextArg() {
				return d.ArgErr()
			}
			return nil
		},

		"max_connections": h.parseMaxConnections,
		"channel": func(d *caddyfile.Dispenser) error {
			if len(h.Channels) > 0 {
				return d.Err("the channels are named twice: behind broadcast and here")
			}
			return channel(d)
		},
	}
	return unmarshal(d, h, &h.Channels, options)
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
		return d.Errf("rate is %q, must be a number from 1 on, with /s, /m or /h", args[0])
	}
	h.Rate.Messages, h.Rate.Per = n, caddy.Duration(per)
	if len(args) == 2 {
		if h.Rate.Burst, err = strconv.Atoi(args[1]); err != nil || h.Rate.Burst < 1 {
			return d.Errf("rate's burst is %q, must be a number from 1 on", args[1])
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
		n, err := strconv.Atoi(args[2*i])
		if err != nil {
			return d.Errf("max_connections is %q, must be a whole number", args[2*i])
		}
		*v = n
	}
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
			n, err := parseSize(args[1])
			if err != nil {
				return d.Errf("compression: %v", err)
			}
			h.Compression.MinSize = int(n)
		}
	default:
		return d.Errf("compression %s: must be off, on, or on <min_size>", strings.Join(args, " "))
	}
	return nil
}

// unmarshal reads the arguments, if there may be any, and the options of a block, each at most once, and validates
// the module, so that what is wrong with it has a place in the file.
func unmarshal(d *caddyfile.Dispenser, m caddy.Validator, args *[]string, options map[string]func(*caddyfile.Dispenser) error) error {
	d.Next() // the directive's name
	start := d.Token()
	if args != nil {
		*args = d.RemainingArgs()
	} else if d.NextArg() {
		return d.ArgErr()
	}
	lines := make(map[string]int) // where each option was
	for d.NextBlock(0) {
		name := d.Val()
		parse, ok := options[name]
		if !ok {
			return d.Errf("unrecognized option %s", name)
		}
		if line, ok := lines[name]; ok {
			return d.Errf("the option %s is given twice, first on line %d", name, line)
		}
		lines[name] = d.Line()
		if err := parse(d); err != nil {
			return err
		}
	}
	if err := validated(m); err != nil {
		at := caddyfile.NewDispenser([]caddyfile.Token{start})
		at.Next()
		return at.Errf("%s: %v", start.Text, err)
	}
	return nil
}

// validated validates the module as it will be with its defaults, which do not belong in the JSON.
func validated(m caddy.Validator) error {
	if h, ok := m.(*Handler); ok {
		full := *h
		if h.Compression != nil {
			compression := *h.Compression
			full.Compression = &compression
		}
		full.setDefaults()
		return full.Validate()
	}
	return m.Validate()
}

// The following return the parser of an option's arguments.

func word(v *string) func(*caddyfile.Dispenser) error {
	return func(d *caddyfile.Dispenser) error {
		if !d.AllArgs(v) {
			return d.ArgErr()
		}
		return nil
	}
}

func words(v *[]string) func(*caddyfile.Dispenser) error {
	return func(d *caddyfile.Dispenser) error {
		if *v = d.RemainingArgs(); len(*v) == 0 {
			return d.ArgErr()
		}
		return nil
	}
}

func onOff(v **bool) func(*caddyfile.Dispenser) error {
	return func(d *caddyfile.Dispenser) error {
		name := d.Val()
		var s string
		if !d.AllArgs(&s) {
			return d.ArgErr()
		}
		if s != "on" && s != "off" {
			return d.Errf("%s is %q, must be on or off", name, s)
		}
		on := s == "on"
		*v = &on
		return nil
	}
}

func number(v *int) func(*caddyfile.Dispenser) error {
	return func(d *caddyfile.Dispenser) error {
		name := d.Val()
		var s string
		if !d.AllArgs(&s) {
			return d.ArgErr()
		}
		n, err := strconv.Atoi(s)
		if err != nil {
			return d.Errf("%s is %q, must be a whole number", name, s)
		}
		*v = n
		return nil
	}
}

// bits takes no zero, which stands for the option not given.
func bits(v *int) func(*caddyfile.Dispenser) error {
	return func(d *caddyfile.Dispenser) error {
		name := d.Val()
		err := number(v)(d)
		if err == nil && *v == 0 {
			return d.Errf("%s is 0, must be 1 to 128", name)
		}
		return err
	}
}

// duration takes zero only where that is no default: elsewhere zero stands for the option not given.
func duration(v *caddy.Duration, zero bool) func(*caddyfile.Dispenser) error {
	return func(d *caddyfile.Dispenser) error {
		name := d.Val()
		var s string
		if !d.AllArgs(&s) {
			return d.ArgErr()
		}
		n, err := caddy.ParseDuration(s)
		if err != nil {
			return d.Errf("%s is %q, must be a duration such as 10s: %v", name, s, err)
		}
		if n == 0 && !zero {
			return d.Errf("%s is 0, must be more", name)
		}
		*v = caddy.Duration(n)
		return nil
	}
}

func size(v *int64) func(*caddyfile.Dispenser) error {
	return func(d *caddyfile.Dispenser) error {
		name := d.Val()
		var s string
		if !d.AllArgs(&s) {
			return d.ArgErr()
		}
		n, err := parseSize(s)
		if err != nil {
			return d.Errf("%s: %v", name, err)
		}
		*v = n
		return nil
	}
}

func parseSize(s string) (int64, error) {
	n, err := humanize.ParseBytes(s)
	switch {
	case err != nil:
		return 0, fmt.Errorf("%q is no size such as 64KiB: %w", s, err)
	case n == 0:
		return 0, errors.New("is 0, must be more")
	case n > math.MaxInt64:
		return 0, fmt.Errorf("%s is too large", s)
	}
	return int64(n), nil
}

// Interface guards
var (
	_ caddyfile.Unmarshaler = (*App)(nil)
	_ caddyfile.Unmarshaler = (*Handler)(nil)
)
