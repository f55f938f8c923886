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
		log, err := n.link.Dial(watched{s, session}, o)
		if err != nil {
			return nil, err
		}
		session.Start(log.(broker.Peers))
		return parting{log, session}, nil
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

// watched tells the session when the node is cut off.
type watched struct {
	broker.Sink
	session *nodes.Session
}

func (w watched) Broken(why error) {
	w.session.Interrupted()
	w.Sink.Broken(why)
}

func (w watched) Repaired() {
	w.Sink.Repaired()
	w.session.Recovered()
}

// parting says goodbye to the other nodes before the log is closed.
type parting struct {
	broker.Log
	session *nodes.Session
}

// Close implements broker.Log.
func (p parting) Close() {
	p.session.Close()
	p.Log.Close()
}
