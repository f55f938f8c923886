package nats

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
	natsgo "github.com/nats-io/nats.go"
)

// requests are those that wait for replies. They share one inbox: a subscription of its own for each would be a channel of
// 65,536 places each, 1 GB at 1024 requests at once (scaleout.md, section 3).
type requests struct {
	prefix string // of the inbox

	mu      sync.Mutex
	last    uint64
	waiting map[uint64]chan *natsgo.Msg
	lost    chan struct{} // closed when the next connection is dialled: what was asked over this one gets no reply
}

// lose ends the requests of a connection that is gone. Without it each would wait for its whole time, and a node whose
// connection is cut while it catches up would be away for seconds.
func (r *requests) lose() {
	r.mu.Lock()
	defer r.mu.Unlock()
	close(r.lost)
	r.lost = make(chan struct{})
}

// connection returns a channel that is closed when this connection is gone.
func (r *requests) connection() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lost
}

// handle gives a reply to the request that waits for it. The library calls it, in one goroutine for all requests, so it
// must not wait for any of them.
func (r *requests) handle(m *natsgo.Msg) {
	if len(m.Subject) < len(r.prefix) {
		return
	}
	id, err := strconv.ParseUint(m.Subject[len(r.prefix):], 36, 64)
	if err != nil {
		return
	}
	r.mu.Lock()
	ch := r.waiting[id]
	r.mu.Unlock()
	if ch != nil {
		select {
		case ch <- m:
		default: // more replies than the request can have
		}
	}
}

// open returns the subject for the replies to one request, and where they come. At most n are expected.
// Their channel has that much room, so that handle drops none. end has to be called, or the request is never forgotten.
func (r *requests) open(n int) (reply string, replies chan *natsgo.Msg, end func()) {
	ch := make(chan *natsgo.Msg, n)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last++
	id := r.last
	r.waiting[id] = ch
	return r.prefix + strconv.FormatUint(id, 36), ch, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.waiting, id)
	}
}

// requestTimeout is how long a request may take. Servers answer in less than a millisecond, or not at all.
const requestTimeout = 2 * time.Second

// errNoReply says that nothing came for requestTimeout. wrapDown makes it ErrDown for callers of the log.
var errNoReply = errors.New("the broker did not answer")

// errLost says that the connection was lost before the answer.
var errLost = fmt.Errorf("%w (the connection was lost)", broker.ErrDown)

// ask sends a request, and gives each reply to next until that returns false.
func (l *log) ask(ctx context.Context, subject string, body []byte, replies int, next func(*natsgo.Msg) (more bool, err error)) error {
	reply, ch, end := l.requests.open(replies)
	defer end()
	// Before it is sent. If the connection is lost in between, then the channel is closed already.
	lost := l.requests.connection()
	if err := l.conn.PublishRequest(subject, reply, body); err != nil {
		return fmt.Errorf("%w (%w)", broker.ErrDown, err)
	}
	timeout := time.NewTimer(requestTimeout)
	defer timeout.Stop()
	for {
		select {
		case m := <-ch:
			if more, err := next(m); err != nil || !more {
				return err
			}
			// For each reply, because an answer of many messages may take longer over a slow line.
			timeout.Reset(requestTimeout)
		case <-timeout.C:
			return fmt.Errorf("%w to %s", errNoReply, subject)
		case <-lost:
			return errLost
		case <-ctx.Done():
			return ctx.Err()
		case <-l.done:
			return broker.ErrClosed
		}
	}
}

// apiError is how JetStream says no.
// Only the code is compared. Descriptions name streams and positions.
type apiError struct {
	Code        int    `json:"code"`
	ErrCode     int    `json:"err_code"`
	Description string `json:"description"`
}

func (e *apiError) Error() string { return fmt.Sprintf("JetStream: %s (%d)", e.Description, e.ErrCode) }

// Codes of JetStream that need more than being shown.
// Names and texts of all codes are in server/errors.json of nats-server 2.15.2.
const (
	codeStreamNotFound   = 10059
	codeStreamNameInUse  = 10058
	codeNoMessage        = 10037
	codeWrongLastID      = 10070 // the last message has another id than expected
	codeWrongLast        = 10071 // the last message of the subject has another position than expected
	codeWrongLastPlain   = 10164 // the same, of a batch or a cluster
	codeBatchDuplicate   = 10201
	codeTooBig           = 10054
	codeReplicas         = 10074 // replicas > 1 not supported in non-clustered mode
	codeNoPeers          = 10005
	codeDuplicatePending = 10158 // the key is being stored for another publisher
)

// api calls JetStream's API, whose requests and answers are JSON.
// Its requests end with the connection: see requests.lose.
func (l *log) api(ctx context.Context, method string, request, response any) error {
	var body []byte
	if request != nil {
		var err error
		if body, err = json.Marshal(request); err != nil {
			return err
		}
	}
	return l.ask(ctx, "$JS.API."+method, body, 1, func(m *natsgo.Msg) (bool, error) {
		if status := m.Header.Get("Status"); status == "503" {
			return false, fmt.Errorf("%w (JetStream is not there, or has no leader)", broker.ErrDown)
		}
		var failed struct {
			Error *apiError `json:"error"`
		}
		if err := json.Unmarshal(m.Data, &failed); err != nil {
			return false, fmt.Errorf("answer of %s: %w", method, err)
		}
		if failed.Error != nil {
			return false, failed.Error
		}
		return false, json.Unmarshal(m.Data, response)
	})
}

// isCode reports whether an error is one of JetStream's with one of these codes.
func isCode(err error, codes ...int) bool {
	var api *apiError
	if !errors.As(err, &api) {
		return false
	}
	for _, code := range codes {
		if api.ErrCode == code {
			return true
		}
	}
	return false
}
