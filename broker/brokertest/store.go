package brokertest

import (
	"cmp"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
)

// keyWindow is how long a key is known. It is what broker.Entry promises at least, and the default of JetStream
// (StreamDefaultDuplicatesWindow, server/stream.go, v2.15.2).
const keyWindow = 2 * time.Minute

// store is what a Memory keeps. It knows nothing of connections or faults. It is guarded by clock.mu.
type store struct {
	epoch epoch
	name  string // begins the epochs: no other store of the process has it
	seq   uint64
	time  int64

	all      []broker.Entry // for Memory.Stored
	past     []Stored
	channels map[string]*stored
	keys     map[[16]byte]known

	keep    int
	retains map[*memoryLog]broker.Retention
	// What trim keeps of a channel: the most that a node asks for. It is kept ready, because trim is called with each entry and
	// there may be a thousand nodes. An age of 0 is no limit.
	most broker.Retention
}

// epoch is one of a store. They are numbered from 1, and a log that has had none yet is in number 0. The number tells which
// of two is the later one, which a name cannot.
type epoch struct {
	number int
	name   string
}

// stored is a channel's entries.
type stored struct {
	entries []broker.Entry
	dropped uint64 // the newest that is not kept
	last    uint64
}

// known is what was published with a key. It keeps the digest and not the entry, so that it does not matter whether the entry
// is still kept.
type known struct {
	place  broker.Place
	digest uint64
	at     time.Time
}

// chained is an entry with the position of the one before it in its channel. That is what a node finds holes with. With NATS
// it comes in the header Nats-Last-Sequence.
type chained struct {
	broker.Entry
	prev uint64
}

// stores counts those of the process. Two Memories are two logs: with the same epoch a hub that changes from one to the other
// would take them for one, and give clients the positions of the one for the other's.
var stores atomic.Uint64

func (s *store) init(keep int) {
	s.keep, s.name, s.most.Messages = keep, fmt.Sprint("memory", stores.Add(1), "x"), keep
	s.channels, s.keys = make(map[string]*stored), make(map[[16]byte]known)
	s.retains = make(map[*memoryLog]broker.Retention)
	s.nextEpoch()
}

func (s *store) nextEpoch() {
	n := s.epoch.number + 1
	s.epoch = epoch{n, fmt.Sprint(s.name, n)}
}

// of returns a channel, which it makes if it is new. Channels are never removed: prev and dropped have to outlive their
// entries.
func (s *store) of(channel string) *stored {
	c := s.channels[channel]
	if c == nil {
		c = &stored{}
		s.channels[channel] = c
	}
	return c
}

// append stores entries, or none. Those that were stored before are not in what it returns, but have a place.
func (s *store) append(es []broker.Entry) (added []chained, places []broker.Place, err error) {
	now := time.Now()
	// Before anything is stored: a call is stored as a whole.
	if !s.keysFit(es, now) {
		return nil, nil, broker.ErrConflict
	}
	// The log's times are in its order, even if the clock goes back.
	s.time = max(s.time, now.UnixMilli())
	for _, e := range es {
		if k, ok := s.known(e.Key, now); ok {
			k.place.Repeated = true
			places = append(places, k.place)
			continue
		}
		s.seq++
		e.Seq, e.Time = s.seq, s.time
		c := s.of(e.Channel)
		added = append(added, chained{e, c.last})
		c.last = e.Seq
		c.entries = append(c.entries, e)
		s.all = append(s.all, e)
		place := broker.Place{Seq: e.Seq, Time: e.Time}
		places = append(places, place)
		if e.Key != [16]byte{} {
			s.keys[e.Key] = known{place, e.Digest, now}
		}
	}
	for _, e := range added {
		s.trim(s.of(e.Channel))
	}
	return added, places, nil
}

// known returns what was published with a key, unless it was too long ago. The zero key is none.
func (s *store) known(key [16]byte, now time.Time) (known, bool) {
	k, ok := s.keys[key]
	return k, ok && key != [16]byte{} && now.Sub(k.at) < keyWindow
}

// keysFit reports whether no key was used for another entry.
func (s *store) keysFit(es []broker.Entry, now time.Time) bool {
	// Keys of the same call count too: the second entry would be a repetition of the first.
	own := make(map[[16]byte]uint64)
	for _, e := range es {
		if e.Key == [16]byte{} {
			continue
		}
		digest, ok := own[e.Key]
		if k, before := s.known(e.Key, now); before {
			digest, ok = k.digest, true
		}
		if ok && digest != e.Digest {
			return false
		}
		own[e.Key] = e.Digest
	}
	return true
}

// retain notes what a node wants to be kept, and release that it has gone.
func (s *store) retain(l *memoryLog, r broker.Retention) {
	s.retains[l] = r
	s.retained()
}

func (s *store) release(l *memoryLog) {
	delete(s.retains, l)
	s.retained()
}

