package nats

import (
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-broadcast/caddy-broadcast/internal/option"
)

// UnmarshalCaddyfile sets up the broker from its segment of the global option broadcast:
//
//	broker nats <url...> {
//	    stream          <name>
//	    prefix          <name>
//	    replicas        <n>
//	    storage         file|memory
//	    max_bytes       <size>
//	    credentials     <file>
//	    user            <name> <password>
//	    token           <token>
//	    nkey            <file>
//	    tls {
//	        ca          <files...>
//	        cert        <file> <key>
//	        server_name <name>
//	    }
//	    publish_timeout <duration>
//	    manage          on|off
//	}
func (b *Broker) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the name of the broker
	if b.Servers = d.RemainingArgs(); len(b.Servers) == 0 {
		return d.Err("broker nats needs the URL of a server, such as nats://127.0.0.1:4222")
	}
	return option.Block(d, map[string]option.Parser{
		"stream":          option.Word(&b.Stream),
		"prefix":          option.Word(&b.Prefix),
		"replicas":        option.IntBetween(&b.Replicas, 1, maxReplicas),
		"storage":         option.Word(&b.Storage),
		"max_bytes":       option.Size(&b.MaxBytes),
		"credentials":     option.Word(&b.Credentials),
		"user":            args("<name> <password>", &b.User, &b.Password),
		"token":           args("<token>", &b.Token),
		"nkey":            option.Word(&b.NKey),
		"tls":             b.parseTLS,
		"publish_timeout": option.Duration(&b.PublishTimeout),
		"manage":          option.OnOff(&b.Manage),
	})
}

// args parses as many arguments as there are targets. Errors do not quote them, as Caddy's would: one may be a secret.
func args(usage string, targets ...*string) option.Parser {
	return func(d *caddyfile.Dispenser) error {
		name := d.Val()
		if !d.AllArgs(targets...) {
			return d.Errf("%s takes %s", name, usage)
		}
		return nil
	}
}

func (b *Broker) parseTLS(d *caddyfile.Dispenser) error {
	d = d.NewFromNextSegment()
	d.Next()
	if d.NextArg() {
		return d.ArgErr()
	}
	b.TLS = new(TLS)
	return option.Block(d, map[string]option.Parser{
		"ca":          option.Words(&b.TLS.CA),
		"cert":        args("<file> <key>", &b.TLS.Cert, &b.TLS.Key),
		"server_name": option.Word(&b.TLS.ServerName),
	})
}

// Interface guard
var _ caddyfile.Unmarshaler = (*Broker)(nil)
