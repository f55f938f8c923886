package redis

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
	"github.com/redis/rueidis"
	"go.uber.org/zap"
)

// asker is what the goroutine that subscribes and ticks keeps. Everybody who waits for a tick shares the next one: a tick
// that is under way already may be from before what they wait for was stored.
type asker struct {
	signal chan struct{}

	mu       sync.Mutex
	nonce    uint64
	barriers []func(uint64, error)
	openings []*opening
	leaving  []string // names of channels to unsubscribe from
	flights  map[uint64]*flight
	closed   bool
}

// flight is who waits for a tick that was sent.
type flight struct {
	s        *session
	barriers []func(uint64, error)
	openings []*opening
}

func (a *asker) init() { a.signal, a.flights = make(chan struct{}, 1), map[uint64]*flight{} }

// wake makes the goroutine look for work. One pending signal is enough.
func (a *asker) wake() {
	select {
	case a.signal <- struct{}{}:
	default:
	}
}

// Barrier implements broker.Log. The tick is after all that was stored before the call, and comes after it, so W has reached it
// then: rule 3.
func (l *log) Barrier(done func(uint64, error)) {
	a := &l.asker
	up := l.used() != nil
	a.mu.Lock()
	closed := a.closed || l.closed.Load()
	if up && !closed {
		a.barriers = append(a.barriers, done)
	}
	a.mu.Unlock()
	switch {
	case closed:
		done(0, broker.ErrClosed)
	case !up:
		done(0, broker.ErrDown)
	default:
		a.wake()
	}
}

// joinOpening has an opening wait for the next tick. While there is no session it waits in log.openings.
func (a *asker) joinOpening(o *opening) {
	a.mu.Lock()
	a.openings = append(a.openings, o)
	a.mu.Unlock()
	a.wake()
}

// unsubscribe adds names to unsubscribe from in the next exchange.
func (a *asker) unsubscribe(name string) {
	a.mu.Lock()
	a.leaving = append(a.leaving, name)
	a.mu.Unlock()
	a.wake()
}

// ask runs the exchanges with the server.
func (l *log) ask() {
	defer l.running.Done()
	for {
		select {
		case <-l.done:
			l.asker.end(broker.ErrClosed, true)
			return
		case <-l.asker.signal:
		}
		for s := l.used(); s != nil && l.asker.busy(); s = l.used() {
			if err := l.exchange(s); err != nil {
				l.refused(s, err)
				break
			}
		}
		if l.used() == nil {
			l.asker.end(l.unlessDone(broker.ErrDown), false)
			// A session may have come meanwhile, and those who joined it were ended too.
			if l.used() != nil {
				l.rejoin()
			}
		}
	}
}

// rejoin makes all openings wait for the next tick. An opening that is done is not done again.
func (l *log) rejoin() {
	l.mu.Lock()
	openings := slices.Collect(maps.Keys(l.openings))
	l.mu.Unlock()
	a := &l.asker
	a.mu.Lock()
	a.openings = openings
	a.mu.Unlock()
	a.wake()
}

func (a *asker) busy() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.barriers)+len(a.openings)+len(a.leaving) > 0
}

// refused notes an error of an exchange. It ends the session, since it is not known what is subscribed to.
func (l *log) refused(s *session, err error) {
	if !ends(err) && l.complaints.Fresh(err.Error(), time.Now()) {
		l.logger().Error("the broker refuses to be listened to", zap.Error(err))
	}
	cause := "tick"
	if err == errFence {
		cause = "epoch"
	}
	s.fail(cause, err)
}

// end answers those who wait for a tick. Openings are patient: they wait in log.openings for the next session.
func (a *asker) end(err error, closed bool) {
	a.mu.Lock()
	barriers := a.barriers
	for _, f := range a.flights {
		barriers = append(barriers, f.barriers...)
	}
	a.barriers, a.openings = nil, nil
	clear(a.flights)
	a.closed = a.closed || closed
	a.mu.Unlock()
	for _, done := range barriers {
		done(0, err)
	}
}

