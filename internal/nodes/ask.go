package nodes

import (
	"context"
	"time"
)

const (
	// askTime is how long Ask waits.
	askTime = time.Second
	// MaxAnswer is the size of the largest answer of a node, and maxAnswers of all answers to a question together.
	MaxAnswer  = 8 << 20
	maxAnswers = 64 << 20
	// maxAsking is how many questions may be open at a time. Others wait.
	maxAsking = 8
)

// asking is a question that is open. Session.mu guards it.
type asking struct {
	waiting map[uint64]*gathering // for those that have not answered
	answers map[uint64][]byte     // of the others
	size    int
	done    chan struct{} // closed when nobody is waited for
}

// gathering is the parts of an answer that have come.
type gathering struct {
	parts [][]byte
	left  int
}

// Ask asks some of the nodes that Known has returned. It returns the answers that have come within a second, in the order
// of the nodes, and the nodes that have not answered. It returns sooner if ctx ends, and does not wait for nodes that are
// away. A node that has left meanwhile is in neither.
func (c *Cluster) Ask(ctx context.Context, kind string, request []byte, of []Node) (answers []Answer, missing []Node) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	var others []Node
	var self *Node
	for _, n := range of {
		if n.ID == c.hub.Node() {
			self = &n
		} else {
			others = append(others, n)
		}
	}
	c.mu.Lock()
	answer, s := c.handlers[kind], c.session
	c.mu.Unlock()
	own := make(chan []byte, 1)
	if self != nil && answer != nil {
		// A goroutine, because it may take longer than Ask waits.
		go func() { own <- answer(request) }()
	} else {
		close(own)
	}
	missing = others
	if s != nil {
		answers, missing = s.ask(ctx, kind, request, others)
	}
	if self == nil {
		return answers, missing
	}
	if data, ok := receive(ctx, own); ok {
		return append([]Answer{{*self, data}}, answers...), missing
	}
	return answers, append([]Node{*self}, missing...)
}

// receive returns what comes from c before ctx ends, or is there already.
func receive[T any](ctx context.Context, c <-chan T) (v T, ok bool) {
	select {
	case v, ok = <-c:
		return v, ok
	default:
	}
	select {
	case v, ok = <-c:
	case <-ctx.Done():
	}
	return v, ok
}

// ask asks other nodes.
func (s *Session) ask(ctx context.Context, kind string, request []byte, of []Node) (answers []Answer, missing []Node) {
	if len(kind) > maxKind || len(request) > partSize {
		return nil, of
	}
	asked, missing, all := s.reachable(of)
	if len(asked) == 0 {
		return nil, missing
	}
	select {
	case s.asking <- struct{}{}:
		defer func() { <-s.asking }()
	case <-ctx.Done():
		return nil, append(missing, asked...)
	}
	a := &asking{waiting: make(map[uint64]*gathering), answers: make(map[uint64][]byte), done: make(chan struct{})}
	for _, n := range asked {
		a.waiting[n.ID] = new(gathering)
	}
	s.mu.Lock()
	s.question++
	q := question{id: s.question, kind: kind, data: request}
	s.asks[q.id] = a
	s.mu.Unlock()
	if all {
		s.peers.Send(0, q.append(nil))
	} else {
		for _, n := range asked {
			s.peers.Send(n.ID, q.append(nil)) // an argument belongs to the log, so each is another one
		}
	}
	select {
	case <-a.done:
	case <-s.stop:
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.asks, q.id)
	for _, n := range asked {
		if data, ok := a.answers[n.ID]; ok {
			answers = append(answers, Answer{n, data})
		} else if a.waiting[n.ID] != nil { // it has not left meanwhile
			missing = append(missing, n)
		}
	}
	return answers, missing
}

// reachable tells apart the nodes that can be asked and those that are missing, as they are now: some that were away may be
// back, or the other way round. Those that have left are neither. all reports whether every live node is asked.
func (s *Session) reachable(of []Node) (asked, missing []Node, all bool) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range of {
		if s.table.isAlive(n.ID, now) {
			asked = append(asked, n)
		} else if p := s.table.nodes[n.ID]; p == nil || !p.gone {
			missing = append(missing, n)
		}
	}
	return asked, missing, len(asked) == s.table.alive(now)
}

// answer answers a question of another node.
func (s *Session) answer(from uint64, q *question) {
	c := s.cluster
	c.mu.Lock()
	answer := c.handlers[q.kind]
	started := c.session == s
	c.mu.Unlock()
	if answer == nil || !started {
		return
	}
	select {
	case s.answers <- struct{}{}:
	default:
		return
	}
	// Receive has to return at once.
	go func() {
		defer func() { <-s.answers }()
		data := answer(q.data)
		if len(data) > MaxAnswer {
			return
		}
		many := max(1, (len(data)+partSize-1)/partSize)
		for i := range many {
			p := part{question: q.id, index: i, many: many, data: data[i*partSize : min((i+1)*partSize, len(data))]}
			s.peers.Send(from, p.append(nil))
		}
	}()
}

// answered takes a part of an answer.
func (s *Session) answered(from uint64, p *part) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.asks[p.question]
	if a == nil {
		return
	}
	g := a.waiting[from]
	if g == nil {
		return
	}
	if g.parts == nil {
		g.parts, g.left = make([][]byte, p.many), p.many
	}
	// Our nodes never send a part twice, or one of another answer, or too much. A node that does so ends up missing.
	if len(g.parts) != p.many || g.parts[p.index] != nil || a.size+len(p.data) > maxAnswers {
		return
	}
	a.size += len(p.data)
	g.parts[p.index] = p.data
	if g.left--; g.left > 0 {
		return
	}
	data := g.parts[0]
	if len(g.parts) > 1 {
		data = make([]byte, 0, len(g.parts)*partSize)
		for _, some := range g.parts {
			data = append(data, some...)
		}
	}
	a.answers[from] = data
	a.leftLocked(from)
}

// leftLocked does not wait for a node any more.
func (a *asking) leftLocked(id uint64) {
	if a.waiting[id] == nil {
		return
	}
	if delete(a.waiting, id); len(a.waiting) == 0 {
		close(a.done)
	}
}
