package brokertest

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
)

// MemoryConfig is the options of a Memory. Zero values are defaults.
type MemoryConfig struct {
	// Seed makes what is random the same in each run: the delays of messages.
	Seed uint64

	// Latency is how long a message takes from a node to the broker, and back. Up to Jitter is added to each, but none
	// overtakes another one that goes the same way.
	Latency, Jitter time.Duration

	// Keep is how many entries of a channel are kept in any case, so that a node that was away can catch up. Nodes may ask
	// for more: see broker.Retention. The default is 1000. It is the Memory's own minimum, apart from what nodes ask for,
	// because a node that asks for no history must still be able to repair.
	Keep int

	// Tick is how often each node is told the newest position. A node that has heard nothing for six ticks connects again.
	// The default is 500 ms.
	Tick time.Duration

	// PublishTimeout is how long a node waits for an ack. The default is 5 s.
	PublishTimeout time.Duration

	// MaxData is the size of the largest data that is accepted. 0 means no limit.
	MaxData int

	// MaxBatch is how many entries are stored at once. More of them are stored in parts, and if one fails the publisher gets
	// a *broker.PartialError. 0 means no limit. It exists because NATS has such a limit too, and the hub has to handle the
	// error.
	MaxBatch int
}

// Memory is a broker in memory, for tests. Any number of nodes share it: each calls Broker, and dials that. It does all
// that package broker asks for, and fails on command: its own methods are faults of the whole broker, those of MemoryBroker
// are faults of one node.
//
// It uses no other clock than that of package time, and does not do I/O, so it works inside testing/synctest. Messages
// between nodes and the broker arrive in the order of their times, which depend only on the seed and on the calls. The
// callbacks of different nodes come from different goroutines. Delays and faults belong to it, and not to a test's own code,
// so that all of them can be combined.
type Memory struct {
	config MemoryConfig
	clock  clock

	// What follows is guarded by clock.mu. So the numbers of random are drawn in the order of the messages.
	random   *rand.Rand
	store    store
	counts   counts
	brokers  []*MemoryBroker
	sessions []*session // of nodes that are attached
	down     bool
	frozen   bool
	arrived  []func() // what came while frozen
}

// NewMemory starts a broker. Close stops it. It starts a goroutine, so inside testing/synctest it has to be called in the
// bubble, and closed there.
func NewMemory(c MemoryConfig) *Memory {
	if c.Keep == 0 {
		c.Keep = 1000
	}
	if c.Tick == 0 {
		c.Tick = 500 * time.Millisecond
	}
	if c.PublishTimeout == 0 {
		c.PublishTimeout = 5 * time.Second
	}
	// The second number only has to be the same each time. The type asks for two.
	m := &Memory{config: c, counts: make(counts), random: rand.New(rand.NewPCG(c.Seed, 1))}
	m.store.init(c.Keep)
	m.clock.start()
	m.clock.mu.Lock()
	m.clock.after(c.Tick, m.tick)
	m.clock.mu.Unlock()
	return m
}

// Broker returns what one more node dials.
func (m *Memory) Broker() *MemoryBroker {
	m.clock.mu.Lock()
	defer m.clock.mu.Unlock()
	b := &MemoryBroker{memory: m, latency: m.config.Latency}
	m.brokers = append(m.brokers, b)
	return b
}

// Close closes the logs that are open, and stops the broker. The logs come first: their Close waits for callbacks, and those
// may need the clock.
func (m *Memory) Close() {
	for _, l := range m.logs() {
		l.Close()
	}
	m.clock.stop()
}

// logs returns a copy, because Close of a log takes the lock and removes it from its broker.
func (m *Memory) logs() []*memoryLog {
	m.clock.mu.Lock()
	defer m.clock.mu.Unlock()
	return m.logsLocked()
}

func (m *Memory) logsLocked() (all []*memoryLog) {
	for _, b := range m.brokers {
		all = append(all, b.logs...)
	}
	return all
}

// Stored is what a Memory has stored in one epoch.
type Stored struct {
	Epoch   string
	Entries []broker.Entry // with what was lost when it ended, and what retention has dropped
}

// Stored returns what was stored in each epoch, the current one last: it is what tests compare deliveries with.
func (m *Memory) Stored() []Stored {
	m.clock.mu.Lock()
	defer m.clock.mu.Unlock()
	return append(slices.Clone(m.store.past), Stored{m.store.epoch.name, slices.Clone(m.store.all)})
}

// Position returns the newest position and its epoch.
func (m *Memory) Position() (epoch string, seq uint64) {
	m.clock.mu.Lock()
	defer m.clock.mu.Unlock()
	return m.store.epoch.name, m.store.seq
}

// Stop cuts all connections, and accepts no more until Start. What is stored is kept.
func (m *Memory) Stop() {
	m.clock.mu.Lock()
	defer m.clock.mu.Unlock()
	m.down, m.frozen, m.arrived = true, false, nil
	for _, l := range m.logsLocked() {
		l.disconnectLocked("reconnect", fmt.Errorf("the broker has stopped"))
	}
}

// Start ends Stop.
func (m *Memory) Start() {
	m.clock.mu.Lock()
	defer m.clock.mu.Unlock()
	m.down = false
	m.connectLocked()
}

// connectLocked has each log connect that can and is not connected.
func (m *Memory) connectLocked() {
	for _, l := range m.logsLocked() {
		l.connectLocked()
	}
}

// Freeze has the broker do nothing until Thaw. Connections stay, and what nodes send it is worked off then.
func (m *Memory) Freeze() {
	m.clock.mu.Lock()
	defer m.clock.mu.Unlock()
	m.frozen = true
}

