package hub

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"sync"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
)

// sharedLog is the hub's half of a log that it shares with other nodes. With one, Publish only hands messages to the log,
// and what is delivered is what comes back from it, in the log's order: see ingest. Hub.seq is then the watermark of package
// broker, Hub.epoch is the log's, and the history is a cache of the channels that are open.
//
// A log that was replaced may still call its sink, so each sharedLog is a sink of its own and does nothing when it is not
// Hub.log any more. The hub calls no method of the log under Hub.mu, because callbacks may come before a method returns.
type sharedLog struct {
	hub    *Hub
	log    broker.Log
	ctx    context.Context // of reads: it ends when the log is closed
	cancel context.CancelFunc
	closes sync.Once
	// They have a place for each read at a time.
	shortReads, reads chan struct{}

	// order is held during each call of the sink. What comes before the log is attached waits in early.
	order    sync.Mutex
	attached bool
	early    []func()

	// Guarded by Hub.mu.
	started     bool          // it has had an epoch
	complete    bool          // it has had everything, at least once
	settled     bool          // connections can be given positions
	forgetting  bool          // what the hub has of the epoch before is being dropped
	era         uint32        // counts epochs
	retention   uint32        // counts the changes of what is to be kept
	began       uint64        // where the epoch began, for this node
	changed     chan struct{} // closed when one of these changes, and replaced
	broken      bool          // entries may be missing, and none come
	brokenSince time.Time
	partitioned bool // it was broken for too long
	partition   *time.Timer
	open        map[string]*openChannel
	idle        []idleChannel // those that were left, and may be released if they still are
	idleTimer   *time.Timer
	idling      bool          // releaseIdle runs
	releasing   chan struct{} // while channels are being released; then no others are opened
	before      *sharedLog    // the log that this one follows, until its channels are listed
	catchUp     *catchUp      // while a log follows another one of the same epoch
	losing      []string      // channels that miss something before what will have come when the log is repaired
	lostAll     uint64        // all channels miss something up to here
	traces      *traces       // nil if nobody needs them
	keys        sharedKeys
	counts      *logCounts // the hub's, so that they do not begin again with each reload
}

// openChannel is a channel that the log sends to this node, or is about to. Hub.mu guards it.
type openChannel struct {
	name   string
	opened bool
	era    uint32        // that the positions are of
	at     uint64        // entries after it are delivered
	last   uint64        // the newest that was
	loss   uint64        // the newest of these that a client can miss: that is not transient
	floor  uint64        // as channel.droppedSeq, while the channel is not in Hub.channels
	ready  chan struct{} // closed when it is open, or cannot be
	err    error
	resume bool // it has subscribers of the log before this one, which have all up to last

	reading   *reading // its read that is under way
	retention uint32   // the sharedLog.retention that the next three are of
	asked     int      // how many of its last messages were read, if there are as many
	gone      uint64   // the log does not have all messages after this position
	goneLimit int      // or they have more bytes
	lostAll   uint64   // the last sharedLog.lostAll that the floor has taken into account

	pins     int  // handshakes that need it open
	queued   bool // it is in sharedLog.idle
	idleFrom time.Time
}

// maxReads is how many reads of channels there may be at a time: each holds what it has read.
// With the default max_backlog of 1 MiB this is about 64 MiB, as much as the default history.
const maxReads = 64

// Most clients that come back after a restart, of one node or of all, have missed little or nothing. So a channel is first read
// with a small limit, and many channels at the same time: an answer takes some exchanges with a broker, and thousands of
// handshakes wait. With 64 at a time and a broker that is 10 ms away, 5000 clients that came to a node at once took 9 s instead of 1, and a
// quarter of them got a 503 (go run ./bench -scenarios herd -latency 10ms). Together they hold 16 MiB, and one message each if
// messages are larger than that.
const (
	shortRead     = 16 << 10 // bytes
	maxShortReads = 1024
)