// exchange unsubscribes and subscribes, and then ticks, all in one go. The tick comes back over the same connection, after the
// subscriptions were made and after the entries before it.
func (l *log) exchange(s *session) error {
	a := &l.asker
	a.mu.Lock()
	f := &flight{s, a.barriers, a.openings}
	// The ticks of a session that is over never come. Its openings are done already: see log.repaired.
	var stranded []func(uint64, error)
	for nonce, other := range a.flights {
		if other.s != s {
			stranded = append(stranded, other.barriers...)
			delete(a.flights, nonce)
		}
	}
	leaving := a.leaving
	a.barriers, a.openings, a.leaving = nil, nil, nil
	a.nonce++
	nonce := a.nonce
	a.flights[nonce] = f
	a.mu.Unlock()
	for _, done := range stranded {
		done(0, broker.ErrDown)
	}
	var names []string
	l.mu.Lock()
	// One that was opened again stays.
	leaving = slices.DeleteFunc(leaving, func(name string) bool { return l.channels[l.live+name] != nil })
	for _, o := range f.openings {
		for _, c := range o.channels {
			if c.on != s {
				c.on = s
				names = append(names, c.name)
			}
		}
	}
	l.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	commands := append(l.unsubscribeFrom(s, leaving), l.subscribeTo(s, names)...)
	for _, r := range s.receive.DoMulti(ctx, commands...) {
		if err := r.Error(); err != nil && !rueidis.IsRedisNil(err) {
			return err
		}
	}
	return s.tick(ctx, nonce)
}

// tick has the server send a position.
func (s *session) tick(ctx context.Context, nonce uint64) error {
	m, err := s.eval(ctx, s.receive, tickScript, append(s.args(2), s.l.id, strconv.FormatUint(nonce, 10)))
	if err != nil {
		return err
	}
	if text, _ := m.ToString(); text != "K" {
		return errFence
	}
	// The tick comes right before the answer or right after it, depending on the server's version. That it comes at all shows
	// that this connection is subscribed: a log that only looks at answers may be deaf without noticing (centrifugo#1189).
	for s.ticked.Load() != nonce {
		select {
		case <-s.heard:
		case <-s.over:
			return s.err()
		case <-ctx.Done():
			return fmt.Errorf("a message to this node does not come back: may it subscribe to %s?", s.l.own)
		}
	}
	return nil
}

// maxNames is how many channels one command names. With 255 bytes each, these are 128 KB.
const maxNames = 512

// subscribeTo returns the commands that subscribe to channels.
func (l *log) subscribeTo(s *session, names []string) (commands []rueidis.Completed) {
	groups, all := l.grouped(names)
	for _, live := range groups {
		commands = append(commands, s.receive.B().Subscribe().Channel(live...).Build())
	}
	if all {
		commands = append(commands, s.receive.B().Psubscribe().Pattern(l.pattern()).Build())
	}
	return commands
}

// unsubscribeFrom returns the commands that end subscriptions.
func (l *log) unsubscribeFrom(s *session, names []string) (commands []rueidis.Completed) {
	groups, all := l.grouped(names)
	for _, live := range groups {
		commands = append(commands, s.receive.B().Unsubscribe().Channel(live...).Build())
	}
	if all {
		commands = append(commands, s.receive.B().Punsubscribe().Pattern(l.pattern()).Build())
	}
	return commands
}

// grouped returns the server's channels of names, as many together as one command may have, and whether "" is among the names.
func (l *log) grouped(names []string) (groups [][]string, all bool) {
	live := make([]string, 0, len(names))
	for _, name := range names {
		if name == "" {
			all = true
		} else {
			live = append(live, l.live+name)
		}
	}
	return slices.Collect(slices.Chunk(live, maxNames)), all
}

// settle is told of a tick that came. The receiver calls it.
func (l *log) settle(s *session, nonce, seq uint64) {
	a := &l.asker
	a.mu.Lock()
	f := a.flights[nonce]
	delete(a.flights, nonce)
	a.mu.Unlock()
	if f == nil {
		return
	}
	for _, o := range f.openings {
		l.endOpening(o, seq, nil)
	}
	for _, done := range f.barriers {
		done(seq, nil)
	}
}
