package brokered

import (
	"errors"
	"fmt"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/nodes"
)

// State is what people see of the connection.
type State struct {
	Node      string  `json:"node"`
	Up        bool    `json:"up"`
	Server    string  `json:"server,omitempty"`
	Problem   string  `json:"problem,omitempty"`
	Watermark uint64  `json:"watermark"`          // the hub has everything up to this position
	Heard     bool    `json:"heard"`              // something has come from the broker
	Lag       float64 `json:"lag_seconds"`        // since the last sign of life, or since the process started
	Nodes     int     `json:"nodes"`              // that are alive, this one included
	Queue     int64   `json:"queue_bytes"`        // received and not yet given to the hub
	MaxData   int     `json:"max_data,omitempty"` // what one message may have
}

// wanted returns the settings of the running configuration, or nil if it has no broker.
func (c *Connection) wanted() *Settings {
	if c == nil { // no configuration is running
		return nil
	}
	s := c.settings.Load()
	if s == nil || s.Broker == nil {
		return nil
	}
	return s
}

// State returns the state, or nil if the configuration has no broker.
func (c *Connection) State() *State {
	settings := c.wanted()
	if settings == nil {
		return nil
	}
	// Stats and Log are two calls, so the two halves may differ by what came in between. That does no harm to people, and
	// the hub's lock is taken only for a moment each time.
	stats := c.hub.Stats()
	s := &State{Node: settings.Name(), Watermark: stats.Seq, Nodes: c.cluster.Alive()}
	heard := stats.Started
	if status, _, ok := c.hub.Log(); ok {
		s.Up, s.Server, s.Problem = status.Up, status.Server, status.Problem
		s.Queue, s.MaxData = status.QueueBytes, status.MaxData
		s.Heard = !status.Heard.IsZero()
		if status.Heard.After(heard) {
			heard = status.Heard
		}
	}
	// Until something has been heard it counts from the start, so that an alert on the lag fires too when the broker was
	// never there.
	s.Lag = time.Since(heard).Round(time.Millisecond).Seconds()
	if err := c.failed.Load(); err != nil {
		s.Up, s.Problem = false, (*err).Error()
	}
	return s
}

// Nodes returns the nodes that share the log and are alive or away, this one first, or nil if the configuration has no broker.
func (c *Connection) Nodes() []nodes.Node {
	if c.wanted() == nil {
		return nil
	}
	return c.cluster.Known()
}

// Shared reports whether the configuration has a broker.
func (c *Connection) Shared() bool { return c.wanted() != nil }

// Health returns why this node should get no clients, or nil. A node that a broker belongs to is healthy from the first time
// that it hears from the broker until it has heard nothing for longer than the option partition_timeout.
func (c *Connection) Health() error {
	settings := c.wanted()
	if settings == nil {
		return nil
	}
	if err := c.failed.Load(); err != nil {
		return fmt.Errorf("the configuration's broker cannot be used: %w", *err)
	}
	status, stats, _ := c.hub.Log()
	// Heard and not Up: for a moment of catching up a load balancer should not take the node out, since its clients would
	// come to the others all at once. And not the state of the connection, because a connection can be there while
	// nothing comes by it: centrifugal/centrifugo#1189.
	silent := time.Since(status.Heard)
	switch {
	// The log hears first, and tells the hub when it has caught up. Until then publishing is refused.
	case status.Heard.IsZero(), !stats.Complete:
		return because("nothing has come from the broker yet", status.Problem)
	case silent > settings.PartitionTimeout:
		return because(fmt.Sprintf("nothing has come from the broker for %s", silent.Round(time.Second)), status.Problem)
	}
	return nil
}

func because(what, why string) error {
	if why != "" {
		what += ": " + why
	}
	return errors.New(what)
}
