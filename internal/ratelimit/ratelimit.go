// Package ratelimit limits how fast each client may publish.
package ratelimit

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Limit is a token bucket's rate and size.
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

// refill returns how long an empty bucket takes to be full again.
func (l Limit) refill() time.Duration {
	const longest = 365 * 24 * time.Hour
	return time.Duration(min(float64(l.Burst)/l.PerSecond, longest.Seconds()) * float64(time.Second))
}

// Keyed has a bucket for each client that comes and goes. It remembers clients in two generations. A bucket that is
// used is moved to the recent one; from time to time the recent generation becomes the old one, and the old one is
// forgotten as a whole. That costs a client no more than a look into two maps, and bounds them:
//
//   - After the time in which a bucket fills up, the generations move on. What is forgotten then is full, and as good
//     as none.
//   - When the recent generation has its maximum of clients, they move on at once. A client that is forgotten then
//     starts with a full bucket. So somebody with very many addresses can publish more than the limit of one, which he
//     can anyway, but never less is left to others.
type Keyed struct {
	limit Limit

	mu          sync.Mutex
	recent, old map[string]*rate.Limiter
	since       time.Time // when recent began
}

// maxClients is how many clients a generation has. Two of them, with names of 255 bytes, take about 25 MB.
const maxClients = 32 << 10

// NewKeyed returns the buckets of a route, or nil if there is no limit.
func NewKeyed(l Limit) *Keyed {
	if l.PerSecond <= 0 {
		return nil
	}
	return &Keyed{limit: l, recent: make(map[string]*rate.Limiter), since: time.Now()}
}

// Wait takes a token out of a client's bucket and returns 0, or returns how long the client has to wait for one.
func (c *Keyed) Wait(client string) time.Duration {
	if c == nil {
		return 0
	}
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.bucket(client, now).ReserveN(now, 1)
	d := r.DelayFrom(now)
	if d > 0 {
		r.CancelAt(now)
	}
	return d
}

// bucket returns a client's bucket, in the recent generation. The caller holds c.mu.
func (c *Keyed) bucket(client string, now time.Time) *rate.Limiter {
	if now.Sub(c.since) > c.limit.refill() {
		c.next(now)
	}
	b := c.recent[client]
	if b != nil {
		return b
	}
	if len(c.recent) >= maxClients {
		c.next(now)
	}
	if b = c.old[client]; b == nil {
		b = c.limit.New()
	}
	c.recent[client] = b
	return b
}

// next begins a generation. The caller holds c.mu.
func (c *Keyed) next(now time.Time) {
	c.old, c.recent, c.since = c.recent, make(map[string]*rate.Limiter), now
}