// randomEpoch returns the name of an epoch. It is random and not counted, because a hub that starts again knows
// nothing of the epochs before. With 8 of the 26 characters of rand.Text it has 40 bits.
func randomEpoch() string { return rand.Text()[:8] }

// randomNode returns a number that no other node has, and that is not 0.
func randomNode() uint64 {
	var p [8]byte
	rand.Read(p[:])
	return binary.BigEndian.Uint64(p[:]) | 1
}

// Node returns the number of this hub among those that share a log: broker.Options.Node.
func (h *Hub) Node() uint64 { return h.node }

// Retention returns what a log has to keep for the hub's clients.
func (h *Hub) Retention() broker.Retention {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.config.retention()
}

// retention returns what a log has to keep. HistoryBytes is not in it, because it bounds this node's memory and not
// the log.
func (c *Config) retention() broker.Retention {
	count, age := c.mostKept()
	return broker.Retention{Messages: count, Age: age}
}

// Shared reports whether the hub shares a log with others, so that publishing takes as long as the log's answer.
func (h *Hub) Shared() bool { return h.shared.Load() }

// UseLog makes the hub publish to a log that it shares with others, and deliver what comes from that. With nil it goes back
// to its own. The log before is closed. If the new one has the same epoch, then clients go on and miss nothing: what was
// published meanwhile is read. Otherwise they are told of a gap on all of their channels.
func (h *Hub) UseLog(dial func(broker.Sink) (broker.Log, error)) error {
	// One at a time: each call closes the log that the one before has attached.
	h.attach <- struct{}{}
	defer func() { <-h.attach }()
	if dial == nil {
		h.useOwnLog()
		return nil
	}
	s := &sharedLog{
		hub: h, shortReads: make(chan struct{}, maxShortReads), reads: make(chan struct{}, maxReads),
		changed: make(chan struct{}), open: make(map[string]*openChannel),
		broken: true, brokenSince: time.Now(),
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	// The log may call its sink from here on. It is not the hub's yet, so what it calls waits in early: see call.
	log, err := dial(s)
	if err != nil {
		s.cancel()
		return err
	}
	s.log = log

	// The old log is closed only when the new one is the hub's, so that a publisher finds one of the two at every
	// moment.
	old, err := h.swap(s)
	if err != nil {
		s.close()
		return err
	}
	if old != nil {
		old.close()
	}
	s.order.Lock()
	for _, f := range s.early {
		f()
	}
	s.early, s.attached = nil, true
	s.order.Unlock()
	// Without order: the log may answer Open before it returns, and the answer takes order.
	s.openSubscribed()
	return nil
}

// swap makes a log the hub's, and returns the one before. It does not ask that one whether all has come: what it has not
// sent of a channel is read from the new one.
func (h *Hub) swap(s *sharedLog) (old *sharedLog, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, ErrClosed
	}
	if h.logCounts == nil {
		h.logCounts = newLogCounts()
	}
	s.counts = h.logCounts
	if old = h.log; old != nil {
		old.replacedLocked()
		// The new log does not repair what the old one was losing, so it inherits that.
		s.before, s.losing = old, old.losing
	}
	h.log = s
	h.shared.Store(true)
	// Until Epoch has told which epoch it is, it is treated as if it were the same one: what comes is held. If it
	// is another one, beginEpoch drops what is held.
	s.catchUp = &catchUp{}
	s.startPartitionLocked()
	h.hasSpace.Broadcast() // those that wait to deliver or to publish look at Hub.log again
	return old, nil
}

// useOwnLog ends the use of a shared log. Publishing fails until the history is gone, which is of another epoch.
func (h *Hub) useOwnLog() {
	h.mu.Lock()
	s := h.log
	if s == nil || h.closed {
		h.mu.Unlock()
		return
	}
	h.mu.Unlock()
	// First, because after Close has returned a log calls nothing any more. An answer that came later would put one
	// of its positions in the epoch of the hub's own log.
	s.close()
	// Numbers go on from where they are, but in another epoch: the other nodes go on in the log's, and give the
	// same numbers to other messages (I7).
	s.beginEpoch(randomEpoch(), h.lastSeq())
	h.mu.Lock()
	s.replacedLocked()
	h.log = nil
	h.shared.Store(false)
	h.hasSpace.Broadcast()
	h.mu.Unlock()
}

