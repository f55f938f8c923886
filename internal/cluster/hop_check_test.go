package cluster

import (
	"slices"
	"testing"
	"time"
)

// check compares what the clients have received with what was stored: what a publisher has an ack for, and what any client
// has received, for then all that were due it must have it.
func (h *hop) check(t *testing.T, took time.Duration) {
	byChannel := map[string]map[uint64]string{} // what is stored
	positions := map[string]uint64{}            // by content
	wrong, gaps := 0, 0
	fail := func(format string, args ...any) {
		if wrong++; wrong <= 20 {
			t.Errorf(format, args...)
		}
	}
	note := func(channel string, seq uint64, data string) {
		if byChannel[channel] == nil {
			byChannel[channel] = map[uint64]string{}
		}
		if had, ok := byChannel[channel][seq]; ok && had != data {
			fail("%d on %s is %q and %q", seq, channel, had, data)
		}
		byChannel[channel][seq] = data
		key := channel + " " + data
		if at, ok := positions[key]; ok && at != seq {
			fail("%q is stored at %d and %d", key, at, seq)
		}
		positions[key] = seq
	}
	for key, seq := range h.acked {
		channel, data := splitKey(key)
		note(channel, seq, data)
	}
	for _, ms := range h.received {
		for _, m := range ms {
			if m.seq == 0 {
				if !m.hop {
					gaps++
				}
				continue
			}
			note(m.channel, m.seq, m.data)
		}
	}
	var due, told, unnoticed, missing, twice, disordered int
	for i, ms := range h.received {
		had, last := map[uint64]bool{}, uint64(0)
		for _, m := range ms {
			switch {
			case m.seq == 0:
				continue
			case had[m.seq]:
				twice++
				fail("client %d got %d twice", i, m.seq)
			case m.seq < last:
				disordered++
				fail("client %d got %d after %d", i, m.seq, last)
			}
			had[m.seq], last = true, max(last, m.seq)
			if !slices.Contains(h.channels[i], m.channel) {
				fail("client %d got %d of %s", i, m.seq, m.channel)
			}
		}
		if len(had) == 0 {
			fail("client %d got nothing", i)
			continue
		}
		for _, channel := range h.channels[i] {
			end := positions[channel+" end "+channel]
			for seq := range byChannel[channel] {
				if seq <= h.begun[i] || seq > end {
					continue // before its first position, or after the channel's end
				}
				switch due++; {
				case had[seq]:
				case toldOf(ms, channel, seq):
					told++
				case h.lossy && leftBefore(ms, channel, seq):
					unnoticed++
				default:
					missing++
					fail("client %d on %v did not get %d of %s", i, h.channels[i], seq, channel)
				}
			}
		}
	}
	t.Logf("%d acked, %d due, %d hops, %d refused; missing %d, twice %d, out of order %d, %d gaps for %d missed, %d unnoticed; longest silence %v; failed publishes %v; %v",
		len(h.acked), due, h.hops.Load(), h.refused.Load(), missing, twice, disordered, gaps, told, unnoticed,
		time.Duration(h.silence.Load()).Round(time.Millisecond), h.failed, took.Round(100*time.Millisecond))
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

// leftBefore reports whether a client left a node when it had messages after one that it missed, but none of its channel. If
// that one was lost on its way to the node then nothing had shown it, and the client's position says that it has it.
func leftBefore(ms []message, channel string, seq uint64) bool {
	passed := false
	for _, m := range since(ms, seq) {
		switch {
		case m.hop && passed:
			return true
		case m.channel == channel:
			return false
		case m.seq > 0:
			passed = true
		}
	}
	return false
}

func splitKey(key string) (channel, data string) {
	for i := range key {
		if key[i] == ' ' {
			return key[:i], key[i+1:]
		}
	}
	return key, ""
}
