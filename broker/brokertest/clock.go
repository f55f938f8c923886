package brokertest

import (
	"container/heap"
	"sync"
	"time"
)

// clock calls functions at their times, one after the other, from one goroutine. It is what makes a Memory's runs
// repeatable: two messages never arrive at the same moment.
type clock struct {
	mu sync.Mutex // held while a function is called
	// The first to come is at its root. Only the functions that run add to it, and callers of after, both under mu.
	events  events
	serial  uint64
	wake    chan struct{}
	stopped chan struct{}
	running sync.WaitGroup
}

// event is one call that is due. It is never taken back: a function that has become pointless finds that out itself.
type event struct {
	at     time.Time
	serial uint64 // first come, first served
	do     func()
}

// events is a heap for container/heap. A sorted slice would move all entries for each that comes, and with latency many are
// on their way.
type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	if e[i].at.Equal(e[j].at) {
		return e[i].serial < e[j].serial
	}
	return e[i].at.Before(e[j].at)
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	last := len(*e) - 1
	x := (*e)[last]
	// Or the array behind the slice would keep the function, and what it refers to, alive.
	(*e)[last] = event{}
	*e = (*e)[:last]
	return x
}

// start starts the goroutine. Inside testing/synctest it belongs to the bubble of the caller, whose clock it then uses.
func (c *clock) start() {
	c.wake, c.stopped = make(chan struct{}, 1), make(chan struct{})
	c.running.Go(c.run)
}

// stop returns when no function runs any more. Those that are due later are never called.
func (c *clock) stop() {
	close(c.stopped)
	c.running.Wait()
}

// after has do called after a while. The caller holds c.mu.
func (c *clock) after(d time.Duration, do func()) { c.at(time.Now().Add(d), do) }

// at has do called at a time. The caller holds c.mu. A time in the past is allowed: do is then called next, after those that
// are due at earlier times.
func (c *clock) at(at time.Time, do func()) {
	c.serial++
	heap.Push(&c.events, event{at, c.serial, do})
	// Only then has the goroutine to wait for another moment than it does.
	if c.events[0].serial == c.serial {
		select {
		case c.wake <- struct{}{}:
		default:
		}
	}
}

// run is the goroutine that calls the functions. It sleeps until the first is due or another one becomes the first.
func (c *clock) run() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		c.mu.Lock()
		for len(c.events) > 0 && !c.events[0].at.After(time.Now()) {
			// Under the lock, which is that of the whole broker: so what arrives finds a state that no other message is
			// changing, and runs can be repeated.
			heap.Pop(&c.events).(event).do()
		}
		if len(c.events) > 0 {
			timer.Reset(time.Until(c.events[0].at))
		}
		c.mu.Unlock()
		select {
		case <-c.wake:
		case <-timer.C:
		case <-c.stopped:
			return
		}
	}
}

// calls is callbacks that wait for their goroutine, which calls them in order. A node has two, one for the Sink with Open and
// Barrier, and one for acks. The callbacks may wait, for example for room in the hub, and must not hold up the clock, which
// the other nodes share.
type calls struct {
	mu      sync.Mutex
	waiting []func(closed bool)
	closed  bool
	// Has room for one signal, as that of clock.
	wake chan struct{}
	done chan struct{}
}

func newCalls() *calls {
	c := &calls{wake: make(chan struct{}, 1), done: make(chan struct{})}
	go c.run()
	return c
}

// add adds a callback. It is told whether the log was closed before its turn came.
func (c *calls) add(call func(closed bool)) {
	c.mu.Lock()
	c.waiting = append(c.waiting, call)
	c.mu.Unlock()
	c.signal()
}

// signal does not wait: a signal that is there already tells the goroutine the same.
func (c *calls) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// close returns when everything that waits has been called.
func (c *calls) close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.signal()
	<-c.done
}

// run calls what waits, in order. It only ends when nothing waits any more, so each callback that a method was given is
// called even if the log is closed. The contract asks for that: exactly once.
func (c *calls) run() {
	defer close(c.done)
	for {
		c.mu.Lock()
		if len(c.waiting) == 0 {
			if c.closed {
				c.mu.Unlock()
				return
			}
			c.mu.Unlock()
			<-c.wake
			continue
		}
		call, closed := c.waiting[0], c.closed
		c.waiting = c.waiting[1:]
		c.mu.Unlock()
		// Without the lock: a callback may call the log again, and that may add calls.
		call(closed)
	}
}