// lastSeq returns the last position that was given out. The caller does not hold Hub.mu.
func (h *Hub) lastSeq() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.seq
}

// setEpochLocked begins an epoch of the hub.
func (h *Hub) setEpochLocked(epoch string) {
	// Another origin and not a changed one: messages of the epoch before refer to theirs, and keep their IDs.
	h.epoch, h.origin = epoch, &origin{h, epoch}
	h.namesLost = 0 // a position of the epoch before
}

// close ends the log. Publishes without an answer get one before it returns.
func (s *sharedLog) close() {
	s.cancel()
	s.closes.Do(s.log.Close) // UseLog and Hub.Close may both want to
}

// replacedLocked stops what runs for a log that is not Hub.log any more, and has those that wait for it look again.
func (s *sharedLog) replacedLocked() {
	for _, t := range []*time.Timer{s.partition, s.idleTimer, s.keys.renewal} {
		if t != nil {
			t.Stop()
		}
	}
	s.dropTracesLocked()
	s.notifyLocked()
}

// notifyLocked wakes those that wait for the log.
func (s *sharedLog) notifyLocked() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// currentLocked reports whether the hub uses this log, and is not closed.
func (s *sharedLog) currentLocked() bool { return s.hub.log == s && !s.hub.closed }

// call runs what the log calls, in order.
func (s *sharedLog) call(f func()) {
	// A mutex and not a queue with a goroutine: the log has to be held back while the hub has no room, because it
	// is the log that bounds what waits.
	s.order.Lock()
	defer s.order.Unlock()
	if !s.attached {
		s.early = append(s.early, f)
		return
	}
	f()
}

// Epoch implements broker.Sink.
func (s *sharedLog) Epoch(epoch string, at uint64) {
	s.call(func() {
		h := s.hub
		h.mu.Lock()
		follows := s.currentLocked() && h.epoch == epoch
		switch {
		case follows && s.started: // it is the one that there is already
			h.seq = max(h.seq, at)
		case follows:
			s.startCatchUpLocked(at)
		}
		h.mu.Unlock()
		// Outside of the lock, because beginEpoch lets others have it in between.
		if !follows {
			s.beginEpoch(epoch, at)
		}
	})
}

// beginEpoch changes the hub's epoch: what it has of the one before is dropped, and all connections are told of a gap. That
// is done in pieces, and until it is done nobody is given a position.
func (s *sharedLog) beginEpoch(epoch string, at uint64) {
	h := s.hub
	h.mu.Lock()
	if !s.currentLocked() {
		h.mu.Unlock()
		return
	}
	// I2: nobody is given a position while there are messages of two epochs. Handshakes wait meanwhile
	// (nextLocked).
	s.settled, s.forgetting = false, true
	s.catchUp, s.losing, s.lostAll = nil, nil, 0
	// What the open channels know is of another era now. findLocked corrects that where somebody looks: done here,
	// it would be work under the lock that grows with their number.
	s.era++
	s.began = at
	s.counts.epochs++
	h.setEpochLocked(epoch)
	h.seq = at
	// Their positions mean nothing in the new epoch. The log has keys of its own.
	h.forgetKeysLocked()
	// Before anything of the new epoch is in an inbox, so that a client hears of the gap before it gets a position
	// that it cannot compare with its own.
	var wake uint64
	for _, l := range h.loops {
		wake |= l.pushLocked(entry{op: opGap, arg: FormatID(epoch, at)})
	}
	h.mu.Unlock()
	h.wake(wake)
	h.forgetHistory(at)
	h.mu.Lock()
	// For a time after the log, if the hub goes back to its own. While there is a log, floorLocked answers.
	h.droppedSeq = at
	h.epochBegan = time.Now().UnixMilli() // connections that come later have positions of it
	s.started, s.settled, s.forgetting = true, true, false
	s.notifyLocked()
	h.mu.Unlock()
}

