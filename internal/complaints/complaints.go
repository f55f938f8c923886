// Package complaints limits how often brokers log faults.
package complaints

import (
	"sync"
	"time"
)

// A fault that lasts is found several times a second, but logged once a minute.
const (
	interval = time.Minute

	// most limits the different texts of an interval, because some contain the name of a channel.
	most = 10
)

// Complaints are the faults that were logged in the last interval.
type Complaints struct {
	mu    sync.Mutex
	since time.Time
	said  map[string]bool
}

// Fresh reports whether a fault should be logged, and notes that it is.
func (c *Complaints) Fresh(text string, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now.Sub(c.since) >= interval {
		c.since, c.said = now, make(map[string]bool)
	}
	if c.said[text] || len(c.said) == most {
		return false
	}
	c.said[text] = true
	return true
}
