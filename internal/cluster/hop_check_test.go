package cluster

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// checker compares what the clients of a hop have received with what was stored: what a publisher has an ack for, and what
// any client has received, for then all that were due it must have it.
type checker struct {
	*testing.T
	byChannel map[string]map[uint64]string // what is stored, by position
	positions map[string]uint64            // and its positions, by content
	forgets   bool                         // see hop
	wrong     int

	due, told, unnoticed, missing, twice, disordered, gaps int
}

func (h *hop) check(t *testing.T, took time.Duration) {
	c := &checker{T: t, byChannel: map[string]map[uint64]string{}, positions: map[string]uint64{}, forgets: h.forgets}
	for key, seq := range h.acked {
		channel, data, _ := strings.Cut(key, " ")
		c.note(channel, seq, data)
	}
	for _, ms := range h.received {
		for _, m := range ms {
			switch {
			case m.seq > 0:
				c.note(m.channel, m.seq, m.data)
			case !m.hop:
				c.gaps++
			}
		}
	}
	for i := range h.received {
		c.client(h, i)
	}
	t.Logf("%d acked, %d due, %d hops, %d refused; missing %d, twice %d, out of order %d, %d gaps for %d missed, %d unnoticed; longest silence %v; failed publishes %v; %v",
		len(h.acked), c.due, h.hops.Load(), h.refused.Load(), c.missing, c.twice, c.disordered, c.gaps, c.told, c.unnoticed,
		time.Duration(h.silence.Load()).Round(time.Millisecond), h.failed, took.Round(100*time.Millisecond))
}

// fail counts what is wrong, and says the first of it.
func (c *checker) fail(format string, args ...any) {
	if c.wrong++; c.wrong <= 20 {
		c.Errorf(format, args...)
	}
}

// note notes what is stored.
func (c *checker) note(channel string, seq uint64, data string) {
	if c.byChannel[channel] == nil {
		c.byChannel[channel] = map[uint64]string{}
	}
	if had, ok := c.byChannel[channel][seq]; ok && had != data {
		c.fail("%d on %s is %q and %q", seq, channel, had, data)
	}
	c.byChannel[channel][seq] = data
	key := channel + " " + data
	if at, ok := c.positions[key]; ok && at != seq && !c.forgets {
		c.fail("%q is stored at %d and %d", key, at, seq)
	}
	c.positions[key] = max(c.positions[key], seq)
}

// client checks what one client has received.
func (c *checker) client(h *hop, i int) {
	ms, had, last := h.received[i], map[uint64]bool{}, uint64(0)
	for _, m := range ms {
		switch {
		case m.seq == 0:
			continue
		case had[m.seq]:
			c.twice++
			c.fail("client %d got %d twice", i, m.seq)
		case m.seq < last:
			c.disordered++
			c.fail("client %d got %d after %d", i, m.seq, last)
		}
		had[m.seq], last = true, max(last, m.seq)
		if !slices.Contains(h.channels[i], m.channel) {
			c.fail("client %d got %d of %s", i, m.seq, m.channel)
		}
	}
	for _, channel := range h.channels[i] {
		end := c.positions[channel+" end "+channel]
		for seq := range c.byChannel[channel] {
			if seq <= h.begun[i] || seq > end {
				continue // before its first position, or after the channel's end
			}
			switch c.due++; {
			case had[seq]:
			case (h.lossy || h.forgets) && toldOf(ms, channel, seq):
				c.told++
			case h.lossy && leftBefore(ms, channel, seq):
				c.unnoticed++
			default:
				c.missing++
				after := since(ms, seq)
				c.fail("client %d on %v did not get %d of %s; after it: %v", i, h.channels[i], seq, channel, after[:min(len(after), 10)])
			}
		}
	}
}

// since returns what a client had after the last message before a position.
func since(ms []message, seq uint64) []message {
	after := 0
	for i, m := range ms {
		if m.seq > 0 && m.seq < seq {
			after = i + 1
		}
	}
	return ms[after:]
}

// toldOf reports whether a client was told of a gap when it missed a message: after all that it had before that, and not much
// later.
func toldOf(ms []message, channel string, seq uint64) bool {
	const notMuch = 3000 // messages: they are some seconds
	ms = since(ms, seq)
	return slices.Contains(ms[:min(len(ms), notMuch)], message{channel: channel})
}

// leftBefore reports whether a client left a node when it was past a message that it missed, by a later one or by what it was
// told at the beginning, but had none of its channel. If the message was lost on its way to the node then nothing had shown
// it, and the client's position says that it has it.
func leftBefore(ms []message, channel string, seq uint64) bool {
	passed := false
	for _, m := range since(ms, seq) {
		switch {
		case m.hop && passed:
			return true
		case m.hop:
			passed = m.at > seq
		case m.channel == channel:
			return false
		case m.seq > 0:
			passed = true
		}
	}
	return false
}
