// Package logwriter has the log writer `broadcast`, which publishes Caddy's log entries on a channel of the hub.
//
// Logging must never wait for the hub, so a writer only puts entries in a queue, which a goroutine publishes as long as there
// are any. What the hub or its connections log may come back here while they hold locks of theirs.
package logwriter

import (
	"errors"
	"fmt"
	"io"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
)

func init() {
	caddy.RegisterModule(Writer{})
}

// Writer is a log writer that publishes each log entry as a message. With the encoder `json`, which is the default, the message
// is the entry as JSON. With others it is text.
//
// The channel needs a route that subscribes to it, or the app `broadcast`: without the app nothing is published.
//
// Logging never waits for subscribers. At most 1 MiB of entries wait to be published, and an entry has at most 64 KiB. What is
// beyond that is dropped, and counted in the metric `caddy_broadcast_log_dropped_total`. At its place in the channel there is an
// entry that says how many were dropped (`"logger":"broadcast.log"`, `"dropped":7`). When Caddy exits, it waits up to a second for
// entries that are not published yet. Logs with the same channel share what may wait.
//
// Entries about reading the log are not published, because each could cause the next one. These are requests to the routes on
// which a channel with log entries can be read, and those of Socket.IO sessions that poll, which have `"broadcast_log":true` in
// other logs; requests to `/broadcast` of the admin API; at the level `DEBUG`, what the loggers `http.…` and `tls.…` log about
// requests; and what the writer logs itself. They are recognized in the formats `json` and `console` with their usual keys. With
// another format use `log_skip` for the route, and exclude the logger `admin.api`.
type Writer struct {
	// The channel to publish on. Whoever may subscribe to it can read the log, with the addresses and requests of
	// visitors. Placeholders such as `{env.HOSTNAME}` are expanded when the configuration is loaded. Required.
	Channel string `json:"channel,omitempty"`

	listed bool // in channels
}

// CaddyModule returns the Caddy module information.
func (Writer) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "caddy.logging.writers.broadcast", New: func() caddy.Module { return new(Writer) }}
}

// Provision expands and checks the channel. It cannot ask for the app: Caddy opens logs before it has any.
func (w *Writer) Provision(caddy.Context) error {
	if w.Channel == "" {
		return errors.New("no channel is given to publish log entries on")
	}
	channel, err := caddy.NewReplacer().ReplaceOrErr(w.Channel, true, true)
	if err == nil {
		err = hub.CheckName(fmt.Sprintf("the channel %q", w.Channel), channel)
	}
	if err != nil {
		return err
	}
	w.Channel, w.listed = channel, true
	list(channel, 1)
	return nil
}

// Cleanup ends what Provision began. The writer itself may be the next configuration's too.
func (w *Writer) Cleanup() error {
	if w.listed {
		list(w.Channel, -1)
	}
	return nil
}

// String tells people where log entries go.
func (w *Writer) String() string { return "broadcast:" + w.Channel }

// WriterKey has logs with the same channel share a writer.
func (w *Writer) WriterKey() string { return w.String() }

// OpenWriter opens the writer.
func (w *Writer) OpenWriter() (io.WriteCloser, error) { return open(w.Channel), nil }

// UnmarshalCaddyfile sets up the writer from the arguments of a log's output:
//
//	log {
//	    output broadcast <channel>
//	}
func (w *Writer) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the writer's name
	if !d.NextArg() {
		return d.Err("output broadcast needs the channel to publish on")
	}
	w.Channel = d.Val()
	if d.NextArg() {
		return d.ArgErr()
	}
	if d.NextBlock(0) {
		return d.Errf("output broadcast has no options, but there is %q", d.Val())
	}
	return nil
}

// Interface guards
var (
	_ caddy.Provisioner     = (*Writer)(nil)
	_ caddy.CleanerUpper    = (*Writer)(nil)
	_ caddy.WriterOpener    = (*Writer)(nil)
	_ caddyfile.Unmarshaler = (*Writer)(nil)
)
