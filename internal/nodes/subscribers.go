package nodes

import (
	"context"
	"sync"
	"time"
)

const (
	// cacheTime is how old a number may be that Subscribers returns, after it came from the broker.
	cacheTime = time.Second
	// cacheSize is how many channels are known. There may be twice as many: see cache. These are some 2 MB.
	cacheSize = 8192
	// maxAsks is how many questions the broker may have at a time. While it has more, or one that a publisher has waited
	// for in vain, numbers that are not known are 0 at once: a broker that hangs must not hold up each message.
	maxAsks = 256
	// countSize is how many channels the broker is asked for at once.
	countSize = 1000
)

// cache is the numbers of subscribers on other nodes that were asked for in the last second. Many messages on one channel
// ask for one number.
type cache struct {
	session *Session

	mu sync.Mutex
	// Two maps, of which the older one is dropped when the other is full or old: nothing has to look for what is old.
	newer, older map[string]*count
	began        time.Time // newer
	open         int       // questions that the broker has not answered
	hangs        bool      // somebody has waited for one of them in vain
}

// count is the number of a channel. Those that need it wait for ready.
type count struct {
	asked time.Time
	ready chan struct{}
	n     int // to be read when ready is closed
}

func (c *cache) init(s *Session) {
	c.session, c.newer = s, make(map[string]*count)
}

// Subscribers returns how many subscribers channels have on the other nodes together. The numbers are usually at most two
// seconds old: nodes report them once a second, and they are kept here for a second. A number that is not known when ctx
// ends is 0.
func (c *Cluster) Subscribers(ctx context.Context, channels []string) []int {
	counts := make([]int, len(channels))
	s := c.current()
	if s == nil {
		return counts
	}
	s.mu.Lock()
	alone := s.table.alone(time.Now())
	s.mu.Unlock()
	if alone {
		return counts
	}
	for i, count := range s.subscribers.get(channels) {
		if !count.isReady() { // one that is known is returned though ctx has ended
			select {
			case <-count.ready:
			case <-s.stop:
			case <-ctx.Done():
				s.subscribers.gaveUp(count)
			}
		}
		if count.isReady() {
			counts[i] = count.n
		}
	}
	return counts
}

// get returns the numbers of channels, and asks for those that are not known.
func (c *cache) get(channels []string) []*count {
	counts := make([]*count, len(channels))
	var ask []string
	var asked []*count
	now := time.Now()
	c.mu.Lock()
	for i, name := range channels {
		if len(c.newer) >= cacheSize || now.Sub(c.began) >= cacheTime {
			c.newer, c.older, c.began = make(map[string]*count), c.newer, now
		}
		found := c.newer[name]
		if found == nil {
			found = c.older[name]
		}
		if (c.hangs || c.open >= maxAsks) && (found == nil || !found.isReady() || now.Sub(found.asked) >= cacheTime) {
			counts[i] = unknownCount
			continue
		}
		if found == nil || now.Sub(found.asked) >= cacheTime && found.isReady() {
			found = &count{asked: now, ready: make(chan struct{})}
			c.newer[name] = found
			ask, asked = append(ask, name), append(asked, found)
		}
		counts[i] = found
	}
	c.open += (len(ask) + countSize - 1) / countSize
	c.mu.Unlock()
	// Without the lock, because the broker may answer at once.
	for len(ask) > 0 {
		n := min(countSize, len(ask))
		c.ask(ask[:n:n], asked[:n:n])
		ask, asked = ask[n:], asked[n:]
	}
	return counts
}

// unknownCount is one that is not asked for.
var unknownCount = func() *count {
	n := &count{ready: make(chan struct{})}
	close(n.ready)
	return n
}()

// gaveUp notes that somebody has waited for a number in vain.
func (c *cache) gaveUp(n *count) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !n.isReady() && c.open > 0 {
		c.hangs = true // until an answer comes
	}
}

func (n *count) isReady() bool {
	select {
	case <-n.ready:
		return true
	default:
		return false
	}
}

// ask asks the broker for numbers.
func (c *cache) ask(channels []string, counts []*count) {
	s := c.session
	s.peers.Counts(channels, func(all []map[uint64]int, err error) {
		c.mu.Lock()
		c.open--
		c.hangs = false
		c.mu.Unlock()
		if err != nil || len(all) != len(channels) {
			all = make([]map[uint64]int, len(channels))
			// Not kept, because the broker may answer the next time.
			c.mu.Lock()
			for i, name := range channels {
				if c.newer[name] == counts[i] {
					delete(c.newer, name)
				}
				if c.older[name] == counts[i] {
					delete(c.older, name)
				}
			}
			c.mu.Unlock()
		}
		var dead []uint64
		now := time.Now()
		self := s.cluster.hub.Node()
		s.mu.Lock()
		for i, nodes := range all {
			for id, n := range nodes {
				switch {
				case id == self || n <= 0:
				case s.table.isAlive(id, now):
					counts[i].n += n
				case len(dead) < maxDead && s.table.isLongDead(id, now) && s.table.claim(id, now):
					dead = append(dead, id)
				}
			}
		}
		s.mu.Unlock()
		for _, count := range counts {
			close(count.ready)
		}
		// If a node was alone when it ended, nobody has removed its counts.
		for _, id := range dead {
			s.peers.Forget(id)
		}
	})
}

// maxDead is how many nodes one answer of the broker may have the counts removed of. The next answers bring the rest.
const maxDead = 10
