package hub

import (
	"cmp"
	"slices"
	"sync"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
)

// catchUp is a log that follows another one of the same epoch. What comes live waits until what the log before has not sent
// is read: of each channel what comes after the last that it has sent. That may be below the watermark: the log before may
// have lost an entry on its way, and not have missed it yet.
type catchUp struct {
	begun bool   // the log has had its first epoch
	at    uint64 // its watermark
	held  []broker.Entry
	bytes int
	lost  bool // held was too much

	opening  int // channels with subscribers that are not open yet
	listed   bool
	channels []caughtUp
	all      bool // there are subscribers of all channels
}

// caughtUp is a channel with subscribers, which is read between two positions. What comes after them comes live.
type caughtUp struct {
	name        string
	from, until uint64
}

// add notes that a channel with subscribers is open.
func (c *catchUp) add(o *openChannel, at uint64) {
	if o.name == "" { // there is no reading of all channels
		c.all = true
		return
	}
	c.channels = append(c.channels, caughtUp{o.name, o.last, at})
}

// maxHeld is how many bytes of entries are held: what one inbox may hold by default. A gap on all channels is better than
// a node that runs out of memory.
const maxHeld = defaultMaxInbox

// holdLocked keeps an entry that has come live until what comes before it is read.
func (c *catchUp) holdLocked(e *broker.Entry) {
	// I5: it is held and not delivered. Its position does not move the watermark yet, as what comes before it is being
	// read.
	c.at = max(c.at, e.Seq)
	if c.bytes += len(e.Data) + messageOverhead; c.bytes > maxHeld {
		c.held, c.lost = nil, true
	}
	if !c.lost {
		c.held = append(c.held, *e)
	}
}

// openSubscribed opens the channels that have subscribers, for a log that takes the place of another one.
func (s *sharedLog) openSubscribed() {
	h := s.hub
	var channels []*openChannel
	flush := func() {
		if len(channels) > 0 {
			s.openChannels(channels)
			channels = nil
		}
	}
	next := ""
	for more := true; more; {
		n := 0
		h.mu.Lock()
		if !s.currentLocked() {
			h.mu.Unlock()
			return
		}
		ready := make(chan struct{})
		if next == "" {
			channels = append(channels, s.resumeLocked(kickChannel, ready)...)
			if h.naming {
				channels = append(channels, s.resumeLocked(toChannel, ready)...)
			}
			if h.all != nil {
				channels = append(channels, s.resumeLocked("", ready)...)
			}
		}
		more = false
		for name := range h.index.from(next, "") {
			if h.channels[name].subscribers > 0 {
				channels = append(channels, s.resumeLocked(name, ready)...)
			}
			next = following(name)
			if n++; n == atOnce {
				more = true
				break
			}
		}
		// Counted before it is asked for, because the answer may come at once.
		if c := s.catchUp; c != nil && len(channels) > 0 {
			c.opening++
		}
		h.mu.Unlock()
		flush()
	}
	h.mu.Lock()
	s.before = nil
	if c := s.catchUp; c != nil {
		c.listed = true
		s.readCatchUpLocked()
	}
	h.mu.Unlock()
}

// resumeLocked adds a channel that has subscribers already, unless somebody else was faster.
func (s *sharedLog) resumeLocked(name string, ready chan struct{}) []*openChannel {
	if s.open[name] != nil {
		return nil
	}
	o := s.addLocked(name, ready)
	o.resume = true
	switch {
	case s.era > 0: // its subscribers were told of a gap when the epoch began
		o.at, o.last, o.floor = s.began, s.began, s.began
	case s.before != nil:
		if before := s.before.findLocked(name); before != nil {
			o.at, o.last, o.floor = before.last, before.last, before.last
			break
		}
		fallthrough
	default: // where it is is not known
		o.at, o.last, o.floor = s.hub.seq, s.hub.seq, s.hub.seq
		if name != kickChannel {
			s.losing = append(s.losing, name)
		}
	}
	return []*openChannel{o}
}

// startCatchUpLocked begins what follows when the log turns out to have the epoch of the one before. The watermark stays
// where it is until what was published between the two is read.
func (s *sharedLog) startCatchUpLocked(at uint64) {
	s.started = true
	s.catchUp.begun = true
	s.catchUp.at = max(s.catchUp.at, at)
	s.readCatchUpLocked()
}

