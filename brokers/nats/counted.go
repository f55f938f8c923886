package nats

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"go.uber.org/zap"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
)

// This file is the stream of counts, and what is read of it.
const (
	// maxAnswers is how many messages a server returns for one request of the newest of several subjects (maxAllowedResponses
	// in getDirectMulti of nats-server 2.15.2). More are an error, so it is also how many nodes can count one channel.
	maxAnswers = 1024

	// maxAsked is how many calls share a request, and askedAtOnce for how many channels one is made. It is made for half as many
	// if there are too many answers.
	maxAsked    = 256
	askedAtOnce = 256

	// maxCountBytes bounds the stream. A message takes about 60 bytes of it.
	maxCountBytes = 128 << 20

	allCounted  = "_all" // stands for the channel "", and is no encoded name
	purgeStream = "STREAM.PURGE."
)

// encodeCounted returns a channel's token in the subjects of counts.
func encodeCounted(channel string) string {
	if channel == "" {
		return allCounted
	}
	return encodeChannel(channel)
}

// errTooMany says that an answer would have more than maxAnswers messages.
var errTooMany = errors.New("too many nodes have counted these channels")

// fetch answers several calls of Counts.
func (c *counts) fetch(ctx context.Context, questions [][]string) ([][]map[uint64]int, error) {
	bySubject := map[string]map[uint64]int{}
	var tokens []string
	for _, channels := range questions {
		for _, channel := range channels {
			token := encodeCounted(channel)
			if _, known := bySubject[token]; !known {
				bySubject[token] = nil
				tokens = append(tokens, token)
			}
		}
	}
	for n := askedAtOnce; len(tokens) > 0; {
		n = min(n, len(tokens))
		err := c.read(ctx, tokens[:n], bySubject)
		switch {
		case errors.Is(err, errTooMany) && n > 1:
			n /= 2
			continue
		case errors.Is(err, errTooMany):
			// The numbers of this channel stay unknown. Those of the others are still returned.
			if c.l.complaints.Fresh("counted by too many", time.Now()) {
				c.l.logger().Warn("a channel has subscribers on more nodes than can be counted: those on other nodes are left out",
					zap.String("channel", tokens[0]), zap.Int("nodes", maxAnswers))
			}
			delete(bySubject, tokens[0])
			tokens, n = tokens[1:], askedAtOnce // and not one by one for the rest
			continue
		case err != nil:
			return nil, err
		}
		tokens = tokens[n:]
	}
	answers := make([][]map[uint64]int, len(questions))
	for i, channels := range questions {
		answers[i] = make([]map[uint64]int, len(channels))
		for k, channel := range channels {
			// A copy, because who asked for the same channel may change its own.
			for node, number := range bySubject[encodeCounted(channel)] {
				if answers[i][k] == nil {
					answers[i][k] = map[uint64]int{}
				}
				answers[i][k][node] = number
			}
		}
	}
	return answers, nil
}

// read adds the numbers of some channels. Any replica answers, which may lag: the contract has them a second old.
func (c *counts) read(ctx context.Context, tokens []string, bySubject map[string]map[uint64]int) error {
	request := getRequest{MultiLast: make([]string, len(tokens))}
	for i, token := range tokens {
		request.MultiLast[i] = c.subject + token + ".*"
	}
	body, err := json.Marshal(request)
	if err != nil {
		return err
	}
	return c.l.ask(ctx, "$JS.API.DIRECT.GET."+c.stream, body, maxAnswers+1, func(m *natsgo.Msg) (more bool, err error) {
		switch status := m.Header.Get("Status"); status {
		case "":
			token, node, number, ok := c.parse(m)
			if ok && number > 0 {
				if bySubject[token] == nil {
					bySubject[token] = map[uint64]int{}
				}
				bySubject[token][node] = number
			}
			return true, nil
		case "204", "404": // the end, or nothing is there
			return false, nil
		case "413":
			return false, errTooMany
		case "503":
			c.prepare.start(c)
			return false, fmt.Errorf("%w (nobody stores counts)", broker.ErrDown)
		default:
			return false, fmt.Errorf("direct get: %s %s", status, m.Header.Get("Description"))
		}
	})
}

