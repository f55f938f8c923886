package events

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"

	"github.com/caddy-broadcast/caddy-broadcast/internal/active"
	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
)

func init() {
	caddy.RegisterModule(Publisher{})
}

// Publisher is an event handler that publishes Caddy's events, such as `cert_obtained`. Each becomes a message. The message's
// event is the name of Caddy's event, and its data is that event as a [CloudEvent](https://cloudevents.io) in JSON.
type Publisher struct {
	// The channel to publish on. Placeholders are expanded, including those of the event: `{event.name}`,
	// `{event.data.*}`. Default: `default`.
	Channel string `json:"channel,omitempty"`

	hub *hub.Hub
}

// CaddyModule returns the Caddy module information.
func (Publisher) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "events.handlers.broadcast", New: func() caddy.Module { return new(Publisher) }}
}

// Provision sets up the handler.
func (p *Publisher) Provision(ctx caddy.Context) error {
	p.Channel = cmp.Or(p.Channel, "default")
	app, err := active.In(ctx)
	p.hub = app.Hub
	return err
}

// UnmarshalCaddyfile sets up the handler from the arguments of an event's subscription:
//
//	events {
//	    on <event> broadcast [<channel>]
//	}
func (p *Publisher) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the handler's name
	if d.NextArg() {
		p.Channel = d.Val()
	}
	if d.NextArg() {
		return d.ArgErr()
	}
	return nil
}

// Handle publishes an event.
func (p *Publisher) Handle(ctx context.Context, e caddy.Event) error {
	channel := p.Channel
	if repl, ok := ctx.Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		channel = repl.ReplaceAll(channel, "")
	}
	data, err := json.Marshal(e.CloudEvent())
	if err == nil {
		err = p.hub.Publish(&hub.Message{Channel: channel, Event: e.Name(), Data: data, Kind: hub.JSON, Source: hub.SourceEvent})
	}
	if err != nil {
		return fmt.Errorf("publishing the event %s on the channel %q: %w", e.Name(), p.Channel, err)
	}
	return nil
}

// Interface guards
var (
	_ caddy.Provisioner     = (*Publisher)(nil)
	_ caddyfile.Unmarshaler = (*Publisher)(nil)
	_ caddyevents.Handler   = (*Publisher)(nil)
)
