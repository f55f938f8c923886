package main

import (
	"github.com/caddy-broadcast/caddy-broadcast/broker"
	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/nodes"
)

// dial connects a hub to the log, as package brokered does. In scenarios with beats the nodes also tell each other that they
// are there, and how many subscribers they have.
func (c *cluster) dial(n *node, h *hub.Hub) (group *nodes.Cluster, err error) {
	o := broker.Options{Node: h.Node(), Retention: h.Retention()}
	if !c.beats {
		return nil, h.UseLog(func(s broker.Sink) (broker.Log, error) { return n.link.Dial(s, o) })
	}
	group = nodes.New(h)
	session := group.NewSession(channelName(n.number))
	o.Message = session.Receive
	return group, h.UseLog(func(s broker.Sink) (broker.Log, error) {
		log, err := n.link.Dial(session.Sink(s), o)
		if err != nil {
			return nil, err
		}
		return session.Attach(log), nil
	})
}

// redial gives the hub of a node another log. Only scenarios without beats do.
func (c *cluster) redial(n *node) error {
	c.mu.Lock()
	h := n.hub
	c.mu.Unlock()
	_, err := c.dial(n, h)
	return err
}
