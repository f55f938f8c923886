package redis

import (
	"maps"
	"slices"
	"strings"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
)

// channel is one that is open or being opened. log.mu guards its fields.
type channel struct {
	name, live string
	on         *session   // that it is subscribed on
	open       bool       // everything that comes is given to the Sink
	openings   []*opening // that wait for it
}

// opening is a call of Open that is not done.
type opening struct {
	channels []*channel
	opened   func(uint64, error)
	over     bool // guarded by log.mu
}

// pattern matches all channels of entries. The prefix may have characters that patterns have a meaning for.
func (l *log) pattern() string {
	return globEscaper.Replace(l.live) + "*"
}

var globEscaper = strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`, "]", `\]`)

// Open implements broker.Log. Of a channel that is open already, or is being opened, it only waits for a tick.
func (l *log) Open(names []string, opened func(uint64, error)) {
	o := &opening{opened: opened}
	l.mu.Lock()
	if l.closed.Load() {
		l.mu.Unlock()
		opened(0, broker.ErrClosed)
		return
	}
	for _, name := range names {
		live := l.live + name // "" has the name that no channel has
		c := l.channels[live]
		if c == nil {
			// A copy, because the name may be a part of a request, which it would keep in memory.
			c = &channel{live: strings.Clone(live)}
			c.name = c.live[len(l.live):]
			l.channels[c.live] = c
			if name == "" {
				l.all = c
			}
		}
		o.channels, c.openings = append(o.channels, c), append(c.openings, o)
	}
	l.openings[o] = struct{}{}
	l.mu.Unlock()
	l.asker.joinOpening(o)
}

// endOpening calls opened, unless it has been called: the tick, Release and Close may each be first. The receiver calls it.
func (l *log) endOpening(o *opening, seq uint64, err error) {
	l.mu.Lock()
	over := o.over
	o.over = true
	delete(l.openings, o)
	for _, c := range o.channels {
		if over {
			break
		}
		c.openings = slices.DeleteFunc(c.openings, func(other *opening) bool { return other == o })
		if len(c.openings) == 0 {
			c.openings = nil // a channel that is only open needs no array
		}
		c.open = c.open || err == nil
	}
	l.mu.Unlock()
	if !over {
		o.opened(seq, err)
	}
}

// endOpenings ends all when the log is closed.
func (l *log) endOpenings() {
	for {
		l.mu.Lock()
		openings := slices.Collect(maps.Keys(l.openings))
		l.mu.Unlock()
		if len(openings) == 0 {
			return
		}
		for _, o := range openings {
			l.endOpening(o, 0, broker.ErrClosed)
		}
	}
}

// Release implements broker.Log. What is on its way still comes, and only moves W: rule 1.
func (l *log) Release(names []string) {
	var ended []*opening
	l.mu.Lock()
	for _, name := range names {
		c := l.channels[l.live+name]
		if c == nil {
			continue
		}
		// First out of the map, so that an Open that comes now subscribes anew and waits for a tick of its own.
		delete(l.channels, c.live)
		if l.all == c {
			l.all = nil
		}
		if c.on != nil {
			l.asker.unsubscribe(c.name)
		}
		ended = append(ended, c.openings...)
	}
	l.mu.Unlock()
	for _, o := range ended {
		l.queue.push(func() { l.endOpening(o, 0, broker.ErrClosed) })
	}
}
