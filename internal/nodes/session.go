package nodes

import (
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
)

// Session is this node's membership among the nodes of one broker.
type Session struct {
	cluster *Cluster
	name    string
	run     uint64 // see beat
	peers   broker.Peers
	stop    chan struct{}
	again   chan struct{} // has room for one: beat now
	running sync.WaitGroup
	warn    rate.Sometimes // of nodes with another epoch

	subscribers cache
	reports     reports

	mu       sync.Mutex
	table    table
	asks     map[uint64]*asking
	asking   chan struct{} // has a place for each of them
	answers  chan struct{} // has a place for each question that is being answered
	question uint64        // the last one's number
}

// maxAnswering is how many questions a node answers at a time. Others get no answer, which protects the node from one that
// never stops asking. It is enough for maxAsking questions from each of three nodes.
const maxAnswering = 32

// NewSession returns a session with a name for this node. Its log is dialed with Sink and Receive, and then attached: until
// Attach the session does nothing.
func (c *Cluster) NewSession(name string) *Session {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.runs++
	// The numbers of questions begin anywhere, so that an answer to one of the session before is not taken for another.
	return &Session{
		cluster: c, name: name, run: c.runs,
		stop: make(chan struct{}), again: make(chan struct{}, 1),
		warn:     rate.Sometimes{Interval: 10 * time.Minute},
		table:    newTable(time.Now()),
		asks:     make(map[uint64]*asking),
		asking:   make(chan struct{}, maxAsking),
		question: rand.Uint64(),
		answers:  make(chan struct{}, maxAnswering),
	}
}

// start begins the session, in place of the previous one of the cluster. peers is implemented by its log.
func (s *Session) start(peers broker.Peers) {
	s.peers = peers
	s.reports.init(s)
	s.subscribers.init(s)
	c := s.cluster
	c.mu.Lock()
	c.session, c.name = s, s.name
	c.mu.Unlock()
	c.hub.WatchCounts(true)
	s.running.Go(s.beats)
	s.running.Go(s.reports.loop)
	c.reunite()
}

// leaveTime is how long a node that leaves waits for its counts to be removed.
const leaveTime = time.Second

// close tells the other nodes that this one leaves. It needs the log, which must be closed afterwards.
func (s *Session) close() {
	c := s.cluster
	c.mu.Lock()
	if c.session == s {
		c.session = nil
		c.hub.WatchCounts(false)
	}
	c.mu.Unlock()
	close(s.stop)
	s.running.Wait()
	s.peers.Send(0, binary.AppendUvarint([]byte{messageVersion, kindGoodbye}, s.run))
	// Nobody else may be left there to remove the counts, and they would count again when this node is back. If another session
	// with the same broker has taken its place, they were its counts too, so it sets them again.
	s.reports.end(leaveTime)
	if next := c.current(); next != nil {
		next.reports.setAllNow()
	}
}

// interrupted is called when the broker cannot be reached.
func (s *Session) interrupted() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.table.cut = true
}

// recovered is called when this node was cut off, or when the broker may have lost data. It tells the others that this node is
// alive, and sets all counts again.
func (s *Session) recovered() {
	s.mu.Lock()
	if s.table.cut {
		s.table.cut, s.table.back = false, time.Now()
	}
	s.mu.Unlock()
	s.reports.setAll()
	if s.started() {
		s.cluster.reunite()
	}
	select {
	case s.again <- struct{}{}:
	default:
	}
}

// How often nodes send beats, and when one that sends none is dead.
const (
	minPeriod = time.Second
	basic     = 2 * time.Second
	maxPeriod = 2 * time.Minute
	// manyNodes is from how many nodes on the period grows with their number, so that each gets manyNodes/basic beats a
	// second, whatever their number: 50, which are some 5 KB.
	manyNodes = 100
	deadAfter = 3 // periods
)

// period returns how often each of n nodes sends a beat.
func period(n int) time.Duration {
	return min(max(basic, basic*time.Duration(n)/manyNodes), maxPeriod)
}

// beats sends beats, and looks after those of others.
func (s *Session) beats() {
	asks, soon, last := true, false, time.Duration(0)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-timer.C:
		case <-s.again:
			asks = true
			if d := s.afterOutage(); d > 0 {
				if !soon { // once, or one outage after the other would put it off for ever
					soon = true
					timer.Reset(rand.N(d))
				}
				continue
			}
		}
		soon = false
		p := s.beat(0, asks)
		s.sweep()
		// Many nodes may have been started, or have lost the broker, at one moment. Their next beats come at any moment of a
		// period, and later ones up to a tenth sooner, so that the broker never has all of them to send at once. A node that
		// was just started does not know yet how many others there are: when it does, its period is longer.
		sooner := p / 10
		if asks || 2*p > 3*last {
			sooner = p
		}
		asks, last = false, p
		timer.Reset(p - rand.N(sooner))
	}
}

