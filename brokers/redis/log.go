// Package redis is a log that nodes share in a server of Redis or Valkey.
//
// A script gives each entry its position, adds it to the stream of its channel, and publishes it. Scripts are atomic, so the
// entries that a node's connection is sent are in the order of the log, and none is missing while the connection lasts. What a
// node misses between two connections it reads from the streams.
//
// Five goroutines do the work. The keeper connects, watches, and catches up. The receiver takes what a connection has queued
// and gives it to the Sink, and is the only one that calls it. The sender publishes, the asker subscribes and ticks, and the
// counter implements broker.Peers. Each of these three sends together what has come up while it waited for an answer.
package redis

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
	"github.com/caddy-broadcast/caddy-broadcast/internal/brokerlog"
	"github.com/caddy-broadcast/caddy-broadcast/internal/complaints"
	"go.uber.org/zap"
)

// maxData is how many bytes of data an entry may have. A server cuts a subscriber that lags by 32 MiB, unless it is configured
// otherwise (client-output-buffer-limit pubsub), so one entry has to be much less.
const maxData = 8 << 20

// log implements broker.Log. What comes before mu is atomic, has a lock of its own, or is set by Dial before its goroutines
// start and only read afterwards.
type log struct {
	config Config
	node   uint64
	// Not the node's number: with a reload one node may have two logs for a moment.
	id      string
	sink    broker.Sink
	message func(from uint64, message []byte)

	// What keys and channels begin with, the key of the log itself, and the channels of entries, of ticks and of messages.
	prefix, meta, live, own, peer, everybody string

	atLeast    int    // how many entries of a channel are kept
	attempts   int    // to connect; the keeper's
	generation uint64 // of sessions; the keeper's

	queue      queue
	receiver   receiver
	publisher  publisher
	asker      asker
	counters   counters
	complaints complaints.Complaints
	reads      chan struct{} // places for those who read

	// telling is held while the Sink is told an epoch, and by those who answer with positions of one.
	telling sync.RWMutex
	epochs  uint64 // counts those that the Sink was told; guarded by telling

	closed  atomic.Bool
	done    chan struct{} // closed by Close
	running sync.WaitGroup

	// mu guards what follows. Neither the Sink nor a callback is called with it held, because both may call the log.
	mu        sync.Mutex
	channels  map[string]*channel // by the server's channel; that of "" is the pattern
	all       *channel            // that of ""
	openings  map[*opening]struct{}
	session   *session // the one that is used, nil while there is none that has caught up
	retention broker.Retention
	retain    bool // the server does not know it yet
	problem   string
	refusal   string // why the server has not stored what was published last
	heard     time.Time
	epoch     string          // that the Sink was told last
	certain   uint64          // a position that was stored in it
	clock     brokerlog.Clock // the server's
	repairs   map[string]uint64
	foreign   uint64
}

// Dial returns a log at once. It connects in the background until it is closed. An error means that the options cannot
// work.
func Dial(c Config, sink broker.Sink, o broker.Options) (broker.Log, error) {
	// The module has done so already, but tests call Dial without it.
	c = c.withDefaults()
	switch {
	case len(c.Servers) == 0:
		return nil, fmt.Errorf("no server is given")
	case strings.ContainsAny(c.Prefix, "{}"):
		return nil, fmt.Errorf("the prefix %q has a brace", c.Prefix)
	case c.Durable && (c.Master != "" || c.Cluster):
		// A replica that is promoted may not have what was acknowledged last.
		return nil, fmt.Errorf("durable is for one server, and not for Sentinels or a cluster")
	}
	// One hash tag, so that all of the log is on one node of a cluster.
	prefix := "{" + c.Prefix + ":0}:"
	if c.DB != 0 {
		// Keys are apart in databases, and channels are not.
		prefix += strconv.Itoa(c.DB) + ":"
	}
	l := &log{
		config: c, node: o.Node, id: strconv.FormatUint(rand.Uint64(), 36), sink: sink, message: o.Message,
		prefix: prefix, meta: prefix + "m", live: prefix + "c:", everybody: prefix + "p:*",
		reads: make(chan struct{}, maxReads), done: make(chan struct{}), channels: map[string]*channel{}, openings: map[*opening]struct{}{}, repairs: map[string]uint64{},
		retention: o.Retention, retain: true, atLeast: minMessages, problem: "not connected yet",
	}
	l.own, l.peer = prefix+"o:"+l.id, l.peerName(o.Node)
	l.queue.init()
	l.publisher.init(l)
	l.asker.init()
	l.counters.init(l)
	// A Log begins as Broken, which the contract says, so the Sink is not told of it.
	l.receiver.broken, l.receiver.run = true, brokerlog.NewRun(sink)
	l.running.Add(5)
	go l.receive()
	go l.keep()
	go l.publisher.run()
	go l.ask()
	go l.count()
	return l, nil
}

// newEpoch returns a name for an epoch. It is short, because it is a part of each ID that clients get.
func newEpoch() string {
	const letters = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	var b [8]byte
	for i := range b {
		b[i] = letters[rand.IntN(len(letters))]
	}
	return string(b[:])
}

// Status implements broker.Log. It asks nobody, because metrics and health checks call it even when the broker does not
// answer.
func (l *log) Status() broker.Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := broker.Status{
		Up: l.session != nil, Problem: l.problem, Heard: l.heard, Foreign: l.foreign, QueueBytes: l.queue.size(), MaxData: maxData,
		Clock: l.clock.Now(), Repairs: map[string]uint64{},
	}
	for cause, n := range l.repairs {
		s.Repairs[cause] = n
	}
	if l.session != nil {
		s.Server = l.session.address
		s.Problem = l.refusal // others are over
	}
	return s
}

func (l *log) Close() {
	// Two callers may close a log, and both have to be sure that nothing calls them any more when Close returns.
	l.mu.Lock()
	closed := l.closed.Swap(true)
	l.mu.Unlock()
	if closed {
		<-l.done
		l.running.Wait()
		return
	}
	close(l.done)
	// The receiver last, because it is the one that calls the Sink, and what was pushed to it has to be done. It ends when
	// the keeper has closed the session and the asker has ended what waits.
	l.queue.close()
	l.running.Wait()
}

// logger asks for the logger each time, because that of the first configuration is gone after a reload.
func (l *log) logger() *zap.Logger { return l.config.Logger() }

// setProblem notes what Status shows to people, so s must have no secret in it.
func (l *log) setProblem(s string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.problem = s
}

// refusesPublishing notes why the server does not store messages, though it answers: it is full, for example. nil says that it
// does.
func (l *log) refusesPublishing(err error) {
	text := ""
	if err != nil {
		text = "publishing fails: " + err.Error()
		if l.complaints.Fresh(text, time.Now()) {
			l.logger().Error("the broker refuses messages", zap.Error(err))
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refusal = text
}

// used returns the session that has caught up, or nil.
func (l *log) used() *session {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.session
}

// known returns the epoch that the Sink was told, and a position that was stored in it.
func (l *log) known() (epoch string, at uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.epoch, l.certain
}

// during calls do while the Sink cannot be told another epoch. over says that the epoch of a session has ended already.
func (l *log) during(s *session, do func(over bool)) {
	l.telling.RLock()
	defer l.telling.RUnlock()
	do(s.number != l.epochs)
}

// told returns the number of the epoch that the Sink was told last.
func (l *log) told() uint64 {
	l.telling.RLock()
	defer l.telling.RUnlock()
	return l.epochs
}

// countForeign counts what no node has published. It is not an error, because anybody with access to the channels can cause
// it, but people should see it.
func (l *log) countForeign() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.foreign++
}
