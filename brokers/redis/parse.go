package redis

import (
	"strconv"
	"strings"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
	"github.com/caddy-broadcast/caddy-broadcast/internal/brokerlog"
)

// stored is what the scripts put before what they publish: "<epoch> <position> <time> ", where the time is of the server's
// clock. rest is an entry's envelope, or the nonce of a tick.
type stored struct {
	epoch string
	seq   uint64
	time  int64
	rest  string
}

// parse takes a message apart. It is false if no script made it.
func parse(text string) (m stored, ok bool) {
	var seq, at string
	if m.epoch, text, ok = strings.Cut(text, " "); !ok || !brokerlog.IsEpoch(m.epoch) {
		return m, false
	}
	if seq, text, ok = strings.Cut(text, " "); !ok {
		return m, false
	}
	if at, m.rest, ok = strings.Cut(text, " "); !ok {
		return m, false
	}
	if m.seq, ok = parseSeq(seq); !ok {
		return m, false
	}
	var err error
	m.time, err = strconv.ParseInt(at, 10, 64)
	return m, err == nil
}

// maxSeq is the largest position that the scripts can count, whose numbers are floating-point.
const maxSeq = 1 << 53

func parseSeq(text string) (uint64, bool) {
	seq, err := strconv.ParseUint(text, 10, 64)
	return seq, err == nil && seq <= maxSeq
}

// parseID takes the ID of an entry in a stream apart: "<position>-<time>".
func parseID(id string) (seq uint64, at int64, ok bool) {
	position, time, ok := strings.Cut(id, "-")
	if !ok {
		return 0, 0, false
	}
	if seq, ok = parseSeq(position); !ok {
		return 0, 0, false
	}
	at, err := strconv.ParseInt(time, 10, 64)
	return seq, at, err == nil
}

// parsePlaces reads the answer of publish.lua, after its K, for n entries. A place with position 0 is a conflict.
func parsePlaces(text string, n int) (places []broker.Place, ok bool) {
	now, text, _ := strings.Cut(text, " ")
	at, err := strconv.ParseInt(now, 10, 64)
	if err != nil {
		return nil, false
	}
	places = make([]broker.Place, n)
	for i := range places {
		var word string
		word, text, _ = strings.Cut(text, " ")
		p := &places[i]
		switch {
		case word == "c":
			continue
		case strings.HasPrefix(word, "r"):
			p.Repeated = true
			seq, time, found := strings.Cut(word[1:], ":")
			if p.Time, err = strconv.ParseInt(time, 10, 64); err != nil || !found {
				return nil, false
			}
			word = seq
		default:
			p.Time = at
		}
		if p.Seq, ok = parseSeq(word); !ok || p.Seq == 0 {
			return nil, false
		}
	}
	return places, text == ""
}
