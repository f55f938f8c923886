package hub

import (
	"container/heap"
	"time"
)

// HistoryRule is how much of some channels is kept.
type HistoryRule struct {
	Matches func(channel string) bool
	Count   int
	Age     time.Duration // 0: until newer messages take its place
}

// keepOf returns how many messages of a channel are kept, and for how long. 0 means for ever.
func (c *Config) keepOf(name string) (count int, age time.Duration) {
	for i := range c.Histories {
		if r := &c.Histories[i]; r.Matches(name) {
			return r.Count, r.Age
		}
	}
	return c.History, c.HistoryAge
}

// mostKept returns the most generous of all rules: what is kept for names, and what a log has to keep that is shared.
func (c *Config) mostKept() (count int, age time.Duration) {
	count, age = c.History, c.HistoryAge
	forever := count > 0 && age == 0
	for _, r := range c.Histories {
		count, age = max(count, r.Count), max(age, r.Age)
		forever = forever || r.Count > 0 && r.Age == 0
	}
	if forever {
		age = 0
	}
	return count, age
}

// keeping is what history has to know of a channel.
type keeping struct {
	rules  uint32 // the Hub.rules that the next two are of
	count  int32
	age    time.Duration
	due    time.Time // not later than when its oldest message is too old, while it is in history.ages
	inAges int       // its place there, from 1
}

// keepLocked returns how many messages of the channel are kept, and for how long.
func (ch *channel) keepLocked(h *Hub) (count int, age time.Duration) {
	if len(h.config.Histories) == 0 {
		return h.config.History, h.config.HistoryAge
	}
	// Patterns are compared once for each channel and configuration, and not for each message.
	if ch.keep.rules != h.rules {
		var n int
		if ch.name == toChannel {
			n, ch.keep.age = h.config.mostKept()
		} else {
			n, ch.keep.age = h.config.keepOf(ch.name)
		}
		ch.keep.rules, ch.keep.count = h.rules, int32(min(n, 1<<31-1))
	}
	return int(ch.keep.count), ch.keep.age
}

// keepsLocked reports whether messages of a channel are kept. The channel is nil if it is not in Hub.channels.
func (h *Hub) keepsLocked(name string, ch *channel) bool {
	count := 0
	if ch != nil {
		count, _ = ch.keepLocked(h)
	} else {
		count, _ = h.config.keepOf(name)
	}
	return count > 0
}

// ages is a heap of the channels whose messages grow old. The one that is due first is first. A channel may be due before
// its oldest message is too old, because that may have been dropped for another reason: then it is put back. So publishing
// to a channel that is full moves nothing in the heap.
type ages []*channel

func (a ages) Len() int           { return len(a) }
func (a ages) Less(i, j int) bool { return a[i].keep.due.Before(a[j].keep.due) }
func (a ages) Swap(i, j int) {
	a[i], a[j] = a[j], a[i]
	a[i].keep.inAges, a[j].keep.inAges = i+1, j+1
}
func (a *ages) Push(x any) {
	ch := x.(*channel)
	*a = append(*a, ch)
	ch.keep.inAges = len(*a)
}
func (a *ages) Pop() any {
	last := len(*a) - 1
	ch := (*a)[last]
	(*a)[last] = nil
	*a = (*a)[:last]
	ch.keep.inAges = 0
	return ch
}

// ageLocked has a channel looked at when its oldest message is too old.
func (h *Hub) ageLocked(ch *channel) {
	a := &h.history.ages
	_, age := ch.keepLocked(h)
	if age == 0 || ch.history.count == 0 {
		if ch.keep.inAges > 0 {
			heap.Remove(a, ch.keep.inAges-1)
		}
		return
	}
	due := ch.history.oldest.message.Time.Add(age)
	switch {
	case ch.keep.inAges == 0:
		ch.keep.due = due
		heap.Push(a, ch)
	case !due.Equal(ch.keep.due):
		ch.keep.due = due
		heap.Fix(a, ch.keep.inAges-1)
	}
}

// dropOldLocked drops a message that is too old, and reports false if there is none. It may also find that a channel has
// none, and has to be called again.
func (h *Hub) dropOldLocked(now time.Time) bool {
	a := h.history.ages
	if len(a) == 0 || now.Before(a[0].keep.due) {
		return false
	}
	ch := a[0]
	if _, age := ch.keepLocked(h); age > 0 && now.Sub(ch.history.oldest.message.Time) >= age {
		h.dropOldestLocked(ch)
		if ch.history.count == 0 {
			return true
		}
	}
	h.ageLocked(ch)
	return true
}
