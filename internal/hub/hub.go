package hub

import (
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
)

var (
	// ErrClosed is returned once the hub, or the connection that publishes, is closing.
	ErrClosed = errors.New("the hub is closed, or the connection is")

	// ErrFull is returned to a publisher while a loop has more waiting than its inbox may hold.
	ErrFull = errors.New("too many messages are waiting to be delivered")

	// ErrKeyReused is returned to a publisher that has used the key for a message that says something else.
	ErrKeyReused = broker.ErrConflict

	// ErrDown, ErrUnknown and ErrTooBig are returned to a publisher by the log that the hub shares with others: nothing was
	// published, or it is not known, or the broker accepts no message as large.
	ErrDown    = broker.ErrDown
	ErrUnknown = broker.ErrUnknown
	ErrTooBig  = broker.ErrTooBig

	// ErrNotReady is returned to a subscriber that could not be given a position in the shared log in time.
	ErrNotReady = errors.New("the server cannot follow the log of the cluster: try again")

	// ErrTooManyConnections and ErrTooManyChannels are returned to a subscriber that exceeds a limit.
	ErrTooManyConnections = errors.New("too many connections")
	ErrTooManyChannels    = errors.New("too many channels")

	// ErrRetired is returned to a subscriber whose options were retired while it was being accepted.
	ErrRetired = errors.New("the configuration was reloaded: connect again")

	// ErrMemory is returned to a subscriber while backlogs and history take all of Config.MaxMemory.
	ErrMemory = errors.New("the memory limit is reached (max_memory)")
)

const (
	// maxLoops is how many loops fit in the mask of those that a publish wakes, which is a uint64.
	maxLoops = 64

	// smallChannel is how many subscribers of a channel are kept together on one loop, so that a message
	// to a few wakes one loop and not several.
	smallChannel = 32

	// defaultMaxInbox bounds the bytes waiting in one loop's inbox.
	defaultMaxInbox = 64 << 20

	// DefaultHistoryBytes bounds the history of all channels if no option does.
	DefaultHistoryBytes = 64 << 20
)

// Config can be changed while the hub runs. With the zero value it has no limits on connections, channels and memory,
// keeps no history, and writes at once.
type Config struct {
	// Coalesce is how long a loop gathers messages before it writes them.
	Coalesce time.Duration
	// MaxConnections and MaxChannels limit the connections, and the channels that have subscribers. 0 means no limit.
	MaxConnections, MaxChannels int
	// History is how many messages are kept for each channel, for at most HistoryAge if that is set. HistoryBytes limits
	// what all channels keep together; 0 means 64 MiB.
	History      int
	HistoryAge   time.Duration
	HistoryBytes int
	// Histories say it for some channels: the first rule that matches applies, and History to all others.
	Histories []HistoryRule
	// MaxMemory limits the bytes that wait or are kept. 0 means no limit. See memory.go for what counts.
	MaxMemory int64
	// MaxInbox limits the bytes that wait for one loop, or that it is at work on. 0 means 64 MiB.
	MaxInbox int
	// PartitionTimeout is how long connections stay while the log that the hub shares with others cannot be followed. 0 means
	// for ever.
	PartitionTimeout time.Duration
}

// Hub is the log and the loops behind it.
type Hub struct {
	node     uint64 // a random number that names it among the nodes that share a log
	started  time.Time
	loops    []*loop
	running  sync.WaitGroup
	quit     chan struct{} // closed when the hub is closed, for those that wait for its log
	stopped  chan struct{} // closed when the loops have ended
	attach   chan struct{} // full while UseLog runs: a channel, because a goroutine that waits for a mutex stops the time of testing/synctest
	shared   atomic.Bool   // log is not nil
	starting atomic.Pointer[starting]

	outbox  outbox       // what was pushed and is not in the inboxes yet
	waiting atomic.Int32 // how many wait for room; changed under mu

	backlog   atomic.Int64 // bytes that wait for connections, counted for each
	held      atomic.Int64 // bytes that are in memory for them; see memory.go
	coalesce  atomic.Int64 // Config.Coalesce, for the loops
	members   atomic.Int64 // of held, what package presence has
	posted    atomic.Int64 // of held, what publishers without a connection have in flight to a shared log
	maxMemory atomic.Int64 // Config.MaxMemory
	evicting  atomic.Bool
	rejected  [limits]atomic.Uint64

	kicks       tallies    // of what came from the shared log
	configuring sync.Mutex // held while the options change; taken before mu

	mu          lock
	hasSpace    sync.Cond // on mu: a loop is done with something, or memory was freed; for those that wait for room
	inboxes     inboxes
	promised    int // bytes of what is being encoded for a join, and is queued then
	config      Config
	log         *sharedLog // nil: the hub's own
	epochBegan  int64      // when the log's epoch began here, in milliseconds since 1970
	logCounts   *logCounts
	awaiting    map[*Conn]chan struct{} // those that wait for an answer of the log before they publish more
	echoes      map[ConnID]*Conn        // those that have published to a shared log, and get no echo
	epoch       string
	origin      *origin   // of epoch
	seq         uint64    // the last position given out; with a shared log, the watermark
	seqTime     time.Time // when it was given out
	bytes       uint64
	channels    map[string]*channel // those that have subscribers or history
	index       index               // their names
	droppedSeq  uint64              // the last message that any channel, of those that are not in channels, has lost
	subscribed  int                 // those that have subscribers
	marks       *marks              // those whose subscribers have changed, if somebody wants to know
	names       map[string]*named   // of connections, and those that are kept for one that comes back
	namesOf     map[*Conn][]string  // those that have some
	naming      bool                // there has been a name, so the log's channel for names is open
	namesLost   uint64              // private messages up to here may be missing
	commands    []*NameCommand      // of the log, to be carried out in their order
	history     history
	rules       uint32 // counts the changes of what is kept of which channel
	repeats     repeats
	connections int
	connected   uint64            // how many there have ever been
	transports  map[string]int    // connections by transport
	quotas      map[quota]int     // connections that count for a route's limits
	published   map[string]uint64 // messages by source
	gaps        uint64            // that connections were notified of when they started
	all         *channel          // the subscribers of every channel, if there are any
	closing     sync.Once
	leaving     bool
	closed      bool
	empty       chan struct{} // closed when the hub is closed and the last connection is gone
}