// retained finds what trim has to keep. Each node may ask for another retention, and none may lose what it has asked for.
func (s *store) retained() {
	s.most = broker.Retention{Messages: s.keep}
	limited := len(s.retains) > 0
	for _, r := range s.retains {
		s.most.Messages, s.most.Age = max(s.most.Messages, r.Messages), max(s.most.Age, r.Age)
		limited = limited && r.Age > 0
	}
	if !limited {
		s.most.Age = 0
	}
}

// trim drops what is more, or older, than each of the nodes wants.
func (s *store) trim(c *stored) {
	drop := max(0, len(c.entries)-s.most.Messages)
	if s.most.Age > 0 {
		oldest := time.Now().Add(-s.most.Age).UnixMilli()
		for drop < len(c.entries) && c.entries[drop].Time < oldest {
			drop++
		}
	}
	c.drop(drop)
}

// drop removes the oldest n entries and notes that they are gone. dropped is what lets read and missed say later that
// something is missing.
func (c *stored) drop(n int) {
	if n > 0 {
		c.dropped = c.entries[n-1].Seq
		c.entries = slices.Delete(slices.Clone(c.entries), 0, n)
	}
}

// forget is Memory.Forget.
func (s *store) forget(channel string, keep int) {
	c := s.of(channel)
	c.drop(max(0, len(c.entries)-keep))
}

// rollback removes the newest n entries, and everything that was given a position after the one before them.
func (s *store) rollback(n int) {
	s.past = append(s.past, Stored{s.epoch.name, s.all})
	s.nextEpoch()
	s.all = s.all[:max(0, len(s.all)-n)]
	s.seq = 0
	if len(s.all) > 0 {
		s.seq = s.all[len(s.all)-1].Seq
	}
	// Cloned, so that what is appended from now on does not overwrite the entries that past has.
	s.all = slices.Clone(s.all)
	for _, c := range s.channels {
		i := c.after(s.seq)
		c.entries = slices.Clone(c.entries[:i])
		c.dropped, c.last = min(c.dropped, s.seq), min(c.last, s.seq) // last may be too much: it is not a chain any more
	}
	for key, k := range s.keys {
		// Otherwise the key would answer with a position that the new epoch gives to another entry: I7.
		if k.place.Seq > s.seq {
			delete(s.keys, key)
		}
	}
}

// after returns the index of the first entry after a position.
func (c *stored) after(seq uint64) int {
	i, found := slices.BinarySearchFunc(c.entries, seq, func(e broker.Entry, seq uint64) int { return cmp.Compare(e.Seq, seq) })
	if found {
		i++
	}
	return i
}

// read is broker.Log.Read.
func (s *store) read(channel string, after uint64, n, bytes int) (es []broker.Entry, complete bool) {
	c := s.of(channel)
	s.trim(c)
	// By position and not by number: what was dropped need not have been after the position that is asked for.
	complete = after >= c.dropped
	for _, e := range c.entries[c.after(after):] {
		// The first comes in any case, or a reader with little room would never get on.
		if bytes -= len(e.Data); len(es) == n || bytes < 0 && len(es) > 0 {
			return es, false
		}
		es = append(es, e)
	}
	return es, complete
}

// newest is broker.Log.Last.
func (s *store) newest(channel string, n, bytes int) []broker.Entry {
	c := s.of(channel)
	s.trim(c)
	i := len(c.entries)
	for i > 0 && len(c.entries)-i < n {
		if bytes -= len(c.entries[i-1].Data); bytes < 0 && i < len(c.entries) {
			break
		}
		i--
	}
	return slices.Clone(c.entries[i:])
}

// due returns the channels of which a node may lack something. With "" that is all there are. Otherwise it looks only at the
// node's own: when a thousand nodes connect again at once, each has few of them.
func (s *store) due(subs map[string]*subscription) map[string]*stored {
	if subs[""] != nil {
		return s.channels
	}
	own := make(map[string]*stored, len(subs))
	for name := range subs {
		if c := s.channels[name]; c != nil {
			own[name] = c
		}
	}
	return own
}

// missed returns what a node that is sure to have all up to a position may lack, and the channels of which some is gone.
func (s *store) missed(subs map[string]*subscription, certain uint64) (es []broker.Entry, lost []string) {
	for name, c := range s.due(subs) {
		from, due := uint64(0), false
		// A channel may be open by its name and through "". The one that goes back further decides.
		for _, sub := range []*subscription{subs[name], subs[""]} {
			if sub == nil || !sub.open {
				continue
			}
			if f := max(certain, sub.at); !due || f < from {
				from, due = f, true
			}
		}
		if !due {
			continue
		}
		s.trim(c)
		es = append(es, c.entries[c.after(from):]...)
		if c.dropped > from {
			lost = append(lost, name)
		}
	}
	slices.SortFunc(es, func(a, b broker.Entry) int { return cmp.Compare(a.Seq, b.Seq) })
	slices.Sort(lost)
	return es, lost
}
