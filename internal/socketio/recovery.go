package socketio

import (
	"container/list"
	"slices"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/socketio/packet"
)

// Bounds of what is kept of sessions that have ended. What comes first ends first.
const (
	maxRecords     = 64 << 10
	maxRecordBytes = 16 << 20

	recordCost = 512 // about what a record takes besides the names of its channels
)

// record is what a client needs to go on in a namespace with another connection.
type record struct {
	pid       string // the secret by which the client names it
	sid       string
	namespace string
	route     string
	user      string
	channels  []string // of the namespace, by the route
	position  string   // in the log, when the client came into the namespace: from there it has got what it knows no offset of
	keep      time.Duration

	// Guarded by Table.mu.
	session  *session // nil when that has ended
	on       []string // all channels that it was on then
	until    time.Time
	place    *list.Element // in recovery.ended
	restored bool          // from the history file: another configuration has let the client into its rooms
	gone     bool          // its client was kicked, so nobody may go on with it
}

// name is the client's name in the hub.
func (r *record) name() string { return nameOf(r.namespace, r.sid) }

func (r *record) cost() int {
	n := recordCost
	for _, c := range r.on {
		n += len(c) + 16
	}
	return n
}

// recovery is the records of a process. Table.mu guards it.
type recovery struct {
	records map[string]*record // by the pid
	ended   list.List          // of *record, in the order in which their sessions ended
	bytes   int                // that those take
	timer   *time.Timer        // runs while there are some
	closed  bool
}

// track notes a client's place in a namespace, for when its connection ends.
func (t *Table) track(r *record, s *session) {
	t.mu.Lock()
	names := t.giveLocked(r, s)
	t.mu.Unlock()
	forget(s.endpoint.Hub, names)
}

// giveLocked gives a record to a session. That may have ended since it entered the namespace, and its end did not find the
// record. It returns the names that nobody needs any more.
func (t *Table) giveLocked(r *record, s *session) (names []string) {
	if t.recovery.records == nil {
		t.recovery.records = make(map[string]*record)
	}
	t.recovery.records[r.pid] = r // it may have just expired
	r.session, r.on = s, nil
	s.records = append(s.records, r)
	if s.ended {
		return t.endLocked(s)
	}
	return nil
}

// forget forgets names whose sessions have ended. Another connection may have gone on with one meanwhile.
func forget(h *hub.Hub, names []string) {
	for _, name := range names {
		h.ForgetUnused(name)
	}
}

// forget forgets a client's place for good, because it has left the namespace. It reports whether that was known.
func (t *Table) forget(s *session, name string) (known bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s.records = slices.DeleteFunc(s.records, func(r *record) bool {
		if r.name() == name {
			known = true
			delete(t.recovery.records, r.pid)
		}
		return r.name() == name
	})
	return known
}

// recoverable returns the record that a client names, if it is its own, and the channels that it was on. What the route gives it
// has to be the same: it may have lost a right since then.
func (t *Table) recoverable(s *session, namespace, pid string) (*record, []string) {
	t.mu.Lock()
	r := t.recovery.records[pid]
	if r == nil || r.namespace != namespace || r.route != s.endpoint.Route || r.user != s.user ||
		!slices.Equal(r.channels, s.channelsOf(namespace)) || r.session == nil && time.Now().After(r.until) || r.session == s {
		t.mu.Unlock()
		return nil, nil
	}
	old, channels := r.session, slices.Clone(r.on)
	t.mu.Unlock()
	if r.restored && !s.mayEnter(r, channels) {
		return nil, nil
	}
	if old != nil { // the client was faster to come back than we to notice that it was gone
		if channels = within(namespace, old.conn.Channels()); len(channels) == 0 {
			channels = t.roomsOf(r, old) // it is just being closed
		}
	}
	if !r.covers(channels) {
		return nil, nil
	}
	return r, channels
}

// covers reports whether the route's channels are among some. Otherwise the client has left one, or is not on it yet.
func (r *record) covers(channels []string) bool {
	return !slices.ContainsFunc(r.channels, func(c string) bool { return !slices.Contains(channels, c) })
}

// lives reports whether a record has a session.
func (t *Table) lives(r *record) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return r.session != nil
}

// roomsOf returns the channels of a record whose session is being closed: it is on none any more, and its loop may not have come
// to the last that it has joined.
func (t *Table) roomsOf(r *record, s *session) []string {
	s.conn.Settle()
	t.mu.Lock()
	defer t.mu.Unlock()
	if r.session == nil {
		return slices.Clone(r.on)
	}
	return within(r.namespace, s.rooms)
}

