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
	wrong := 0
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
			note(m.channel, m.seq, m.data)
		}
	}
	var due, missing, twice, disordered int
	for i, ms := range h.received {
		had, last := map[uint64]bool{}, uint64(0)
		for _, m := range ms {
			switch {
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
		if len(ms) == 0 {
			fail("client %d got nothing", i)
			continue
		}
		for _, channel := range h.channels[i] {
			end := positions[channel+" end "+channel]
			for seq := range byChannel[channel] {
				if seq <= h.begun[i] || seq > end {
					continue // before its first position, or after the channel's end
				}
				if due++; !had[seq] {
					missing++
					fail("client %d on %v did not get %d of %s", i, h.channels[i], seq, channel)
				}
			}
		}
	}
	t.Logf("%d acked, %d due, %d hops, %d refused; missing %d, twice %d, out of order %d; longest silence %v; failed publishes %v; %v",
		len(h.acked), due, h.hops.Load(), h.refused.Load(), missing, twice, disordered,
		time.Duration(h.silence.Load()).Round(time.Millisecond), h.failed, took.Round(100*time.Millisecond))
}

func splitKey(key string) (channel, data string) {
	for i := range key {
		if key[i] == ' ' {
			return key[:i], key[i+1:]
		}
	}
	return key, ""
}
