// Package nats is a log that nodes share in a stream of NATS JetStream.
//
// The stream gives each entry its position and republishes it at once, with the position of the one before it on its subject.
// A node subscribes to the republished subjects of its open channels, so the NATS servers send an entry to the nodes that
// want it. What a node may have missed it reads from the stream.
//
// Three goroutines do the work. The mover takes messages from the client library, which drops what is not taken. The
// receiver gives them to the Sink, and is the only one that calls it. The keeper connects, watches, and catches up.
package nats

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
	"github.com/caddy-broadcast/caddy-broadcast/internal/brokerlog"
	"github.com/caddy-broadcast/caddy-broadcast/internal/complaints"
	"github.com/caddy-broadcast/caddy-broadcast/internal/envelope"
	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"
	"go.uber.org/zap"
)

// log implements broker.Log. What comes before mu is atomic, has a lock of its own, or is set by Dial before its goroutines
// start and only read afterwards.
type log struct {
	config Config
	number uint64 // in its ticks
	sink   broker.Sink
	conn   *natsgo.Conn

	store, live string // what subjects of the stream, and of what it republishes, begin with

	generation atomic.Uint64 // counts the attempts to connect
	// One channel for all subscriptions, because nats.go's read loop then keeps their order: with handlers each one has a
	// goroutine of its own (waitForMsgs in nats.go 1.55).
	raw        chan *natsgo.Msg
	queue      queue
	requests   requests
	publisher  publisher
	barriers   joint // ticks that are awaited in the stream of entries
	marks      joint // ticks whose ack is awaited
	lookups    gather[lookup, newest]
	infos      gather[struct{}, *streamInfo]
	receiver   receiver
	peers      peers
	keeper     keeper
	complaints complaints.Complaints

	clustered atomic.Bool // several servers keep the stream

	epochs atomic.Uint64 // counts those that the Sink was told

	closed  atomic.Bool
	done    chan struct{} // closed by Close
	running sync.WaitGroup

	// mu guards what follows. Neither the Sink nor a callback is called with it held, because both may call the log. The
	// queue's lock is taken inside it, by Status, so the queue calls nothing of the log.
	mu        sync.Mutex
	channels  map[string]*channel // by their live subject; the one of "" is that of all
	retention broker.Retention
	problem   string
	heard     time.Time
	lastTick  time.Time       // of any node
	clock     brokerlog.Clock // of the stream's leader
	up        bool
	repairs   map[string]uint64
	foreign   uint64
}

// Dial returns a log at once, and connects in the background until it is closed. An error means that the options cannot work.
func Dial(c Config, sink broker.Sink, o broker.Options) (broker.Log, error) {
	// The module has done so already, but tests call Dial without it.
	c = c.withDefaults()
	if len(c.Servers) == 0 {
		return nil, fmt.Errorf("no server is given")
	}
	// Not the node's number: with a reload one node may have two logs for a moment, which would take each other's ticks.
	l := &log{
		config: c, number: rand.Uint64(), sink: sink, store: c.Prefix + ".s.", live: c.Prefix + ".l.", raw: make(chan *natsgo.Msg, rawRoom),
		done: make(chan struct{}), channels: map[string]*channel{}, repairs: map[string]uint64{}, retention: o.Retention,
		problem: "not connected yet",
	}
	// Its own inbox for each log: a reply to the log before it, of the same process, must not answer this one's request.
	inbox := "_INBOX_" + c.Prefix + "." + nuid.Next() + "."
	l.queue.init()
	l.requests = requests{prefix: inbox + "r.", waiting: map[uint64]chan *natsgo.Msg{}, lost: make(chan struct{})}
	l.publisher.init(l, inbox+"a.")
	l.peers.init(l, o, inbox)
	l.barriers.send = l.sendTick
	l.marks.send = l.sendMark
	// A Log begins as Broken, which the contract says, so the Sink is not told of it.
	l.receiver.broken, l.receiver.run = true, brokerlog.NewRun(sink)
	l.lookups.limit, l.lookups.fetch = groupSize, l.lookUps
	// One answer of the leader serves all who ask, however many they are.
	l.infos.limit, l.infos.fetch = math.MaxInt, l.askInfo
	l.keeper.init()
	options, err := l.options()
	if err != nil {
		return nil, err
	}
	// An error here is about the options. One of the network is not returned: with RetryOnFailedConnect the library goes on
	// in the background (Conn.connect in nats.go 1.55).
	if l.conn, err = natsgo.Connect(strings.Join(c.Servers, ","), options...); err != nil {
		return nil, withoutSecrets(err, c)
	}
	if err := l.subscribe(inbox); err != nil {
		l.conn.Close()
		return nil, err
	}
	// Only now: nothing is left running if Dial fails.
	l.running.Add(3)
	go l.move()
	go l.receive()
	go l.keep()
	return l, nil
}

