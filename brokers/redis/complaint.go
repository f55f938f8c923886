package redis

import (
	"sync"
	"time"
)

// A fault that lasts is found again several times a second. People read of it once a minute.
const (
	complaintInterval = time.Minute

	// maxComplaints bounds the texts of an interval, because some name a channel.
	maxComplaints = 10
)

// complaints are the faults that people were told of lately.
type complaints struct {
	mu    sync.Mutex
	since time.Time
	said  map[string]bool
}

// fresh reports whether people should be told of a fault.
func (c *complaints) fresh(text string, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now.Sub(c.since) >= complaintInterval {
		c.since, c.said = now, make(map[string]bool)
	}
	if c.said[text] || len(c.said) == maxComplaints {
		return false
	}
	c.said[text] = true
	return true
}
