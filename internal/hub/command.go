package hub

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
)

// NameCommand is what a backend wants to be done with connections: on all hubs that share a log, or on this one. Backends are
// trusted, so a command may also join channels that the client itself may not join.
type NameCommand struct {
	Do string `json:"do"` // DoJoin, DoLeave or DoClose, or, of hubs, DoMove or DoEnd

	// Name or On selects the connections: Name the one that has this name, On all that are on this channel. Those that have a
	// name in Except, or are on a channel in it, are left out.
	Name   string   `json:"name,omitempty"`
	On     string   `json:"on,omitempty"`
	Except []string `json:"except,omitempty"`

	Channel string `json:"channel,omitempty"` // to join or to leave

	// Whole has DoClose close the whole connection, even if the selection concerns only a part of it: see Dismisser.
	Whole bool `json:"whole,omitempty"`

	selection *selection // in place of Name and On: see Change

	after string // the command's ID, if it came from the log
	seq   uint64 // its position there
	own   bool   // this hub has published it
}

// What is done.
const (
	DoJoin  = "join"
	DoLeave = "leave"
	DoClose = "close"

	// Of hubs that share a log, about a name:
	DoMove = "move" // a connection of the hub has it now, and the one of another hub ends
	DoEnd  = "end"  // nobody goes on with it any more
)

// Dismisser is an Observer of connections that have parts which a backend can close on their own. Each name and each channel
// belongs to one part. Dismissed gets the name or the channel by which the connection was selected, and the other is empty. It runs
// in a goroutine of the hub, and may call the hub. If it returns false, the connection is closed.
type Dismisser interface {
	Dismissed(c *Conn, name, channel string) bool
}

// maxCommands bounds those of the log that wait. Each may wait for positionTime, if it needs a channel that cannot be opened.
const maxCommands = 16 << 10

func (k *NameCommand) check() error {
	if (k.Name == "") == (k.On == "") {
		return errors.New("neither a name nor a channel, or both")
	}
	if err := CheckName("the name", k.Name+k.On); err != nil {
		return err
	}
	if len(k.Except) > maxRooms {
		return fmt.Errorf("more than %d exceptions", maxRooms)
	}
	switch k.Do {
	case DoJoin, DoLeave:
		return CheckName("the channel", k.Channel)
	case DoClose:
		return nil
	case DoMove, DoEnd:
		if k.Name != "" {
			return nil
		}
	}
	return fmt.Errorf("the command %q is unknown", k.Do)
}

// Command carries out a command before it returns, so that what is published afterwards finds the connections on their new
// channels. If the hub shares a log, Command returns when the log has the command, and each hub carries it out before it delivers
// what follows. It must not be called from a loop.
func (h *Hub) Command(k NameCommand) error {
	if err := k.check(); err != nil {
		return err
	}
	if !h.Shared() {
		h.carryOut(&k)
		return nil
	}
	data, err := json.Marshal(k)
	if err != nil {
		return err
	}
	return h.publishOwn(toChannel, data, true)
}

// Note sends a command that the other hubs should know about, if this hub shares a log. It does not wait for the log, and does
// nothing if the log is broken.
func (h *Hub) Note(k NameCommand) {
	data, err := json.Marshal(k)
	if err != nil || k.check() != nil {
		return
	}
	h.mu.Lock()
	s, err := h.awaitLogLocked(nil, false)
	if s != nil && k.Do == DoEnd { // here at once: the client may be back before it comes from the log
		s.traceLocked(h.seq, &k, "")
	}
	h.mu.Unlock()
	if err == nil {
		e := broker.Entry{Channel: toChannel, Kind: uint8(JSON), Data: data, Node: h.node}
		s.log.Publish([]broker.Entry{e}, func([]broker.Place, error) {})
	}
}