// parse reads a message of an answer. It is false for one that no node has published.
func (c *counts) parse(m *natsgo.Msg) (token string, node uint64, number int, ok bool) {
	rest, found := strings.CutPrefix(last(m.Header, "Nats-Subject"), c.subject)
	token, name, two := strings.Cut(rest, ".")
	if !found || !two {
		return "", 0, 0, false
	}
	node, err := strconv.ParseUint(name, 36, 64)
	if err != nil {
		return "", 0, 0, false
	}
	number, err = strconv.Atoi(string(m.Data))
	return token, node, number, err == nil
}

// Forget implements broker.Peers. It is not tried again: numbers that it does not remove expire, and until then they are not
// counted, since the node is known to be dead.
func (l *log) Forget(node uint64) {
	if !l.peers.begin() {
		return
	}
	go func() {
		defer l.peers.end()
		c := &l.peers.counts
		ctx, cancel := context.WithTimeout(context.Background(), gatherTimeout)
		defer cancel()
		var purged struct{}
		err := l.api(ctx, purgeStream+c.stream, map[string]string{"filter": c.subject + "*." + peerName(node)}, &purged)
		if err != nil && !l.closed.Load() {
			l.logger().Debug("the counts of a node that has ended cannot be removed", zap.Error(err))
		}
	}()
}

// prepare makes the stream if there is none. It is only tried when somebody misses it, so who does not count needs none.
type prepare struct {
	mu    sync.Mutex
	busy  bool
	after time.Time
	said  string // what is wrong, as the log has it
}

// prepareDelay is how long to wait before it is tried again.
const prepareDelay = 500 * time.Millisecond

// start has the stream looked at in the background.
func (p *prepare) start(c *counts) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.busy || time.Now().Before(p.after) || !c.l.peers.begin() {
		return
	}
	p.busy = true
	go func() {
		defer c.l.peers.end()
		ctx, cancel := context.WithTimeout(context.Background(), gatherTimeout)
		defer cancel()
		err := c.ensure(ctx)
		p.mu.Lock()
		p.busy, p.after = false, time.Now().Add(prepareDelay)
		fresh := false
		switch {
		case err == nil:
			p.said = ""
		case !errors.Is(err, broker.ErrDown) && !errors.Is(err, broker.ErrClosed) && p.said != err.Error():
			fresh, p.said = true, err.Error()
		}
		p.mu.Unlock()
		// Once and not each minute: whoever does not give the account this stream has chosen to do without counts.
		if fresh {
			c.l.logger().Warn("subscribers on other nodes are not counted", zap.String("stream", c.stream), zap.Error(err))
		}
	}()
}

// wanted is the stream as this node would make it.
func (c *counts) wanted() map[string]any {
	replicas := c.l.wanted().Replicas
	return map[string]any{
		"name": c.stream, "description": "caddy-broadcast: subscribers of each channel and node", "subjects": []string{c.subject + ">"},
		"retention": "limits", "discard": "old", "storage": "memory", "num_replicas": replicas, "max_consumers": -1, "max_msgs": -1,
		"max_msgs_per_subject": 1, "max_age": countAge, "max_bytes": maxCountBytes, "max_msg_size": -1, "duplicate_window": time.Second,
		"allow_direct": true, "allow_msg_ttl": true, "metadata": map[string]string{metadataVersion: "1"},
	}
}

// ensure creates the stream if it is not there, or says what is wrong with it. It changes nothing of one that is there: its
// options have no counterpart in those of this module, except how many copies there are, which administrators can change.
func (c *counts) ensure(ctx context.Context) error {
	var info struct {
		Config struct {
			Subjects    []string `json:"subjects"`
			MaxPerSubj  int64    `json:"max_msgs_per_subject"`
			AllowDirect bool     `json:"allow_direct"`
			AllowTTL    bool     `json:"allow_msg_ttl"`
		} `json:"config"`
	}
	err := c.l.api(ctx, "STREAM.INFO."+c.stream, nil, &info)
	if isCode(err, codeStreamNotFound) {
		if !c.l.config.Manage {
			return errors.New("the stream does not exist, and manage is off")
		}
		err = c.l.api(ctx, "STREAM.CREATE."+c.stream, c.wanted(), &info)
		if isCode(err, codeStreamNameInUse) {
			return nil // another node was faster
		}
	}
	if err != nil {
		return err
	}
	have := info.Config
	if !slices.Contains(have.Subjects, c.subject+">") || have.MaxPerSubj != 1 || !have.AllowDirect || !have.AllowTTL {
		return fmt.Errorf("it has to have the subject %s>, max_msgs_per_subject 1, allow_direct and allow_msg_ttl", c.subject)
	}
	return nil
}
