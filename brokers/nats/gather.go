package nats

import (
	"context"
	"sync"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
)

// gather answers questions together: those that come while one exchange with the broker is under way share the next. So a
// thousand clients that return at once cost the broker a few requests, and each answer is from after its question.
type gather[Q, A any] struct {
	limit int                                                   // of questions in one exchange
	fetch func(ctx context.Context, questions []Q) ([]A, error) // an answer to each

	mu      sync.Mutex
	waiting []question[Q, A]
	busy    bool
}

// question is one that waits. Its channel has room for the answer, so that nobody waits for somebody who has left.
type question[Q, A any] struct {
	q  Q
	to chan<- answer[A]
}

// answer is what a question gets: the error of the exchange, or its own part of the result.
type answer[A any] struct {
	a   A
	err error
}

// gatherTimeout bounds an exchange, which does not end with the context of somebody who waits for it.
const gatherTimeout = 10 * time.Second

// ask waits for the answer to a question. There is a goroutine only while somebody asks, so an idle log pays nothing.
func (g *gather[Q, A]) ask(ctx context.Context, l *log, q Q) (A, error) {
	ch := make(chan answer[A], 1)
	g.mu.Lock()
	g.waiting = append(g.waiting, question[Q, A]{q, ch})
	if !g.busy {
		g.busy = true
		go g.run()
	}
	g.mu.Unlock()
	var none A
	select {
	case r := <-ch:
		return r.a, r.err
	case <-ctx.Done():
		return none, ctx.Err()
	case <-l.done:
		return none, broker.ErrClosed
	}
}

// run ends when nobody waits. When the log is closed, requests end at once.
func (g *gather[Q, A]) run() {
	for {
		g.mu.Lock()
		n := min(len(g.waiting), g.limit)
		if n == 0 {
			// nil, so that the array of a large group is not kept.
			g.busy, g.waiting = false, nil
			g.mu.Unlock()
			return
		}
		group := g.waiting[:n:n]
		g.waiting = g.waiting[n:]
		g.mu.Unlock()
		questions := make([]Q, n)
		for i := range group {
			questions[i] = group[i].q
		}
		ctx, cancel := context.WithTimeout(context.Background(), gatherTimeout)
		answers, err := g.fetch(ctx, questions)
		cancel()
		for i := range group {
			r := answer[A]{err: err}
			if err == nil {
				r.a = answers[i]
			}
			group[i].to <- r
		}
	}
}
