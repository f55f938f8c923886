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

// New returns a bucket for one client that stays connected, or nil if there is no limit.
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

// Keyed has a bucket for each client without a connection, by a key. It remembers clients in two generations. A bucket that
// is used moves to the recent generation. From time to time the recent generation becomes the old one, and the old one is
// dropped as a whole. So a request costs at most two map lookups, and the maps are bounded:
//
//   - The generations advance after the time in which an empty bucket fills up. The buckets that are dropped then are full,
//     which is equivalent to none.
//   - They advance at once when the recent generation has maxClients. A client that is dropped then starts again with a full
//     bucket. So a client with very many addresses can publish faster than the limit, which it can do anyway with as many
//     addresses. Others never get less than their limit.
type Keyed struct {
	limit Limit

	mu          sync.Mutex
	recent, old map[string]*rate.Limiter
	began       time.Time // when the recent generation did
}

// maxClients is the largest number of clients in a generation. Two generations, with keys of 255 bytes, take about 25 MB.
const maxClients = 32 << 10

// NewKeyed returns the buckets of a route, or nil if there is no limit.
func NewKeyed(l Limit) *Keyed {
	if l.PerSecond <= 0 {
		return nil
	}
	return &Keyed{limit: l, recent: make(map[string]*rate.Limiter), began: time.Now()}
}

// Wait takes a token out of a client's bucket and returns 0. If there is none, it returns how long the client has to wait.
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
	if now.Sub(c.began) > c.limit.refill() {
		c.advance(now)
	}
	b := c.recent[client]
	if b != nil {
		return b
	}
	if len(c.recent) >= maxClients {
		c.advance(now)
	}
	if b = c.old[client]; b == nil {
		b = c.limit.New()
	}
	c.recent[client] = b
	return b
}

// advance begins a new generation. The caller holds c.mu.
func (c *Keyed) advance(now time.Time) {
	c.old, c.recent, c.began = c.recent, make(map[string]*rate.Limiter), now
}
