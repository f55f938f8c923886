package hub

import "time"

// Close closes every connection, waits until they have ended, but no longer than the timeout, and then stops the loops.
// The closing is spread over the delay, so that not all clients reconnect to the next server at once. Meanwhile no new
// connections are accepted. If Close was called already, it waits for that call.
func (h *Hub) Close(why Reason, text string, delay, timeout time.Duration) {
	h.closing.Do(func() {
		h.spread(why, text, delay)
		h.close(why, text, timeout)
	})
}

// spreadStep is the time between two groups of connections that are closed.
const spreadStep = 50 * time.Millisecond

// spread closes the connections in groups, over the delay. The caller's goroutine waits between them.
func (h *Hub) spread(why Reason, text string, delay time.Duration) {
	h.mu.Lock()
	// Before the first is closed, so that none of them comes back to this hub.
	h.leaving = true
	h.mu.Unlock()
	steps := int(delay / spreadStep)
	first := make([]int, len(h.loops)) // how many there were
	// Each loop closes a share of those that it had at first, so that as many go in every step. Connections that
	// leave by themselves meanwhile make later steps smaller.
	for step := range steps {
		h.onLoops(func(l *loop) {
			var open []*Conn
			l.each(func(c *Conn) {
				if c.state == stateOpen {
					open = append(open, c)
				}
			})
			if step == 0 {
				first[l.id] = len(open)
			}
			stay := first[l.id] - first[l.id]*(step+1)/steps
			for _, c := range open[min(stay, len(open)):] {
				l.close(c, why, text, false)
			}
		})
		time.Sleep(spreadStep)
	}
}

// close ends what is left in the order in which one thing needs another: publishers, connections, the log, the
// loops, the flushers.
func (h *Hub) close(why Reason, text string, timeout time.Duration) {
	h.mu.Lock()
	h.closed = true
	close(h.quit)
	log := h.log
	if t := h.history.timer; t != nil {
		t.Stop()
	}
	if t := h.repeats.timer; t != nil {
		t.Stop()
	}
	if log != nil && log.keys.renewal != nil {
		log.keys.renewal.Stop()
	}
	h.hasSpace.Broadcast()
	if h.connections == 0 {
		close(h.empty)
	}
	h.mu.Unlock()

	for _, l := range h.loops {
		h.enqueue(l, entry{op: opCloseAll, why: why, arg: text})
	}
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-h.empty:
	case <-timer.C:
	}
	if log != nil {
		log.close() // after the last publishers had time to get their answers
	}
	// Loops are stopped only when their connections have ended or had their time, because they write the close
	// frames.
	for _, l := range h.loops {
		h.enqueue(l, entry{op: opStop})
	}
	h.running.Wait()
	close(h.stopped)
	for _, l := range h.loops {
		l.flushers.close()
	}
}
