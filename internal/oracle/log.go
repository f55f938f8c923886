// Package oracle checks what the clients and publishers of a cluster were told against what its log has stored: nothing is
// missing without a gap, nothing comes twice, everything comes in order, and no position is ahead of the log. Tests of the
// hub and the simulation use it. It does not depend on the hub, only on what a brokertest.Memory stores, and on
// transcripts.
package oracle

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
	"github.com/caddy-broadcast/caddy-broadcast/broker/brokertest"
)

// Log is what the log has stored, by epoch. No two messages have the same data.
type Log struct {
	last   string // the epoch
	epochs map[string]map[uint64]stored
	seqs   map[string]map[string][]uint64 // by epoch and channel, in order
	places map[string][]string            // by data
}

type stored struct{ channel, data string }

// NewLog returns a Log of what a Memory has stored, and what is wrong with it: a position that was given twice, or a
// message that was stored twice in an epoch.
func NewLog(epochs []brokertest.Stored) (*Log, []string) {
	l := &Log{epochs: make(map[string]map[uint64]stored), seqs: make(map[string]map[string][]uint64), places: make(map[string][]string)}
	var wrong []string
	for _, s := range epochs {
		l.last = s.Epoch
		entries, seqs, times := make(map[uint64]stored), make(map[string][]uint64), make(map[string]int)
		l.epochs[s.Epoch], l.seqs[s.Epoch] = entries, seqs
		for _, e := range s.Entries {
			data := string(e.Data)
			if entries[e.Seq].data != "" {
				wrong = append(wrong, fmt.Sprintf("position %s-%d was given twice", s.Epoch, e.Seq))
			}
			if times[data]++; times[data] == 2 {
				wrong = append(wrong, fmt.Sprintf("message %s was stored twice in %s", data, s.Epoch))
			}
			entries[e.Seq] = stored{e.Channel, data}
			seqs[e.Channel] = append(seqs[e.Channel], e.Seq)
			l.places[data] = append(l.places[data], fmt.Sprint(s.Epoch, "-", e.Seq))
		}
	}
	return l, wrong
}

// between returns the positions of a channel after one and before another one.
func (l *Log) between(epoch, channel string, after, before uint64) []uint64 {
	seqs := l.seqs[epoch][channel]
	from, found := slices.BinarySearch(seqs, after)
	if found {
		from++
	}
	to, _ := slices.BinarySearch(seqs, before)
	return seqs[from:max(from, to)]
}

// Published is a message, and the answer for each time that it was published.
type Published struct {
	Channel, Data string
	Keyed         bool // so that it may be stored although one of the calls failed
	Answers       []Answer
}

// Answer is what a publisher got: the ID of the message, or an error.
type Answer struct {
	ID  string
	Err error
}

// CheckPublished checks the answers to a publisher: an ack has the position of the message, and a message that was reported
// as not published is not in the log. ended are errors that a publisher may also get when its node ends.
func (l *Log) CheckPublished(m Published, ended ...error) (wrong []string) {
	known := m.Keyed // or it is known that it may be stored
	for _, a := range m.Answers {
		switch {
		case a.Err == nil:
			known = true
			epoch, seq := parseID(a.ID)
			if l.epochs[epoch][seq] != (stored{m.Channel, m.Data}) {
				wrong = append(wrong, fmt.Sprintf("message %s was acked at %s, where it is not", m.Data, a.ID))
			}
		case errors.Is(a.Err, broker.ErrUnknown):
			known = true
		case !errors.Is(a.Err, broker.ErrDown) && !slices.ContainsFunc(ended, func(e error) bool { return errors.Is(a.Err, e) }):
			wrong = append(wrong, fmt.Sprintf("message %s was answered with %v", m.Data, a.Err))
		}
	}
	if places := l.places[m.Data]; len(places) > 0 && !known {
		wrong = append(wrong, fmt.Sprintf("message %s is at %v, but its publisher was told: %v", m.Data, places, m.Answers))
	}
	return wrong
}

// parseID takes an ID apart. An invalid one is the beginning of an epoch without a name.
func parseID(id string) (epoch string, seq uint64) {
	epoch, digits, _ := strings.Cut(id, "-")
	seq, err := strconv.ParseUint(digits, 10, 64)
	if err != nil {
		return "", 0
	}
	return epoch, seq
}

// number returns the number of a brokertest.Memory's epoch. It comes last in the name.
func number(epoch string) int {
	n, err := strconv.Atoi(epoch[strings.LastIndexByte(epoch, 'x')+1:])
	if err != nil {
		panic("the epochs of brokertest.Memory have other names than this package knows: " + epoch)
	}
	return n
}

// whole is after all positions.
const whole = math.MaxUint64
