package survey

import (
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/nodes"
)

// What one node sends of a list at a time, if there are other nodes. So a page may be shorter than its limit, and the list
// continues on the next one. 1 MiB is far below nodes.MaxAnswer, and one entry more fits in any case.
const (
	maxEntries = 1000
	maxBytes   = 1 << 20
)

// Channel is a channel as the admin API shows it, and as nodes tell each other.
type Channel struct {
	Channel     string          `json:"channel"`
	Subscribers int             `json:"subscribers"`
	History     int             `json:"history"`
	LastID      string          `json:"last_id,omitempty"`
	Users       map[string]int  `json:"users,omitempty"`
	MoreUsers   bool            `json:"more_users,omitempty"` // Users does not have all
	Presence    json.RawMessage `json:"presence,omitempty"`   // as clients get it, if the channel has members
	Missing     []string        `json:"missing,omitempty"`    // nodes that are not in it
}

// Connection is a connection as the admin API shows it, and as nodes tell each other.
type Connection struct {
	ID        string    `json:"id"`
	Node      string    `json:"node,omitempty"`
	User      string    `json:"user,omitempty"`
	Remote    string    `json:"remote"`
	Transport string    `json:"transport"`
	Channels  []string  `json:"channels"`
	Since     time.Time `json:"since"`
	Expires   time.Time `json:"expires,omitzero"` // when its access ends
	Sent      uint64    `json:"sent"`
	Backlog   int       `json:"backlog"`
}

// Page is a part of a list.
type Page[T any] struct {
	Entries []T
	More    bool     // it goes on after the last entry
	Missing []string // nodes whose entries are not in it
}

// part is what one node has of a page. If More is set, then it has all entries up to its last one.
type part[T any] struct {
	Entries []T  `json:"entries"`
	More    bool `json:"more,omitempty"`
}

// cut shortens a list that has one entry more than its limit, or more bytes than a node sends.
func (s *Survey) cut(limit, bytes, n int, size func(i int) int) (keep int, more bool) {
	if keep, more = min(n, limit), n > limit; bytes == 0 {
		return keep, more
	}
	sum := 0
	for i := range keep {
		if sum += size(i); sum > bytes && i > 0 {
			return i, true
		}
	}
	return keep, more
}

// entries returns how many entries this node gives of a list, and how many bytes they may have, or 0.
func (s *Survey) entries(q question) (n, bytes int) {
	n = max(q.Limit, 1) // the question may be from elsewhere
	if !s.hub.Shared() {
		return n, 0
	}
	bytes = maxBytes
	if q.Bytes > 0 {
		bytes = min(bytes, q.Bytes)
	}
	return min(n, maxEntries), bytes
}

// merge joins the parts of a page, in the order of less. Entries beyond the end of a part with More are left for the next
// page, because that node may have entries before them.
func merge[T any](answers []answer[part[T]], limit int, less func(a, b T) int, same func(a *T, b T)) Page[T] {
	var p Page[T]
	var end *T
	for i := range answers {
		a := &answers[i].of
		if n := len(a.Entries); a.More && n > 0 && (end == nil || less(a.Entries[n-1], *end) < 0) {
			end = &a.Entries[n-1]
		}
		p.Entries = append(p.Entries, a.Entries...)
		p.More = p.More || a.More
	}
	slices.SortStableFunc(p.Entries, less)
	joined := p.Entries[:0:0]
	for _, e := range p.Entries {
		switch n := len(joined); {
		case end != nil && less(e, *end) > 0:
			p.More = true
		case n > 0 && less(joined[n-1], e) == 0:
			same(&joined[n-1], e)
		case n == limit:
			p.More = true
		default:
			joined = append(joined, e)
		}
	}
	p.Entries = joined
	return p
}

// Channels lists the channels of all nodes, or of one, by name: those that begin with prefix and come after another name.
func (s *Survey) Channels(ctx context.Context, node, prefix, after string, limit int) (Page[Channel], error) {
	selected, err := s.selected(node)
	if err != nil {
		return Page[Channel]{}, err
	}
	q := question{Prefix: prefix, After: after, Limit: limit}
	answers, missing := ask(ctx, s, kindChannels, q, selected, s.channels)
	p := merge(answers, limit, func(a, b Channel) int { return strings.Compare(a.Channel, b.Channel) }, (*Channel).add)
	p.Missing = labels(missing)
	return p, nil
}

// channels returns this node's part of a list of channels.
func (s *Survey) channels(q question) (part[Channel], bool) {
	n, bytes := s.entries(q)
	// One more than asked for shows whether there are more, without counting them all.
	list := s.hub.Channels(q.Prefix, q.After, n+1)
	p := part[Channel]{Entries: make([]Channel, 0, len(list))}
	n, p.More = s.cut(n, bytes, len(list), func(i int) int { return 6*len(list[i].Name) + 128 })
	for _, c := range list[:n] {
		p.Entries = append(p.Entries, channelOf(c))
	}
	return p, true
}

func channelOf(c hub.Channel) Channel {
	return Channel{Channel: c.Name, Subscribers: c.Subscribers, History: c.History, LastID: c.LastID}
}