// afterOutage returns over how long nodes spread their beats after they were cut off. A few nodes send them at once. But
// many nodes are usually cut off together: when a broker came back, the beats of 300 nodes were 90,000 messages at one
// moment (simulate, scenario beats), and those of 1000 would be a million, while the broker has opens to answer.
func (s *Session) afterOutage() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 1 + len(s.table.nodes) // those too that seem to be dead since
	if n <= manyNodes {
		return 0
	}
	return period(n) / 4
}

// alive returns how many nodes are alive, this one included.
func (s *Session) alive() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return 1 + s.table.alive(time.Now())
}

// beat sends a beat, to all nodes if the number is 0, and returns the period that it tells.
func (s *Session) beat(to uint64, asks bool) time.Duration {
	b := beat{run: s.run, period: period(s.alive()), asks: asks, node: s.cluster.self()}
	b.node.Name = s.name
	s.peers.Send(to, b.append(nil))
	return b.period
}

// Receive takes what another node has sent. It keeps the message, and may be called before Attach.
func (s *Session) Receive(from uint64, message []byte) {
	kind, rest := kindOf(message)
	if from == s.cluster.hub.Node() || from == 0 {
		return
	}
	switch kind {
	case kindBeat:
		var b beat
		if b.read(rest) == nil {
			b.node.ID = from
			s.heard(&b)
		}
	case kindGoodbye:
		r := reader{rest: rest}
		if run := r.number(); !r.bad {
			s.mu.Lock()
			s.table.goodbye(from, run, time.Now())
			s.leftLocked(from)
			s.mu.Unlock()
		}
	case kindQuestion:
		var q question
		if q.read(rest) == nil {
			s.answer(from, &q)
		}
	case kindAnswer:
		var p part
		if p.read(rest) == nil {
			s.answered(from, &p)
		}
	case kindTold:
		s.told(from, rest)
	case kindForgot:
		s.mu.Lock()
		known := s.table.isAlive(from, time.Now())
		s.mu.Unlock()
		if known && s.started() {
			s.reports.setAll()
		}
	}
}

// started reports whether the session has begun, and none has taken its place.
func (s *Session) started() bool { return s.cluster.current() == s }

// heard takes a beat.
func (s *Session) heard(b *beat) {
	now := time.Now()
	s.mu.Lock()
	answer, forgot := s.table.heard(b, now)
	// With many nodes a new one waits for their beats. If all begin at the same time, each would answer each.
	answer = answer && s.table.alive(now) < manyNodes
	s.mu.Unlock()
	if !s.started() {
		return
	}
	if answer {
		s.beat(b.node.ID, false)
	}
	if forgot {
		s.peers.Send(b.node.ID, []byte{messageVersion, kindForgot})
	}
	s.compare(b, now)
}

// epochTime is how long the epoch of another node may differ without a warning. When an epoch changes, each node is told at
// a different time.
const epochTime = 10 * time.Second

// compare warns of a node that has had another epoch for too long, because it uses another log.
func (s *Session) compare(b *beat, now time.Time) {
	own := s.cluster.hub.Summary().Epoch
	s.mu.Lock()
	since := s.table.differs(b.node.ID, own, now)
	s.mu.Unlock()
	if since.IsZero() || now.Sub(since) <= max(epochTime, deadAfter*b.period) {
		return
	}
	s.warn.Do(func() {
		logger().Warn("another node has another log: messages of one do not reach the clients of the other; give all nodes the same options of the broker",
			zap.String("node", b.node.Name), zap.String("id", b.node.Text()), zap.String("its_epoch", b.node.Epoch), zap.String("epoch", own))
	})
}

// logger returns Caddy's logger. The one of a module would be that of a configuration which may have ended.
var logger = func() *zap.Logger { return caddy.Log().Named("broadcast.nodes") } // a variable for tests

// sweep removes the counts of nodes that have ended, if it is this node's turn.
func (s *Session) sweep() {
	s.cluster.mu.Lock()
	away := s.cluster.away
	s.cluster.mu.Unlock()
	s.mu.Lock()
	forget := s.table.sweep(s.cluster.hub.Node(), time.Now(), away)
	s.mu.Unlock()
	for _, id := range forget {
		s.peers.Forget(id)
	}
}

// leftLocked has no question wait for a node any more.
func (s *Session) leftLocked(id uint64) {
	for _, a := range s.asks {
		a.leftLocked(id)
	}
}