// publishOwn publishes to a channel of the hub's own, and waits until the log has it. If patient is set, it also waits for a broken log.
func (h *Hub) publishOwn(channel string, data []byte, patient bool) error {
	h.mu.Lock()
	s, err := h.awaitLogLocked(nil, patient)
	h.mu.Unlock()
	if err != nil {
		return err
	}
	answer := make(chan error, 1)
	e := broker.Entry{Channel: channel, Kind: uint8(JSON), Data: data, Node: h.node}
	s.log.Publish([]broker.Entry{e}, func(_ []broker.Place, err error) { answer <- err })
	if err = <-answer; errors.Is(err, broker.ErrClosed) {
		return ErrDown
	}
	return err
}

// commandOf returns the command that an entry of toChannel is, or nil.
func (s *sharedLog) commandOf(e *broker.Entry) *NameCommand {
	k := parseCommand(e.Data)
	if k != nil {
		k.seq, k.own = e.Seq, e.Node == s.hub.node
	}
	return k
}

// parseCommand reads an entry, which may be anything: the log is input from outside.
func parseCommand(data []byte) *NameCommand {
	k := new(NameCommand)
	if json.Unmarshal(data, k) != nil || k.check() != nil {
		return nil
	}
	return k
}

// commandLocked has a command of the log carried out: in a goroutine, because it may have to wait for the log, but after those
// before it. A channel that is joined so late begins with what came after the command.
func (h *Hub) commandLocked(k *NameCommand) {
	k.after = FormatID(h.epoch, k.seq)
	if k.Do == DoEnd || k.Do == DoMove && k.own {
		return
	}
	if s := k.selection; s != nil {
		s.before, s.epoch = k.seq, h.epochBegan
	}
	if len(h.names) == 0 && k.On == "" && k.selection == nil || len(h.commands) >= maxCommands {
		return
	}
	if h.commands = append(h.commands, k); len(h.commands) == 1 {
		go h.commandAll()
	}
}

// commandAll carries out the commands of the log. The one that is under way stays the first of the list.
func (h *Hub) commandAll() {
	for {
		h.mu.Lock()
		if h.closed || len(h.commands) == 0 {
			h.commands = nil
			h.mu.Unlock()
			return
		}
		k := h.commands[0]
		h.mu.Unlock()
		h.carryOut(k)
		h.mu.Lock()
		if len(h.commands) > 0 { // or the hub is closed
			h.commands = h.commands[1:]
		}
		h.mu.Unlock()
	}
}

// carryOut does what a command says on this hub.
func (h *Hub) carryOut(k *NameCommand) {
	if k.selection != nil {
		h.carryOutSelected(k)
		return
	}
	if k.Name != "" {
		if c := h.Named(k.Name); c != nil {
			h.carryOutOn(k, c)
		}
		return
	}
	var conns []*Conn
	h.onLoops(func(l *loop) {
		l.each(func(c *Conn) {
			if c.state == stateOpen && (Filter{Channel: k.On}).has(c) {
				conns = append(conns, c)
			}
		})
	})
	for _, c := range conns {
		if !h.excepts(k, c) {
			h.carryOutOn(k, c)
		}
	}
}

// excepts reports whether a connection on the channel is excepted.
func (h *Hub) excepts(k *NameCommand, c *Conn) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	x := hearer{conn: c}
	return slices.ContainsFunc(k.Except, x.isLocked)
}

// carryOutOn does it with one connection. That it cannot be done, because the connection has ended or is on too many channels,
// is nothing that a backend could be told which publishes to a queue.
func (h *Hub) carryOutOn(k *NameCommand, c *Conn) error {
	switch k.Do {
	case DoMove:
		h.mu.Lock()
		n := h.names[k.Name]
		// It may have come back here meanwhile.
		gone := n != nil && n.conn == c && n.since < k.seq
		h.mu.Unlock()
		if gone {
			c.Close(ReasonClient, "it goes on on another server")
		}
	case DoJoin:
		f := c.options.Format
		return c.Join(k.Channel, k.after, func(w Welcome, ms []*Message) []byte { return joinedBy(f, k.Channel, w, ms) })
	case DoLeave:
		return c.Leave(k.Channel, leftBy(c.options.Format, k.Channel))
	case DoClose:
		if o, ok := c.options.Observer.(Dismisser); !ok || k.Whole || !o.Dismissed(c, k.Name, k.On) {
			c.Close(ReasonPolicy, KickText)
		}
	}
	return nil
}