// within returns the channels of a namespace.
func within(namespace string, channels []string) (some []string) {
	for _, c := range channels {
		if packet.Namespace(c) == namespace {
			some = append(some, c)
		}
	}
	return some
}

// takeOver has a session go on where another one was. It reports false if the other one was kicked since it was looked up, and has
// closed the connection then.
func (t *Table) takeOver(r *record, s *session) bool {
	h := s.endpoint.Hub
	t.mu.Lock()
	if r.gone {
		t.mu.Unlock()
		s.conn.Close(hub.ReasonPolicy, hub.KickText)
		h.ForgetUnused(r.name()) // it was left with the name, and no record tells when that is to be forgotten
		return false
	}
	// A third one may have been faster, which has the name then.
	if c := h.Named(r.name()); c != nil && c != s.conn {
		t.mu.Unlock()
		return true
	}
	t.detachLocked(r, h)
	if old := t.recovery.records[r.pid]; old != nil && old != r { // one that was of no use any more
		t.detachLocked(old, h)
	}
	names := t.giveLocked(r, s)
	t.mu.Unlock()
	forget(h, names)
	return true
}

// detachLocked takes a record from where it is. Its session may have ended since it was looked up.
func (t *Table) detachLocked(r *record, h *hub.Hub) {
	if s := r.session; s != nil {
		s.records = slices.DeleteFunc(s.records, func(o *record) bool { return o == r })
	} else {
		t.dropEndedLocked(r, h)
	}
}

// dropEndedLocked takes a record out of the list of those whose sessions have ended, if it is there.
func (t *Table) dropEndedLocked(r *record, h *hub.Hub) {
	if r.place == nil {
		return
	}
	t.recovery.ended.Remove(r.place)
	r.place = nil
	n := r.cost()
	t.recovery.bytes -= n
	h.Hold(-n)
}

// endLocked keeps the records of a session that has ended for a while. If the client must not come back it forgets them. It
// returns the names that nobody needs any more.
func (t *Table) endLocked(s *session) (names []string) {
	v, forGood := &t.recovery, t.endsForGood(s.why)
	// A session has a record for each namespace, and a client asks for each by itself.
	for _, r := range s.records {
		if forGood {
			r.gone = packet.ForGood(s.why)
			delete(v.records, r.pid)
			names = append(names, r.name())
			continue
		}
		r.session = nil
		r.on = within(r.namespace, s.rooms)
		r.until = time.Now().Add(r.keep)
		r.place = v.ended.PushBack(r)
		v.bytes += r.cost()
		s.endpoint.Hub.Hold(r.cost())
	}
	s.records = nil
	// Clients that come and go cost memory that nobody asks for again, so there is an end to it.
	for v.ended.Len() > maxRecords || v.bytes > maxRecordBytes {
		names = append(names, t.expireFirstLocked(s.endpoint.Hub))
	}
	t.setTimerLocked(s.endpoint.Hub)
	return names
}

// expireFirstLocked forgets the record whose session ended first, and returns its name.
func (t *Table) expireFirstLocked(h *hub.Hub) (name string) {
	r := t.recovery.ended.Front().Value.(*record)
	t.dropEndedLocked(r, h)
	delete(t.recovery.records, r.pid)
	return r.name()
}

// setTimerLocked has the records expire.
func (t *Table) setTimerLocked(h *hub.Hub) {
	v := &t.recovery
	first := v.ended.Front()
	if v.timer != nil || first == nil || v.closed {
		return
	}
	// At most once a second, or many that end at about the same time would have it run as often.
	v.timer = time.AfterFunc(max(time.Second, time.Until(first.Value.(*record).until)), func() { t.expire(h) })
}

// Close ends the table, when the hub has ended.
func (t *Table) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.recovery.closed = true
	if t.recovery.timer != nil {
		t.recovery.timer.Stop()
	}
}

// expireAtOnce is how many records are forgotten under the lock at once: the loops wait for it.
const expireAtOnce = 256

// expire forgets the records whose time is up.
func (t *Table) expire(h *hub.Hub) {
	now := time.Now()
	for more := true; more; {
		var names []string
		t.mu.Lock()
		for more = false; ; {
			first := t.recovery.ended.Front()
			if first == nil || now.Before(first.Value.(*record).until) {
				t.recovery.timer = nil
				t.setTimerLocked(h)
				break
			}
			if more = len(names) == expireAtOnce; more {
				break
			}
			names = append(names, t.expireFirstLocked(h))
		}
		t.mu.Unlock()
		forget(h, names)
	}
}
