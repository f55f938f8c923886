package hub

import (
	"context"
	"crypto/rand"
	"fmt"
	"sync/atomic"
)

// Change is what a backend wants to be done with the connection that has an ID, or with those of a user: to subscribe them to a
// channel, or to unsubscribe them from it. As with NameCommand, the channel may be one that the client itself may not join.
// It concerns the connections that there are: one that comes back begins with the channels of its route.
type Change struct {
	Do         string `json:"do"`                   // DoJoin or DoLeave
	Connection string `json:"connection,omitempty"` // as Hub.ShowID
	User       string `json:"user,omitempty"`
	Channel    string `json:"channel"`
}

// Changed is how many connections a change was made to.
type Changed struct {
	Done   int `json:"done"`   // that are on the channel now, or have left it
	Failed int `json:"failed"` // that could not join it, as they are on too many
}

// SubscriptionFormat is a Format that can tell a client what a backend has done with it. Without one, a client learns of a channel
// by its messages.
type SubscriptionFormat interface {
	Format

	// Subscribed returns what begins the channel: the notice, and in one piece with it what the client has missed since.
	Subscribed(channel string, w Welcome, missed []*Message) []byte

	// Unsubscribed returns what comes after the last message of the channel.
	Unsubscribed(channel string) []byte
}

// selection is what a command selects by an ID or a user, and not by names.
type selection struct {
	filter Filter
	before uint64 // the position of the command in the log: connections that came later are not concerned
	epoch  int64  // when the log's epoch began
	tally  *tally
}

// command checks a change, and returns the command for it on a node. It is nil if the change is for another one.
func (x *Change) command(node string) (*NameCommand, error) {
	if x.Do != DoJoin && x.Do != DoLeave {
		return nil, fmt.Errorf("the change %q is unknown", x.Do)
	}
	if err := CheckName("the channel", x.Channel); err != nil {
		return nil, err
	}
	f, here, err := filterOf(x.Connection, x.User, node)
	if err != nil || !here {
		return nil, err
	}
	return &NameCommand{Do: x.Do, Channel: x.Channel, selection: &selection{filter: f}}, nil
}

// Check returns what is wrong with a change.
func (x *Change) Check() error {
	_, err := x.command("")
	return err
}

// Change makes a change on this hub before it returns, so that what is published afterwards finds the connections on the channel. It
// must not be called from a loop.
func (h *Hub) Change(x Change) (Changed, error) {
	if of, id, err := ParseConnID(x.Connection); err == nil && of == "" { // as clients of a hub without a log were told
		x.Connection = NodeText(h.node) + "." + id.String()
	}
	k, err := x.command(NodeText(h.node))
	if err != nil || k == nil {
		return Changed{}, err
	}
	t := newTally("")
	k.selection.tally = t
	h.carryOut(k)
	return t.changed(), nil
}

// NewChangeRequest returns a request to all hubs for Hub.PublishKick. It is in the channel of kicks, which every hub follows, but
// not in the members of a kick: a hub that does not know changes must not close the connections instead.
func NewChangeRequest(x Change) KickRequest { return KickRequest{Request: rand.Text(), Change: &x} }

// Changed waits until the hub has carried out a request for a change. ok is false if ctx ends first.
func (h *Hub) Changed(ctx context.Context, request string) (n Changed, ok bool) {
	t := h.kicks.get(request)
	select {
	case <-t.done:
		return t.changed(), true
	case <-ctx.Done():
		return n, false
	}
}

func (t *tally) changed() Changed { return Changed{int(t.closed.Load()), int(t.failed.Load())} }

// selected returns the connections that a selection selects. Those that receive nothing by their options, or everything, are not
// among them.
func (h *Hub) selected(s *selection) (conns []*Conn) {
	h.onLoops(func(l *loop) {
		l.each(func(c *Conn) {
			later := s.before > 0 && c.startSeq >= s.before && c.connected > s.epoch
			if c.state == stateOpen && !c.options.NoSubscribe && !later && s.filter.has(c) {
				conns = append(conns, c)
			}
		})
	})
	return conns
}

// carryOutSelected makes a change on this hub, and counts.
func (h *Hub) carryOutSelected(k *NameCommand) {
	t := k.selection.tally
	defer t.end()
	for _, c := range h.selected(k.selection) {
		var count *atomic.Int64
		switch err := h.carryOutOn(k, c); err {
		case nil:
			count = &t.closed
		case ErrClosed, ErrNotJoined: // there was nothing to do
			continue
		default:
			count = &t.failed
		}
		count.Add(1)
	}
}

// joinedBy returns what a connection gets first of a channel that a backend has subscribed it to.
func joinedBy(f Format, channel string, w Welcome, missed []*Message) (p []byte) {
	if f, ok := f.(SubscriptionFormat); ok {
		return f.Subscribed(channel, w, missed)
	}
	// Between the command and the join some may have come, if the channel had to be opened.
	if w.Gaps != nil {
		p = append(p, f.Gap(w.Gaps)...)
	}
	if len(missed) > 0 {
		p = f.Append(p, missed)
	}
	return p
}

// leftBy returns what a connection gets after a channel that a backend has unsubscribed it from.
func leftBy(f Format, channel string) []byte {
	if f, ok := f.(SubscriptionFormat); ok {
		return f.Unsubscribed(channel)
	}
	return nil
}