// add adds what another node has of the channel. All nodes with the channel have the same messages, but each keeps what it
// has received itself, and may be behind. So the largest history is shown.
func (c *Channel) add(other Channel) {
	c.Subscribers += other.Subscribers
	c.History = max(c.History, other.History)
	if later(other.LastID, c.LastID) {
		c.LastID = other.LastID
	}
	if c.Users == nil {
		c.Users = other.Users
	} else {
		for user, n := range other.Users {
			c.Users[user] += n
		}
	}
	c.MoreUsers = c.MoreUsers || other.MoreUsers
	// Each node that has members of the channel knows all of them.
	if c.Presence == nil {
		c.Presence = other.Presence
	}
}

// later reports whether a message comes after another one. IDs of two epochs cannot be compared; the nodes do not have the
// same log at the moment.
func later(id, than string) bool {
	return len(id) > len(than) || len(id) == len(than) && id > than
}

// Channel returns one channel with its users, and whether any of the nodes that answered has it.
func (s *Survey) Channel(ctx context.Context, node, name string) (c Channel, ok bool, err error) {
	selected, err := s.selected(node)
	if err != nil {
		return c, false, err
	}
	answers, missing := ask(ctx, s, kindChannel, question{Channel: name}, selected, s.channel)
	c.Channel = name
	for _, a := range answers {
		for _, e := range a.of.Entries {
			ok = true
			c.add(e)
		}
	}
	c.Missing = labels(missing)
	return c, ok, nil
}

// channel returns what this node has of one channel, or no entry.
func (s *Survey) channel(q question) (part[Channel], bool) {
	c, ok := s.hub.Channel(q.Channel)
	p, present := s.presence.Of(q.Channel) // also while all members are in their grace period, and have no connection
	if !ok && !present {
		return part[Channel]{}, true
	}
	c.Name = q.Channel
	v := channelOf(c)
	v.Users = s.hub.Users(q.Channel)
	if present {
		v.Presence = p.JSON()
	}
	if _, bytes := s.entries(q); bytes > 0 {
		if bytes -= len(v.Presence); bytes < len(v.Presence) { // at most half of the answer
			bytes += len(v.Presence)
			v.Presence = nil
		}
		names := slices.Sorted(maps.Keys(v.Users))
		n, more := s.cut(len(names), bytes, len(names), func(i int) int { return 6*len(names[i]) + 16 })
		for _, name := range names[n:] {
			delete(v.Users, name)
		}
		v.MoreUsers = more
	}
	return part[Channel]{Entries: []Channel{v}}, true
}

// Connections lists the connections of all nodes, or of one, by node, and the oldest of each node first. after is the ID of
// a connection, which may have ended.
func (s *Survey) Connections(ctx context.Context, node string, f hub.Filter, after string, limit int) (Page[Connection], error) {
	selected, err := s.selected(node)
	if err != nil {
		return Page[Connection]{}, err
	}
	if after != "" {
		of, _, err := hub.ParseConnID(after)
		if err != nil {
			return Page[Connection]{}, err
		}
		if of == "" { // from before this process had a broker
			of, after = s.self(), s.self()+"."+after
		}
		if s.hub.Shared() && len(selected) > 1 {
			selected = slices.DeleteFunc(selected, func(n nodes.Node) bool { return n.Text() < of })
		}
	}
	q := question{Channel: f.Channel, User: f.User, Clients: f.Clients, After: after, Limit: limit}
	answers, missing := ask(ctx, s, kindConnections, q, selected, s.connections)
	for i := range answers {
		a := &answers[i]
		a.of.Entries = slices.DeleteFunc(a.of.Entries, func(c Connection) bool {
			of, _, err := hub.ParseConnID(c.ID)
			return err != nil || of != "" && of != a.node.Text()
		})
		for j := range a.of.Entries {
			if a.of.Entries[j].Node = Label(a.node); !s.hub.Shared() {
				a.of.Entries[j].Node = ""
			}
		}
	}
	p := merge(answers, limit, byID, func(*Connection, Connection) {})
	p.Missing = labels(missing)
	return p, nil
}

// byID sorts connections by their nodes, and then by their numbers.
func byID(a, b Connection) int {
	nodeA, idA, _ := hub.ParseConnID(a.ID)
	nodeB, idB, _ := hub.ParseConnID(b.ID)
	return cmp.Or(strings.Compare(nodeA, nodeB), cmp.Compare(idA, idB))
}

// connections returns this node's part of a list of connections.
func (s *Survey) connections(q question) (part[Connection], bool) {
	f := hub.Filter{Channel: q.Channel, User: q.User, Clients: q.Clients}
	if q.After != "" {
		of, id, err := hub.ParseConnID(q.After)
		if err != nil {
			return part[Connection]{}, false
		}
		switch c := strings.Compare(s.self(), of); {
		case of == "" || c == 0:
			f.After = id
		case c < 0: // those of this node come before it
			return part[Connection]{}, true
		}
	}
	n, bytes := s.entries(q)
	list := s.hub.Connections(f, n+1)
	p := part[Connection]{Entries: make([]Connection, 0, len(list))}
	n, p.More = s.cut(n, bytes, len(list), func(i int) int {
		size := 256 + 6*len(list[i].User)
		for _, name := range list[i].Channels {
			size += 6*len(name) + 3
		}
		return size
	})
	for _, c := range list[:n] {
		p.Entries = append(p.Entries, Connection{
			ID: s.hub.ShowID(c.ID), User: c.User, Remote: c.Remote, Transport: c.Transport,
			Channels: c.Channels, Since: c.ConnectedAt.UTC(), Expires: c.Expires.UTC(), Sent: c.Sent, Backlog: c.Backlog,
		})
	}
	return p, true
}
