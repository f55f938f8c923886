package brokertest

import (
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
)

// This file is how a memoryLog notices that it lacks something, and how it gets that.

// connectLocked makes a connection, if the broker can be reached.
func (l *memoryLog) connectLocked() {
	m, b := l.memory, l.broker
	if l.closed || l.session != nil || m.down || b.cut {
		return
	}
	l.session = &session{memory: m, log: l}
	l.heard = time.Now()
	l.attachLocked()
	for _, p := range l.publishes {
		l.sendPublishLocked(p) // all of its entries have keys, so none is stored twice
	}
}

// disconnectLocked notices that the connection is lost.
func (l *memoryLog) disconnectLocked(cause string, why error) {
	if l.session == nil {
		return
	}
	l.session.close()
	l.session = nil
	l.breakLocked(cause, why)
	l.failLocked(broker.ErrDown, func(p *publish) bool {
		for _, e := range p.entries {
			if e.Key == [16]byte{} {
				return true
			}
		}
		return false // it is sent again, and one that is stored already is found by its keys
	})
}

// breakLocked begins the doubt. From here on nothing is given to the sink (rule 5 of package broker), even if it comes: held
// keeps it until the repair.
func (l *memoryLog) breakLocked(cause string, why error) {
	l.problem = why.Error()
	// Whatever is held will be read again, and what comes from now on is of another connection.
	l.held = nil
	if l.broken {
		return
	}
	l.broken = true
	l.repairs[cause]++
	l.emit(func() { l.sink.Broken(why) })
}

// repairLocked begins to read what the node lacks.
func (l *memoryLog) repairLocked(cause string) {
	l.breakLocked(cause, errMissed)
	l.attachLocked()
}

// textError is an error that can be a constant.
type textError string

func (e textError) Error() string { return string(e) }

const errMissed = textError("an entry was missed")

// attachLocked asks for what the node may lack, of the channels that are open, and subscribes it to all of them.
func (l *memoryLog) attachLocked() {
	subs := make(map[string]*subscription, len(l.subs))
	for name, sub := range l.subs {
		subs[name] = sub
	}
	s := l.session
	s.toBroker(func() { s.attach(subs) })
}

// attachedLocked is given what the node may lack, up to a position. From there on all comes live. Lost, entries, Advance,
// Repaired and the answers of Open come in this order, because the recorder and the hub rely on it: what is missing is named
// before anything that follows it.
func (l *memoryLog) attachedLocked(subs map[string]*subscription, epoch, asked epoch, at uint64, es []broker.Entry, lost []string) {
	l.heard = time.Now()
	switch {
	case epoch.number > l.epoch.number:
		l.beginLocked(epoch, at)
	case asked != l.epoch: // this is not about the epoch that the node was told of meanwhile
		l.attachLocked()
		return
	default:
		l.caughtUpLocked(subs, at, es, lost)
	}
	l.held, l.got, l.broken, l.problem = nil, 0, false, ""
	clear(l.last)
	l.emit(l.sink.Repaired)
	l.openLocked(subs, at)
	l.passLocked(l.afterRepair, nil)
	l.afterRepair = nil
}

// caughtUpLocked gives the sink what the node lacks. What is lost comes first. What the broker kept and what came live
// meanwhile may overlap, so the two are merged by position.
func (l *memoryLog) caughtUpLocked(subs map[string]*subscription, at uint64, es []broker.Entry, lost []string) {
	if len(lost) > 0 {
		l.emit(func() { l.sink.Lost(lost) })
	}
	var run []broker.Entry
	for _, e := range sortedBySeq(append(es, l.held...)) {
		if !l.seen[e.Seq] && e.Seq > l.certain {
			run = append(run, e)
		}
	}
	l.giveLocked(run)
	l.advanceLocked(at)
	l.certainLocked()
	for name, sub := range subs {
		if l.subs[name] == sub && sub.open {
			sub.at = at
		}
	}
}

// beginLocked begins another epoch. Channels that are open stay so, from its beginning on.
func (l *memoryLog) beginLocked(e epoch, at uint64) {
	l.epoch, l.w, l.got, l.held = e, at, 0, nil
	l.certainLocked()
	clear(l.last)
	for _, sub := range l.subs {
		if sub.open {
			sub.at = at
		}
	}
	l.events.add(func(closed bool) {
		l.told.tell(e, func() {
			if !closed {
				l.sink.Epoch(e.name, at)
			}
		})
	})
	early := l.early
	l.early = nil
	for _, answer := range early {
		answer()
	}
}

// epochChangedLocked is told, in the order of the entries, that the broker has begun another epoch.
func (l *memoryLog) epochChangedLocked(e epoch, at uint64) {
	l.heard = time.Now()
	if e.number > l.epoch.number {
		l.beginLocked(e, at)
	}
}

// receiveLocked is given entries that come live. An entry is given at once if the one before it on its channel has come. It
// does not wait for other channels: each has its own chain, as in NATS.
func (l *memoryLog) receiveLocked(run []chained) {
	l.heard = time.Now()
	l.got += uint64(len(run))
	var good []broker.Entry
	for _, e := range run {
		if !l.broken && l.lacksLocked(e) {
			// What came before the hole is in order, so it is given before Broken.
			l.giveLocked(good)
			good = nil
			l.repairLocked("chain")
		}
		if l.broken {
			l.held = append(l.held, e.Entry)
			continue
		}
		l.last[e.Channel] = e.Seq
		good = append(good, e.Entry)
	}
	l.giveLocked(good)
}

// lacksLocked reports whether the entry before this one in its channel was due and did not come.
func (l *memoryLog) lacksLocked(e chained) bool {
	if e.prev <= l.last[e.Channel] {
		return false
	}
	for _, name := range [...]string{e.Channel, ""} {
		if sub := l.subs[name]; sub != nil && sub.open && e.prev > sub.at {
			return true
		}
	}
	return false
}

// giveLocked gives entries to the sink. W moves when the entries are queued and not when the sink has them. That is safe
// because whatever tells a position goes through the same queue.
func (l *memoryLog) giveLocked(run []broker.Entry) {
	if len(run) == 0 {
		return
	}
	var size int64
	for _, e := range run {
		l.seen[e.Seq] = true
		l.w = max(l.w, e.Seq)
		size += int64(len(e.Data))
	}
	l.queued.Add(size)
	l.emit(func() {
		l.sink.Entries(run)
		l.queued.Add(-size)
	})
}

// advanceLocked moves W.
func (l *memoryLog) advanceLocked(at uint64) {
	if at > l.w {
		l.w = at
		l.emit(func() { l.sink.Advance(at) })
	}
}

// certainLocked notes that everything up to W has come. It is called where the counts of the broker and of the node were
// equal, after a repair, and at the beginning of an epoch. Only then is no hole possible, and what came after the last such
// moment can be forgotten.
func (l *memoryLog) certainLocked() {
	l.certain = l.w
	clear(l.seen)
}
