// Package complaints bounds what brokers log of faults.
package complaints

import (
	"sync"
	"time"
)

// A fault that lasts is found again several times a second. People read of it once a minute.
const (
	interval = time.Minute

	// most bounds the texts of an interval, because some name a channel.
	most = 10
)

// Complaints are the faults that people were told of lately.
type Complaints struct {
	mu    sync.Mutex
	since time.Time
	said  map[string]bool
}

// Fresh reports whether people should be told of a fault.
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