// New starts a hub.
func New(c Config) *Hub {
	h := newIdle(c)
	for _, l := range h.loops {
		h.running.Go(l.run)
	}
	return h
}

// newIdle returns a hub whose loops do not run.
func newIdle(c Config) *Hub {
	h := &Hub{
		node:     randomNode(),
		started:  time.Now(),
		channels: make(map[string]*channel),

		transports: make(map[string]int),
		quotas:     make(map[quota]int),
		published:  make(map[string]uint64),
		empty:      make(chan struct{}),
	}
	h.hasSpace.L = &h.mu
	h.repeats.init()
	h.stopped = make(chan struct{})
	h.quit = make(chan struct{})
	h.attach = make(chan struct{}, 1)
	h.setEpochLocked(randomEpoch())
	h.Configure(c)
	// Fixed from here on, though Go changes GOMAXPROCS with the CPU limit of a container (since Go 1.25): a
	// connection belongs to one loop for its whole life.
	for range min(runtime.GOMAXPROCS(0), maxLoops) {
		l := &loop{hub: h, id: len(h.loops), bit: 1 << len(h.loops), wake: make(chan struct{}, 1), rings: make(map[int]*ring), toFlush: make([]*Conn, 0, 64)}
		l.flushers.init(h)
		h.loops = append(h.loops, l)
	}
	return h
}

// Configure replaces the options. Limits apply to what comes after.
func (h *Hub) Configure(c Config) {
	if c.MaxInbox == 0 {
		c.MaxInbox = defaultMaxInbox
	}
	if c.HistoryBytes == 0 {
		c.HistoryBytes = DefaultHistoryBytes
	}
	// Held until what there is already fits the options, so that two reloads do not mix.
	h.configuring.Lock()
	defer h.configuring.Unlock()
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return
	}
	h.coalesce.Store(int64(c.Coalesce))
	h.maxMemory.Store(c.MaxMemory)
	// Functions cannot be compared, so rules count as others each time.
	refit := c.History < h.config.History || c.HistoryAge != h.config.HistoryAge || len(c.Histories)+len(h.config.Histories) > 0
	retain := c.retention() != h.config.retention()
	h.config = c
	h.rules++
	if t := h.history.timer; t != nil {
		t.Stop()
	}
	if len(h.repeats.known) > h.keyLimitLocked() {
		h.forgetKeysLocked()
	}
	log := h.log
	if log != nil {
		log.configureLocked(retain)
	}
	h.mu.Unlock()
	if log != nil && retain {
		// Without Hub.mu, as all calls of the log.
		log.log.Retain(c.retention())
	}
	if refit {
		h.refit()
		h.refitNames()
	}
	h.expire()
	h.checkMemory()
}

// enqueue puts an entry that is not a message in the loop's inbox.
func (h *Hub) enqueue(l *loop, e entry) {
	h.mu.Lock()
	wake := l.pushLocked(e)
	h.mu.Unlock()
	h.wake(wake)
}

// DefaultChannel is the channel of a route, and of a message, that names none.
const DefaultChannel = "default"

// Transports of connections and sources of messages, as metrics and lists name them.
const (
	TransportWebSocket   = "websocket"
	TransportEventStream = "sse"
	TransportPolling     = "polling" // of Socket.IO
	TransportAdmin       = "admin"   // an event stream of the admin API

	SourceWebSocket = "websocket"
	SourcePost      = "post" // to a route
	SourceAdmin     = "admin"
	SourceGo        = "go" // the Go API
	SourceEvent     = "event"
	SourceLog       = "log"      // Caddy's log entries
	SourceResponse  = "response" // of another handler
	SourceRedis     = "redis"    // a backend, by the Redis protocol
)
