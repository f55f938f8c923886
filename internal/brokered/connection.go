// Package brokered is the hub's connection to a message broker, as the running configuration wants it.
package brokered

import (
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/nodes"
)

// Settings are what a configuration says about the message broker. They do not change after Use.
type Settings struct {
	Broker     broker.Broker // nil if there is none: the hub is its own log
	Node       string        // what people call this node; empty is the host name
	MaxMessage int64         // of the route that accepts the largest messages

	PartitionTimeout time.Duration

	key string // what the connection is made with
}

// Load takes what Context.LoadModule returns. Two modules with the same ID and the same JSON are one connection.
func (s *Settings) Load(module any, err error) error {
	if err != nil {
		return fmt.Errorf("broker: %w", err)
	}
	b, ok := module.(broker.Broker)
	if !ok {
		return fmt.Errorf("broker: the module %T is not a message broker", module)
	}
	// The module's JSON is all that Dial may depend on. It has placeholders and not their values, so a password that
	// changes behind its placeholder is no reason for another connection.
	options, err := json.Marshal(module)
	if err != nil {
		return fmt.Errorf("broker: %w", err)
	}
	s.Broker, s.key = b, string(module.(caddy.Module).CaddyModule().ID)+" "+string(options)
	return nil
}

// Name returns what people call this node.
func (s *Settings) Name() string {
	if s.Node != "" {
		return s.Node
	}
	name, _ := os.Hostname() // without one the node just has no name
	return name
}

// Connection is the hub's connection to the broker of the running configuration, if that has one. The log outlives the module
// that made it, if the next configuration has the same settings.
type Connection struct {
	hub      *hub.Hub
	cluster  *nodes.Cluster
	settings atomic.Pointer[Settings] // of the running configuration
	failed   atomic.Pointer[error]    // why the hub cannot follow them, or nil

	mu       sync.Mutex // held while the hub changes its log
	key      string     // of the settings that the hub follows
	closed   bool
	reminder *time.Timer // nil without a broker
}

// New returns the connection of a hub that is its own log so far.
func New(h *hub.Hub) *Connection { return &Connection{hub: h, cluster: nodes.New(h)} }

// Cluster returns the nodes that share the log. Without a broker this node is alone.
func (c *Connection) Cluster() *nodes.Cluster { return c.cluster }

// Use has the hub publish to the broker of a configuration, or to none. It keeps a connection that has the same settings.
// It does not wait for the broker. After an error, which is logged, the hub goes on as before.
func (c *Connection) Use(s *Settings) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settings.Store(s)
	c.cluster.Rename(s.Name())
	c.cluster.KeepAway(s.PartitionTimeout)
	var key string
	var dial func(broker.Sink) (broker.Log, error)
	if s.Broker != nil {
		key = s.key + " " + s.Name() // servers show the name
		dial = func(sink broker.Sink) (broker.Log, error) { return c.dial(s, sink) }
	}
	if c.closed {
		return nil
	}
	if key == c.key {
		c.failed.Store(nil)
		return nil
	}
	// On a reload the new configuration runs already (see App.Stop), so it cannot be refused any more. People are told
	// by the log, by GET /broadcast and by the health. At the start of the process Caddy refuses it.
	if err := c.hub.UseLog(dial); err != nil {
		c.failed.Store(&err)
		logger().Error("the broker of this configuration cannot be used: messages go where they went before", zap.Error(err))
		return fmt.Errorf("broker: %w", err)
	}
	c.key = key
	c.failed.Store(nil)
	c.remindLocked(s.Broker != nil)
	return nil
}

// When people are told that nothing comes from the broker. First it has the time that a connection needs; then they are told
// each minute that it still lasts. A broker that was never there breaks nothing, so nothing else would tell them.
const (
	firstReminder    = 5 * time.Second
	reminderInterval = time.Minute
)

func (c *Connection) remindLocked(wanted bool) {
	if c.reminder != nil {
		c.reminder.Stop()
		c.reminder = nil
	}
	if !wanted {
		return
	}
	var timer *time.Timer
	timer = time.AfterFunc(firstReminder, func() {
		if s := c.State(); s != nil && !s.Up {
			logger().Warn("nothing comes from the broker: messages wait, and publishing fails",
				zap.String("problem", s.Problem), zap.Float64("seconds", s.Lag))
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.reminder == timer { // otherwise it was stopped meanwhile
			timer.Reset(reminderInterval)
		}
	})
	c.reminder = timer
}

func (c *Connection) dial(s *Settings, sink broker.Sink) (broker.Log, error) {
	// Once a minute is enough for people to see that it still lasts. A broker that comes and goes would otherwise fill
	// the log.
	session := c.cluster.NewSession(s.Name())
	w := &watched{Sink: session.Sink(sink), connection: c, warn: rate.Sometimes{Interval: time.Minute}}
	log, err := s.Broker.Dial(w, broker.Options{
		Node:      c.hub.Node(),
		Name:      s.Name(),
		Retention: c.hub.Retention(),
		Message:   session.Receive,
	})
	if err != nil {
		return nil, err
	}
	w.log.Store(&log)
	w.check(log.Status())
	return session.Attach(log), nil
}

// Close ends the connection for good.
func (c *Connection) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	// Closed is set under the lock, so a Use that comes later cannot attach a log that nobody would close.
	c.closed = true
	c.remindLocked(false)
	c.hub.UseLog(nil)
}

// watched is the hub's half of a log. It tells people what becomes of the connection, and passes everything on.
type watched struct {
	broker.Sink
	connection *Connection
	log        atomic.Pointer[broker.Log] // nil until Dial has returned
	warn       rate.Sometimes             // of a broker that comes and goes
	tooSmall   atomic.Int64               // the limit that people were warned of
}

// logger returns Caddy's logger. The one of the module would be that of a configuration which may have ended.
var logger = func() *zap.Logger { return caddy.Log().Named("broadcast.broker") } // a variable for tests

// Broken implements broker.Sink.
func (w *watched) Broken(why error) {
	w.warn.Do(func() {
		logger().Warn("nothing comes from the broker: messages wait, and publishing fails", zap.Error(why))
	})
	w.Sink.Broken(why)
}

// Repaired implements broker.Sink.
func (w *watched) Repaired() {
	// First the hub and then the message, because the message says that the hub has everything.
	w.Sink.Repaired()
	w.connected()
}

// Epoch implements broker.Sink.
func (w *watched) Epoch(epoch string, at uint64) {
	logger().Info("the log of the broker begins", zap.String("epoch", epoch), zap.Uint64("at", at))
	w.Sink.Epoch(epoch, at)
}

// connected says where the hub is connected to.
func (w *watched) connected() {
	// A Sink may be called before Dial has returned the log that it is called by. Then dial itself checks it.
	log := w.log.Load()
	if log == nil {
		return
	}
	status := (*log).Status()
	logger().Info("the hub has everything that the broker has", zap.String("server", status.Server))
	w.check(status)
}

// check warns of routes that accept what the broker does not.
func (w *watched) check(status broker.Status) {
	// The settings of now and not those that the connection was made with: a reload that changes max_message keeps the
	// connection. The broker's limit may change with each server, and people are told of each limit once.
	limit, most := int64(status.MaxData), w.connection.settings.Load().MaxMessage
	if limit > 0 && most > limit && w.tooSmall.Swap(limit) != limit {
		logger().Warn("a route accepts messages that are larger than the broker accepts; they get a 413: lower max_message, or raise the broker's limit",
			zap.Int64("max_message", most), zap.Int64("limit", limit))
	}
}