// forgetHistory makes every channel begin at a position, and drops all messages, which are of another epoch. A channel that
// is forgotten with its last message leaves where it begins, so that is set first.
func (h *Hub) forgetHistory(at uint64) {
	h.eachChannel(func(ch *channel) { ch.droppedSeq = at })
	h.inPieces(func() bool { return h.trimToLocked(-1, time.Now()) })
}

// eachChannel calls f for every channel, some at a time, under Hub.mu. It may miss those that are new.
func (h *Hub) eachChannel(f func(*channel)) {
	// It goes on after a name and not after a place, because channels come and go between two pieces.
	next := ""
	h.inPieces(func() bool {
		n := 0
		for name := range h.index.from(next, "") {
			f(h.channels[name])
			next = following(name)
			if n++; n == atOnce {
				return false
			}
		}
		return true
	})
}

// Advance implements broker.Sink.
func (s *sharedLog) Advance(seq uint64) {
	s.call(func() {
		h := s.hub
		h.mu.Lock()
		defer h.mu.Unlock()
		switch {
		case !s.currentLocked():
		case s.catchUp != nil:
			// I1: as with an entry that is held, the hub does not have yet what comes before it.
			s.catchUp.at = max(s.catchUp.at, seq)
		default:
			h.seq = max(h.seq, seq)
		}
	})
}

// Broken implements broker.Sink.
func (s *sharedLog) Broken(error) {
	s.call(func() {
		s.hub.mu.Lock()
		defer s.hub.mu.Unlock()
		// A second call does not begin the time again. Otherwise connections would stay for ever with a log that
		// reports the same outage again and again.
		if s.currentLocked() && !s.broken {
			s.broken, s.brokenSince = true, time.Now()
			s.startPartitionLocked()
		}
	})
}

// Repaired implements broker.Sink.
func (s *sharedLog) Repaired() {
	s.call(func() {
		s.hub.mu.Lock()
		catchingUp := s.catchUp != nil // it ends what is lost
		s.hub.mu.Unlock()
		if !catchingUp {
			s.endLosing()
		}
		s.hub.mu.Lock()
		defer s.hub.mu.Unlock()
		if !s.currentLocked() {
			return
		}
		s.broken, s.partitioned, s.complete = false, false, true
		if s.partition != nil {
			s.partition.Stop()
			s.partition = nil
		}
		s.notifyLocked()
	})
}

// startPartitionLocked has the connections closed if the log stays broken.
func (s *sharedLog) startPartitionLocked() {
	if s.partition != nil {
		s.partition.Stop()
		s.partition = nil
	}
	d := s.hub.config.PartitionTimeout
	if d <= 0 || !s.broken || s.partitioned {
		return
	}
	// The timer may fire when the log was repaired and has broken again. Then it is not this time that is over.
	since := s.brokenSince
	s.partition = time.AfterFunc(time.Until(since.Add(d)), func() {
		h := s.hub
		h.mu.Lock()
		if !s.currentLocked() || !s.broken || !s.brokenSince.Equal(since) {
			h.mu.Unlock()
			return
		}
		s.partitioned = true // before they are closed: those that come from now on are refused
		s.notifyLocked()
		h.mu.Unlock()
		// Without the lock, because Kick waits for the loops, and they take it.
		h.Kick(Filter{}, ReasonUnavailable, "the server is cut off from the others")
	})
}

// configureLocked applies changed options of the hub.
func (s *sharedLog) configureLocked(retain bool) {
	if retain {
		s.retention++
	}
	s.startPartitionLocked()
}
