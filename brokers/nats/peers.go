package nats

import (
	"encoding/binary"
	"errors"
	"strconv"
	"strings"
	"sync"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"go.uber.org/zap"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
)

// Messages between nodes go over plain subjects, which no stream keeps: <prefix>.q.<node> and <prefix>.q._all. They have nothing
// to do with the log's order, so their subscriptions have goroutines of the client library, and not the channel that entries
// come through: a node that is flooded with messages loses some of them and no entry.
const (
	// maxPeerMessages and maxPeerBytes bound what came and was not taken yet, for each of the two subscriptions. The callback
	// returns at once, so they are only reached when the machine cannot keep up at all. Beyond them the library drops messages.
	maxPeerMessages = 16384
	maxPeerBytes    = 32 << 20

	// The number of the node that has sent a message is before it.
	senderBytes = 8
)

// peers is what the log keeps for broker.Peers.
type peers struct {
	node    uint64
	message func(from uint64, message []byte) // nil: nobody wants them
	subject string                            // what subjects of messages begin with
	counts  counts

	mu     sync.Mutex
	closed bool
	// Whoever may call the hub. mu is held for Add, so that none comes when close waits already.
	running sync.WaitGroup
}

func (p *peers) init(l *log, o broker.Options, inbox string) {
	p.node, p.message, p.subject = o.Node, o.Message, l.config.Prefix+".q."
	p.counts.init(l, inbox+"n.")
}

// peerName is the last token of a node's subjects.
func peerName(node uint64) string { return strconv.FormatUint(node, 36) }

// subscribe makes the two subscriptions. A log whose hub takes no messages has none.
func (p *peers) subscribe(conn *natsgo.Conn) error {
	if p.message == nil {
		return nil
	}
	for _, name := range []string{peerName(p.node), "_all"} {
		sub, err := conn.Subscribe(p.subject+name, p.handle)
		if err != nil {
			return err
		}
		if err := sub.SetPendingLimits(maxPeerMessages, maxPeerBytes); err != nil {
			return err
		}
	}
	return nil
}

// handle takes a message of another node. What this node has sent to all comes back: the client library's NoEcho would also
// keep ticks and entries of this node away.
func (p *peers) handle(m *natsgo.Msg) {
	if len(m.Data) < senderBytes {
		return // no node has sent it
	}
	from := binary.LittleEndian.Uint64(m.Data)
	if from == p.node {
		return
	}
	if p.begin() {
		defer p.end()
		p.message(from, m.Data[senderBytes:])
	}
}

// begin reports whether the hub may be called. If so, then end has to be called after that, and close waits for it. No lock
// is held meanwhile, because the hub may call the log.
func (p *peers) begin() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.running.Add(1)
	}
	return !p.closed
}

func (p *peers) end() { p.running.Done() }

// close ends all calls. It is called when log.done is closed, which ends requests.
func (p *peers) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.counts.close()
	p.running.Wait()
}

// own reports whether a subject, or an error that names one, belongs to broker.Peers. Such an error does not concern the log.
func (p *peers) own(text string) bool {
	return strings.Contains(text, p.subject) || strings.Contains(text, p.counts.subject) || strings.Contains(text, "."+p.counts.stream)
}

// Send implements broker.Peers. A message that cannot be sent is lost, which nobody is told, since messages may be lost anyway.
func (l *log) Send(to uint64, message []byte) {
	name := "_all"
	if to != 0 {
		name = peerName(to)
	}
	data := append(binary.LittleEndian.AppendUint64(make([]byte, 0, senderBytes+len(message)), l.peers.node), message...)
	err := l.conn.Publish(l.peers.subject+name, data)
	if errors.Is(err, natsgo.ErrMaxPayload) && l.complaints.Fresh("max_payload", time.Now()) {
		l.logger().Warn("nodes cannot tell each other everything: the broker's max_payload is too small",
			zap.Int64("max_payload", l.conn.MaxPayload()), zap.Int("needed", broker.MaxMessage+senderBytes))
	}
}

// peerError handles an error of the client library that concerns broker.Peers, and reports whether it did.
func (l *log) peerError(sub *natsgo.Subscription, err error) bool {
	switch {
	case errors.Is(err, natsgo.ErrSlowConsumer) && sub != nil && l.peers.own(sub.Subject):
		if l.complaints.Fresh("slow peers", time.Now()) {
			l.logger().Warn("messages of other nodes were dropped: this node cannot keep up", zap.Error(err))
		}
	case errors.Is(err, natsgo.ErrPermissionViolation) && l.peers.own(err.Error()):
		if strings.Contains(err.Error(), purgeStream) {
			// What is not removed goes by its age.
			l.logger().Debug("the broker's account may not remove what nodes have counted that have ended", zap.Error(err))
		} else if l.complaints.Fresh(err.Error(), time.Now()) {
			l.logger().Warn("the broker's account lacks a permission: nodes do not know of each other, or not of each other's subscribers", zap.Error(err))
		}
	default:
		return false
	}
	return true
}