// Thaw ends Freeze.
func (m *Memory) Thaw() {
	m.clock.mu.Lock()
	defer m.clock.mu.Unlock()
	m.frozen = false
	arrived := m.arrived
	m.arrived = nil
	for _, do := range arrived {
		do()
	}
}

// arrive does what came to the broker, now or when it is not frozen any more.
func (m *Memory) arrive(do func()) {
	if m.frozen {
		m.arrived = append(m.arrived, do)
	} else {
		do()
	}
}

// Rollback loses the newest n entries, although they were acked, and begins a new epoch. Nodes that are connected are told at
// once, the others when they connect. It is what a server does whose machine died before it had written its last entries. A
// log that did not change the epoch would give their positions a second time, which is against rule 7 of package broker.
func (m *Memory) Rollback(n int) {
	m.clock.mu.Lock()
	defer m.clock.mu.Unlock()
	m.store.rollback(n)
	epoch, at := m.store.epoch, m.store.seq
	for _, s := range m.sessions {
		// The node counts again from its new epoch on, so both halves of the session begin at the same number.
		s.due = 0
		s.toNode(func() { s.log.epochChangedLocked(epoch, at) })
	}
}

// Forget drops all but the newest entries of a channel, as if it had to keep no more. Read then is incomplete, and a node
// that has to catch up reports that it lost messages of the channel.
func (m *Memory) Forget(channel string, keep int) {
	m.clock.mu.Lock()
	defer m.clock.mu.Unlock()
	m.store.forget(channel, keep)
}

// tick tells the nodes the newest position, and has those that have heard nothing for long connect again. A Memory's session
// has no timeouts of its own, so this is also where a node finds that its connection is dead. Six ticks are 3 s with the
// default.
func (m *Memory) tick() {
	m.clock.after(m.config.Tick, m.tick)
	if !m.frozen && !m.down {
		m.store.seq++ // a tick has a position, as with JetStream
		for _, s := range m.sessions {
			s.tick(nil)
		}
	}
	for _, l := range m.logsLocked() {
		s := l.session
		if s == nil {
			continue
		}
		if silence := time.Since(l.heard); silence > 6*m.config.Tick {
			l.disconnectLocked("tick", fmt.Errorf("nothing was heard for %v", silence))
			l.connectLocked()
		} else if s.lossy && !l.broker.muted {
			l.disconnectLocked("reconnect", fmt.Errorf("the connection was reset"))
			l.connectLocked()
		}
	}
}

// publish stores entries, as many at once as it may, and sends them to the nodes that are subscribed. It stores and sends
// under one lock. So no node can be attached between the two and miss an entry, or get it twice.
func (m *Memory) publish(es []broker.Entry) (all []broker.Place, err error) {
	for part := range slices.Chunk(es, cmp.Or(m.config.MaxBatch, len(es), 1)) {
		stored, places, err := m.store.append(part)
		if err != nil && len(all) > 0 {
			return nil, &broker.PartialError{Places: all, Err: err}
		} else if err != nil {
			return nil, err
		}
		for _, s := range m.sessions {
			s.deliver(stored)
		}
		all = append(all, places...)
	}
	return all, nil
}

// MemoryBroker is one node's way to a Memory. Its methods inject faults in the logs that were dialed with it.
type MemoryBroker struct {
	memory *Memory

	// What follows is guarded by memory.clock.mu.
	logs       []*memoryLog
	latency    time.Duration
	cut, muted bool
	// Each counts down to 0, which means that there is no fault.
	loseLive, losePublishes, losePlaces, loseMessages int
	traffic                                           Traffic
}

// Dial implements broker.Broker.
func (b *MemoryBroker) Dial(sink broker.Sink, o broker.Options) (broker.Log, error) {
	m := b.memory
	m.clock.mu.Lock()
	defer m.clock.mu.Unlock()
	l := newMemoryLog(b, sink, o)
	b.logs = append(b.logs, l)
	m.store.retain(l, o.Retention)
	l.connectLocked()
	return l, nil
}

// set changes a fault while no message arrives, so a fault begins between two messages and never in the middle of one.
func (b *MemoryBroker) set(change func()) {
	b.memory.clock.mu.Lock()
	defer b.memory.clock.mu.Unlock()
	change()
}

// Disconnect cuts the node's connection, and it cannot connect until Reconnect.
func (b *MemoryBroker) Disconnect() {
	b.set(func() {
		b.cut = true
		for _, l := range b.logs {
			l.disconnectLocked("reconnect", fmt.Errorf("the connection was cut"))
		}
	})
}

// Reconnect ends Disconnect.
func (b *MemoryBroker) Reconnect() {
	b.set(func() {
		b.cut = false
		b.memory.connectLocked()
	})
}

// Mute loses everything that the node and the broker send each other, until it is called with false. The node only notices
// that it hears nothing. A connection that has lost something is reset when it can be used again.
func (b *MemoryBroker) Mute(on bool) { b.set(func() { b.muted = on }) }

// SetLatency changes how long what is sent from now on takes to the broker, and back.
func (b *MemoryBroker) SetLatency(d time.Duration) { b.set(func() { b.latency = d }) }

// LoseLive loses the next n entries that the broker would send to the node. The node notices with the channel's next entry
// or the next tick, and reads what it lacks. By then others may have come, so the hub gets it late.
func (b *MemoryBroker) LoseLive(n int) { b.set(func() { b.loseLive = n }) }

// LosePublishes loses the node's next n publishes: nothing is stored, and the publisher gets broker.ErrUnknown.
func (b *MemoryBroker) LosePublishes(n int) { b.set(func() { b.losePublishes = n }) }

// LoseAcks loses the acks of the node's next n publishes: they are stored, and the publisher gets broker.ErrUnknown.
func (b *MemoryBroker) LoseAcks(n int) { b.set(func() { b.losePlaces = n }) }
