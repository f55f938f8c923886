package hub

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
)

// kickChannel is the channel in a shared log by which administrators close connections on all nodes. Every hub has it open as
// long as it has a log, so one that was cut off gets a kick when it has caught up. No client can name the channel, and what is
// in it is neither delivered nor kept nor counted.
const kickChannel = "\x01kick"

// KickTime is how long a kick is carried out, by the log's clock. A node that was cut off for longer has sent its clients
// away meanwhile (Config.PartitionTimeout), and users who were kicked an hour ago may have a reason to be back.
const KickTime = time.Minute

// KickText is the text of the close frame when an administrator closes a connection.
const KickText = "closed by the administrator"

// KickRequest is a kick for all hubs that share a log: of one connection, or of all those of a user.
type KickRequest struct {
	Request    string `json:"request"`              // names it, for Kicked
	Connection string `json:"connection,omitempty"` // as Hub.ShowID
	User       string `json:"user,omitempty"`
	Code       uint16 `json:"code,omitempty"` // what clients are told, or 0

	Change *Change `json:"change,omitempty"` // is wanted instead of a kick
}

// NewKickRequest returns a request with a name of its own.
func NewKickRequest(connection, user string) KickRequest {
	return KickRequest{Request: rand.Text(), Connection: connection, User: user}
}

// maxKickRequest is the length in bytes of the longest name of a request.
const maxKickRequest = 64

// parseKick reads an entry, which may be anything: the log is input from outside. It returns what the request selects on
// a node. here is false if that is nothing, because it is for another one, or for a change.
func parseKick(data []byte, node string) (k KickRequest, f Filter, here bool, err error) {
	if err := json.Unmarshal(data, &k); err != nil {
		return k, f, false, err
	}
	switch {
	case k.Request == "" || len(k.Request) > maxKickRequest:
		return k, f, false, fmt.Errorf("the name of the request has %d bytes", len(k.Request))
	case k.Code != 0 && (k.Code < MinKickCode || k.Code > MaxKickCode):
		return k, f, false, fmt.Errorf("the code is %d", k.Code)
	}
	if k.Change != nil && k.Connection == "" && k.User == "" {
		return k, f, false, nil
	}
	f, here, err = filterOf(k.Connection, k.User, node)
	return k, f, here, err
}

// filterOf returns what selects, on a node, the connection with an ID or those of a user.
func filterOf(connection, user, node string) (f Filter, here bool, err error) {
	switch {
	// A filter with neither would select all connections.
	case (connection == "") == (user == ""):
		return f, false, errors.New("neither a connection nor a user, or both")
	case user != "":
		f.User = user
		return f, true, CheckName("the user", user)
	}
	of, id, err := ParseConnID(connection)
	f.ID = id
	return f, of == node, err
}

// PublishKick has all hubs that share the log close connections, this one too. It waits until the log has the request, and
// not until they are closed: see Kicked.
func (h *Hub) PublishKick(k KickRequest) error {
	data, err := json.Marshal(k)
	if err != nil {
		return err
	}
	return h.publishOwn(kickChannel, data, false)
}

// Kicked waits until the hub has carried out a request, and returns how many connections it has closed for it. ok is false if
// ctx ends first.
func (h *Hub) Kicked(ctx context.Context, request string) (closed int, ok bool) {
	k := h.kicks.get(request)
	select {
	case <-k.done:
		return int(k.closed.Load()), true
	case <-ctx.Done():
		return 0, false
	}
}

// kick is a request that has come from the log.
type kick struct {
	seq    uint64
	filter Filter
	code   uint16
	tally  *tally

	// It is one of these instead, if that is set. A change is a command too.
	command *NameCommand
	key     *[KeySize]byte
}

// kickOf returns the request that an entry is, or nil if there is nothing to do. The caller does not hold Hub.mu.
func (s *sharedLog) kickOf(e *broker.Entry, now time.Time) *kick {
	k, f, here, err := parseKick(e.Data, NodeText(s.hub.node))
	if err != nil {
		return nil
	}
	t := s.hub.kicks.get(k.Request)
	var change *NameCommand
	if k.Change != nil {
		if change, _ = k.Change.command(NodeText(s.hub.node)); change != nil { // invalid is as good as for another node
			change.seq, change.selection.tally = e.Seq, t
		}
		here = change != nil
	}
	// A log that cannot tell the time leaves it out: then any age is possible, and the kick may be new.
	if !here || now.Sub(storedAt(e, s.clock(now), now)) > KickTime {
		t.end()
		return nil
	}
	return &kick{seq: e.Seq, filter: f, code: k.Code, tally: t, command: change}
}

// ownLocked has carried out what is in an entry of one of the hub's own channels. In their inboxes it comes after every connection
// that was there before it, and before every later one.
func (s *sharedLog) ownLocked(channel string, seq uint64, kicks []*kick) (wake uint64) {
	if o := s.findLocked(channel); o != nil {
		o.last = max(o.last, seq)
	}
	for _, k := range kicks {
		switch {
		case k.seq != seq:
		case k.key != nil:
			s.addKeyLocked(*k.key)
		case k.command != nil:
			if k.command.selection == nil { // a client that comes back begins with its route's channels
				s.traceLocked(seq, k.command, "")
			}
			s.hub.commandLocked(k.command)
		default:
			wake |= s.hub.carryOutLocked(k)
		}
	}
	return wake
}

// carryOutLocked has the loops carry out a request.
func (h *Hub) carryOutLocked(k *kick) (wake uint64) {
	// A request that comes late, after a fault, may find connections that are later than it.
	late, from := k.seq < h.seq, h.epochBegan
	selected := func(c *Conn) bool {
		return !(late && c.startSeq >= k.seq && c.connected > from) && k.filter.has(c)
	}
	var left atomic.Int32
	left.Store(int32(len(h.loops)))
	for _, l := range h.loops {
		wake |= l.pushLocked(entry{op: opCall, arg: func() {
			k.tally.closed.Add(int64(l.kick(selected, ReasonPolicy, KickText, k.code)))
			if left.Add(-1) == 0 {
				k.tally.end()
			}
		}})
	}
	return wake
}

// tally is how many connections were closed for a request.
type tally struct {
	request string
	since   time.Time
	closed  atomic.Int64 // or changed, for a change
	failed  atomic.Int64 // of a change
	ended   sync.Once
	done    chan struct{} // closed when all loops have carried it out
}

func newTally(request string) *tally { return &tally{request: request, done: make(chan struct{})} }

func (t *tally) end() { t.ended.Do(func() { close(t.done) }) }

// tallies are those of the latest requests. A tally may be asked for before its request comes or after that.
type tallies struct {
	mu        sync.Mutex
	byRequest map[string]*tally
	oldest    []*tally
}

// maxTallies bounds what others can make a hub remember: more kicks than this in KickTime are an attack, or are not waited
// for.
const maxTallies = 1024

// get returns the tally of a request.
func (x *tallies) get(request string) *tally {
	x.mu.Lock()
	defer x.mu.Unlock()
	now := time.Now()
	for len(x.oldest) > 0 && (len(x.oldest) >= maxTallies || now.Sub(x.oldest[0].since) > KickTime) {
		delete(x.byRequest, x.oldest[0].request)
		x.oldest[0] = nil
		x.oldest = x.oldest[1:]
	}
	t := x.byRequest[request]
	if t == nil {
		if x.byRequest == nil {
			x.byRequest = make(map[string]*tally)
		}
		t = newTally(request)
		t.since = now
		x.byRequest[request] = t
		x.oldest = append(x.oldest, t)
	}
	return t
}
