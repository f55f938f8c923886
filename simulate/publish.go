package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/oracle"
)

// message is one that is published.
type message struct {
	oracle.Published
	key  string
	room int
}

// padding makes each message as long as those of the benchmarks, 128 bytes. It is in the name of the event, which is not in
// transcripts, so that those stay small.
var padding = strings.Repeat("x", 120)

// publish publishes messages on random channels until it is told to stop. Half of them have a key.
func (c *cluster) publish() {
	rooms := 1
	if c.room > 0 {
		rooms = (len(c.clients) + c.room - 1) / c.room
	}
	rate := c.rate
	if c.perNode {
		rate *= float64(c.size.nodes)
	}
	timer := time.NewTicker(time.Duration(float64(time.Second) / rate))
	defer timer.Stop()
	for i := 0; ; i++ {
		select {
		case <-c.quiet:
			return
		case <-timer.C:
		}
		c.mu.Lock()
		m := &message{room: c.random.IntN(rooms)}
		if c.several && c.random.IntN(200) == 0 {
			m.room = news
		}
		m.Data, m.Channel, m.Keyed = fmt.Sprint("m", i), channelName(m.room), c.random.IntN(2) == 0
		if m.Keyed {
			m.key = m.Data
		}
		c.sent = append(c.sent, m)
		c.unsent++
		c.mu.Unlock()
		c.running.Go(func() { c.insist(m) })
	}
}

// insist publishes a message, and one with a key again until it is acked, on any node.
func (c *cluster) insist(m *message) {
	for {
		err := c.send(m)
		if err == nil || !m.Keyed {
			break
		}
		if !c.wait(100*time.Millisecond + c.between(time.Second)) {
			return
		}
	}
	c.mu.Lock()
	c.unsent--
	c.mu.Unlock()
}

// send publishes a message once.
func (c *cluster) send(m *message) error {
	n := c.pick(m.room)
	if n == nil {
		return errNobody
	}
	c.mu.Lock()
	h, dead := n.hub, n.killed
	c.mu.Unlock()
	if dead {
		return errDead
	}
	answer := make(chan oracle.Answer, 1)
	out := &hub.Message{Channel: m.Channel, Event: padding, Data: []byte(m.Data), Key: m.key, Publisher: "publisher"}
	h.PublishAsync(out, func(err error) {
		a := oracle.Answer{Err: err}
		if err == nil {
			a.ID = out.ID()
		}
		answer <- a
	})
	a := <-answer
	c.mu.Lock()
	defer c.mu.Unlock()
	if n.hub == h && n.killed {
		a = oracle.Answer{Err: broker.ErrUnknown} // its answer does not arrive
	}
	m.Answers = append(m.Answers, a)
	return a.Err
}
