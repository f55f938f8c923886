// Package rates bounds how fast each client may go.
package rates

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Limit is so many in a second, and so many at once.
type Limit struct {
	PerSecond float64
	Burst     int
}

// New returns the bucket of one client that stays connected, or nil if there is no limit.
func (l Limit) New() *rate.Limiter {
	if l.PerSecond <= 0 {
		return nil
	}
	return rate.NewLimiter(rate.Limit(l.PerSecond), l.Burst)
}

// Clients has a bucket for each client that comes and goes.
type Clients struct {
	limit Limit

	mu      sync.Mutex
	buckets map[string]*rate.Limiter
	most    int // so many buckets make it look for those that are full, and as good as none
}

// minBuckets is how many buckets are not worth looking through.
const minBuckets = 1024

// NewClients returns the buckets of a route, or nil if there is no limit.
func NewClients(l Limit) *Clients {
	if l.PerSecond <= 0 {
		return nil
	}
	return &Clients{limit: l, buckets: make(map[string]*rate.Limiter), most: minBuckets}
}

// Wait returns how long a client has to wait before its next; 0 lets it pass.
func (c *Clients) Wait(client string) time.Duration {
	if c == nil {
		return 0
	}
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.buckets[client]
	if b == nil {
		if len(c.buckets) >= c.most {
			for name, b := range c.buckets {
				if b.TokensAt(now) >= float64(c.limit.Burst) {
					delete(c.buckets, name)
				}
			}
			c.most = max(minBuckets, 2*len(c.buckets))
		}
		b = c.limit.New()
		c.buckets[client] = b
	}
	r := b.ReserveN(now, 1)
	d := r.DelayFrom(now)
	if d > 0 {
		r.CancelAt(now)
	}
	return d
}