// readCatchUpLocked reads when all is open.
func (s *sharedLog) readCatchUpLocked() {
	if c := s.catchUp; c.begun && c.listed && c.opening == 0 && s.currentLocked() {
		c.opening = -1 // once
		// In a goroutine of its own: it waits for the log, and this may be one of the log's callbacks.
		go s.readCatchUp(c)
	}
}

// readCatchUp reads what the channels have since the log before, and then delivers it together with what has come live, in
// the order of the log.
func (s *sharedLog) readCatchUp(c *catchUp) {
	// Without a lock: it may take seconds, and what comes live is held meanwhile.
	missed, lost := s.missed(c)
	s.order.Lock() // nothing comes live meanwhile
	defer s.order.Unlock()
	h := s.hub
	h.mu.Lock()
	if !s.currentLocked() || s.catchUp != c {
		h.mu.Unlock()
		return
	}
	s.catchUp = nil
	// Some of what came live is gone, so what was read of the time before it is of no use either.
	if c.lost {
		missed, lost = nil, nil
		for _, ch := range c.channels {
			lost = append(lost, ch.name)
		}
	}
	var wake uint64
	// What those on all channels have missed cannot be read: Read is for one channel.
	if c.all && h.all != nil {
		wake = h.all.gapLocked()
	}
	s.losing = append(s.losing, lost...)
	lost = s.losing
	h.mu.Unlock()
	h.wake(wake)
	s.tellLost(lost) // before what comes after it
	s.ingest(inOrder(append(missed, c.held...)))

	h.mu.Lock()
	if s.currentLocked() {
		// I1: at last with what moved the log's watermark while it was held.
		h.seq = max(h.seq, c.at)
	}
	broken := s.broken
	h.mu.Unlock()
	if !broken { // otherwise more of them may come
		s.endLosing()
	}
	h.mu.Lock()
	// I2: last, when all is delivered that a position can stand for.
	s.settled = true
	s.notifyLocked()
	h.mu.Unlock()
}

// missed reads what the log before has not sent, and returns it with the channels of which that is not all. What is read is in
// memory too, so together with what is held it is at most a little more than twice maxHeld.
func (s *sharedLog) missed(c *catchUp) (missed []broker.Entry, lost []string) {
	var mu sync.Mutex // guards what follows
	bytes := 0
	var long []caughtUp
	// In the second round a channel that is still not complete is lost.
	read := func(ch caughtUp, limit int, again bool) {
		es, complete, err := s.log.Read(s.ctx, ch.name, ch.from, maxCaughtUp, limit)
		mu.Lock()
		defer mu.Unlock()
		switch {
		case err == nil && !complete && !again && roomHelps(es, maxCaughtUp):
			long = append(long, ch)
			return
		case err != nil || !complete:
			lost = append(lost, ch.name)
			return
		}
		for _, e := range es {
			if e.Seq <= ch.until {
				bytes += len(e.Data) + messageOverhead
				missed = append(missed, e)
			}
		}
	}
	room := func() int {
		mu.Lock()
		defer mu.Unlock()
		return maxHeld - bytes
	}
	// Most channels have missed little or nothing. Therefore many are read at the same time, each with a small limit: nobody
	// gets a position before the last one is read, and an answer of the broker takes a while.
	places := make(chan struct{}, maxReads)
	var reads sync.WaitGroup
	for _, ch := range c.channels {
		places <- struct{}{}
		if room() < 0 {
			<-places
			mu.Lock()
			lost = append(lost, ch.name)
			mu.Unlock()
			continue
		}
		reads.Go(func() {
			defer func() { <-places }()
			read(ch, shortRead, false)
		})
	}
	reads.Wait()
	for _, ch := range long {
		if left := room(); left < 0 {
			lost = append(lost, ch.name)
		} else {
			read(ch, left, true)
		}
	}
	return missed, lost
}

// maxCaughtUp is how many messages of one channel are read when a log follows another one.
// Usually only a moment passes between the two logs. A channel that had more messages in it has a gap.
const maxCaughtUp = 100_000

// inOrder sorts entries, and drops those that are there twice.
func inOrder(es []broker.Entry) []broker.Entry {
	slices.SortStableFunc(es, func(a, b broker.Entry) int { return cmp.Compare(a.Seq, b.Seq) })
	// An entry is there twice if it came live and was stored before the read.
	return slices.CompactFunc(es, func(a, b broker.Entry) bool { return a.Seq == b.Seq })
}