// leaderElected is where the server says that a stream has a new leader.
const leaderElected = "$JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED."

// subscribe makes the subscriptions that last as long as the log.
func (l *log) subscribe(inbox string) error {
	for subject, handle := range map[string]natsgo.MsgHandler{
		inbox + "r.*": l.requests.handle, inbox + "a.*": l.publisher.handle, inbox + "m.*": l.handleMark, inbox + "n.*": l.peers.counts.handle,
	} {
		sub, err := l.conn.Subscribe(subject, handle)
		if err != nil {
			return err
		}
		sub.SetPendingLimits(-1, -1) // what is asked for is limited by who asks
	}
	if err := l.peers.subscribe(l.conn); err != nil {
		return err
	}
	// Anchors are not subscribed to: nobody needs them before something was missed, and then they are read.
	for _, name := range []string{tickName, epochName} {
		if _, err := l.conn.ChanSubscribe(l.live+name, l.raw); err != nil {
			return err
		}
	}
	// A leader that is gone may have stored entries without republishing them. The audit would find that later, if the account
	// may not subscribe to this.
	_, err := l.conn.Subscribe(leaderElected+l.config.Stream, func(*natsgo.Msg) {
		l.queue.push(func() { l.fail("leader") })
	})
	return err
}

// Status implements broker.Log. It asks nobody, because metrics and health checks call it while the broker may be away.
func (l *log) Status() broker.Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := broker.Status{Up: l.up, Problem: l.problem, Heard: l.heard, Foreign: l.foreign, QueueBytes: l.queue.size(), Repairs: map[string]uint64{}}
	for cause, n := range l.repairs {
		s.Repairs[cause] = n
	}
	if l.conn.IsConnected() {
		s.Server = withoutLogin(l.conn.ConnectedUrl())
		s.MaxData = max(0, int(l.conn.MaxPayload())-envelope.MaxSize-maxHeaders)
	}
	s.Clock = l.clock.Now()
	if l.up {
		// What was noted may be over, or may have been about one request only.
		s.Problem = ""
	}
	return s
}

// withoutLogin is a server's URL without its user, which may be a token: url.Redacted only hides a password.
func withoutLogin(server string) string {
	u, err := url.Parse(server)
	if err != nil {
		return ""
	}
	u.User = nil
	return u.String()
}

func (l *log) Close() {
	// Two callers may close a log, and both have to be sure that nothing calls them any more when Close returns.
	if l.closed.Swap(true) {
		<-l.done
		l.running.Wait()
		return
	}
	close(l.done)
	// The publisher first, so that nothing is sent any more whose answer nobody waits for. The receiver last, because it is
	// the one that calls the Sink, and what was pushed to it has to be done.
	l.publisher.close()
	l.peers.close()
	l.conn.Close()
	l.barriers.fail(broker.ErrClosed, true)
	l.marks.fail(broker.ErrClosed, true)
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

// denied says that the account may not do something.
func (l *log) denied(err error) {
	l.setProblem(err.Error())
	if l.complaints.Fresh(err.Error(), time.Now()) {
		l.logger().Error("the broker's account lacks a permission", zap.Error(err))
	}
}

// withoutSecrets removes passwords from an error, which may quote a URL.
func withoutSecrets(err error, c Config) error {
	text := err.Error()
	for _, server := range c.Servers {
		if u, e := url.Parse(server); e == nil && u.User != nil {
			text = strings.ReplaceAll(text, u.User.String(), "…")
		} else if e != nil {
			text = "a server's URL cannot be used"
		}
	}
	// The error is not wrapped: whoever unwraps it would have the password.
	return fmt.Errorf("%s", text)
}
