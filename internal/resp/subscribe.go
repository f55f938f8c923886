package resp

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"
)

const (
	// maxName is the longest name or pattern that can be subscribed to. Names of channels of the hub are shorter still.
	maxName = 255

	// maxChannels and maxPatterns bound the subscriptions of one connection. All of a server have no more patterns than that
	// either, because each is compared with each publication.
	maxChannels = 1024
	maxPatterns = 64
)

// subscriptions are what clients of the server are subscribed to.
type subscriptions struct {
	total atomic.Int64 // so that publishing need not lock if there are none

	mu       sync.Mutex
	channels map[string]map[*Conn]struct{}
	patterns map[string]map[*Conn]struct{}

	// A message as it is sent, in each version of the protocol. They are made at most once for all subscribers.
	message [2][]byte
}

// relay sends a publication to the subscribers, and returns how often: a client that is subscribed to a channel and to patterns
// that match gets it several times, as from Redis.
func (s *subscriptions) relay(channel, payload []byte) (n int) {
	if s.total.Load() == 0 || len(channel) > maxName {
		return 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n = s.sendLocked(s.channels[string(channel)], "", channel, payload)
	for pattern, conns := range s.patterns {
		if matches(pattern, channel) {
			n += s.sendLocked(conns, pattern, channel, payload)
		}
	}
	return n
}

// sendLocked sends a publication to clients, which got it because of a pattern if that is not empty.
func (s *subscriptions) sendLocked(conns map[*Conn]struct{}, pattern string, channel, payload []byte) int {
	s.message[0], s.message[1] = s.message[0][:0], s.message[1][:0]
	for c := range conns {
		version := int(c.pushVersion.Load())
		message := &s.message[version-2]
		if len(*message) == 0 {
			*message = appendMessage(*message, version, pattern, channel, payload)
		}
		c.push(*message)
	}
	for i := range s.message {
		if cap(s.message[i]) > bigBuffer {
			s.message[i] = nil
		}
	}
	return len(conns)
}

func appendMessage(b []byte, version int, pattern string, channel, payload []byte) []byte {
	if pattern == "" {
		b = appendBulk(appendHead(b, pushType(version), 3), "message")
	} else {
		b = appendBulk(appendHead(b, pushType(version), 4), "pmessage")
		b = appendBulk(b, pattern)
	}
	return appendBulk(appendBulk(b, channel), payload)
}

// pushType is the type of what a client gets without having asked.
func pushType(version int) byte {
	if version == 3 {
		return '>'
	}
	return '*'
}

// kind is what a client can be subscribed to: channels or patterns.
type kind struct {
	verb string
	most int
	mine func(*Conn) *map[string]struct{}
	all  func(*subscriptions) *map[string]map[*Conn]struct{}
}

var (
	byChannel = &kind{"subscribe", maxChannels,
		func(c *Conn) *map[string]struct{} { return &c.channels },
		func(s *subscriptions) *map[string]map[*Conn]struct{} { return &s.channels }}
	byPattern = &kind{"psubscribe", maxPatterns,
		func(c *Conn) *map[string]struct{} { return &c.patterns },
		func(s *subscriptions) *map[string]map[*Conn]struct{} { return &s.patterns }}
)

// add subscribes a connection to a name, tells it so, and reports whether there was room. It is told before the lock is
// released, or a message could come first.
func (s *subscriptions) add(c *Conn, k *kind, name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	mine, all := k.mine(c), k.all(s)
	if _, ok := (*mine)[name]; ok {
		c.confirm(k.verb, []byte(name))
		return true
	}
	if len(*mine) == k.most || k == byPattern && (*all)[name] == nil && len(*all) == k.most {
		return false
	}
	if *mine == nil {
		*mine = make(map[string]struct{})
	}
	if *all == nil {
		*all = make(map[string]map[*Conn]struct{})
	}
	if (*all)[name] == nil {
		(*all)[name] = make(map[*Conn]struct{})
	}
	(*mine)[name] = struct{}{}
	(*all)[name][c] = struct{}{}
	s.total.Add(1)
	c.confirm(k.verb, []byte(name))
	c.flush()
	return true
}

// remove ends a subscription, if there is one.
func (s *subscriptions) remove(c *Conn, k *kind, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	mine, all := *k.mine(c), *k.all(s)
	if _, ok := mine[name]; !ok {
		return
	}
	delete(mine, name)
	delete(all[name], c)
	if len(all[name]) == 0 {
		delete(all, name)
	}
	s.total.Add(-1)
}

// removeAll ends all subscriptions of a connection.
func (s *subscriptions) removeAll(c *Conn) {
	for _, k := range []*kind{byChannel, byPattern} {
		for name := range *k.mine(c) {
			s.remove(c, k, name)
		}
	}
}

// subscribed returns how many subscriptions the connection has.
func (c *Conn) subscribed() int { return len(c.channels) + len(c.patterns) }

// subscribe runs SUBSCRIBE and PSUBSCRIBE.
func (c *Conn) subscribe(k *kind, names [][]byte) {
	c.startWriter()
	for _, name := range names {
		if len(name) > maxName || !c.server.subs.add(c, k, string(name)) {
			c.replies = appendError(c.replies, "ERR too many subscriptions, or a name that is too long")
		}
	}
}

// unsubscribe runs UNSUBSCRIBE and PUNSUBSCRIBE. Without names they end all.
func (c *Conn) unsubscribe(k *kind, names [][]byte) {
	verb := "unsubscribe"
	if k == byPattern {
		verb = "punsubscribe"
	}
	if len(names) == 0 {
		for _, name := range slices.Sorted(maps.Keys(*k.mine(c))) {
			names = append(names, []byte(name))
		}
	}
	for _, name := range names {
		c.server.subs.remove(c, k, string(name))
		c.confirm(verb, name)
	}
	if len(names) == 0 {
		c.confirm(verb, nil)
	}
}

// confirm tells a client which of its subscriptions has changed, and how many it has.
func (c *Conn) confirm(verb string, name []byte) {
	c.replies = appendBulk(appendHead(c.replies, pushType(c.version), 3), verb)
	if name == nil {
		c.replies = appendNull(c.replies, c.version)
	} else {
		c.replies = appendBulk(c.replies, name)
	}
	c.replies = appendInt(c.replies, c.subscribed())
}

// matches reports whether a name matches a pattern of Redis: * ? [a-z] [^a] and \ (redis, util.c, stringmatchlen). It goes back
// only to the last *, so that no pattern takes more than the product of both lengths.
func matches(pattern string, name []byte) bool {
	p, n := 0, 0
	star, from := -1, 0
	for n < len(name) {
		if p < len(pattern) && pattern[p] == '*' {
			star, from = p, n
			p++
			continue
		}
		if size, ok := matchOne(pattern[p:], name[n]); ok {
			p, n = p+size, n+1
			continue
		}
		if star < 0 {
			return false
		}
		from++
		p, n = star+1, from
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

// matchOne reports whether a byte matches the first element of a pattern, and the size of that.
func matchOne(pattern string, c byte) (size int, ok bool) {
	switch {
	case pattern == "":
		return 0, false
	case pattern[0] == '?':
		return 1, true
	case pattern[0] == '\\' && len(pattern) > 1:
		return 2, pattern[1] == c
	case pattern[0] != '[':
		return 1, pattern[0] == c
	}
	i := 1
	negative := i < len(pattern) && pattern[i] == '^'
	if negative {
		i++
	}
	for ; i < len(pattern) && pattern[i] != ']'; i++ {
		switch {
		case pattern[i] == '\\' && i+1 < len(pattern):
			i++
			ok = ok || pattern[i] == c
		case i+2 < len(pattern) && pattern[i+1] == '-':
			low, high := min(pattern[i], pattern[i+2]), max(pattern[i], pattern[i+2])
			ok = ok || low <= c && c <= high
			i += 2
		default:
			ok = ok || pattern[i] == c
		}
	}
	return min(i+1, len(pattern)), ok != negative
}
