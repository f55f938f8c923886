package nats

import "time"

// expireDelay is how much later than its deadline a message ends that the keeper does not end. Normally the keeper is first.
const expireDelay = 100 * time.Millisecond

// overdueLocked takes out what waits too long.
func (p *publisher) overdueLocked(now time.Time) (failed []*pending) {
	for id, w := range p.pending {
		if now.After(w.deadline) {
			failed = append(failed, w)
			delete(p.pending, id)
		}
	}
	return failed
}

// expire ends what waits too long while the keeper cannot: it may be catching up for 30 seconds when NATS does not answer, as
// one whose disk is full does not. One timer for all messages costs a wake-up in each publish_timeout.
func (p *publisher) expire() {
	now := time.Now()
	p.mu.Lock()
	failed := p.overdueLocked(now)
	p.timed = len(p.pending) > 0
	if p.timed {
		next := p.l.config.PublishTimeout
		for _, w := range p.pending {
			next = min(next, w.deadline.Sub(now))
		}
		time.AfterFunc(next+expireDelay, p.expire)
	}
	p.mu.Unlock()
	p.fail(failed)
}
