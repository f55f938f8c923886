package presence

import (
	"bytes"
	"encoding/json"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
)

// A share is what one node has in a room, as it tells other nodes that have members there. Nodes without members of the room
// ignore it. A node that gets its first member asks all others. After that it is told changes, each of which says the version
// that it changes. If the receiver has another one, because a message was lost or overtaken, it asks for all.
type share struct {
	Channel   string `json:"c"`
	Version   uint64 `json:"v,omitempty"`
	Base      uint64 `json:"b,omitempty"` // the version that Has and Gone change; 0: they are all
	Ask       bool   `json:"q,omitempty"` // who has members there tells what it has
	Check     bool   `json:"k,omitempty"` // the same, and who has none says so; without a version it tells nothing itself
	Bare      bool   `json:"d,omitempty"` // it only tells the version
	End       bool   `json:"e,omitempty"` // the node has no members there
	Part      int    `json:"p,omitempty"` // of a list in several messages
	More      bool   `json:"m,omitempty"` // it is not the last part
	Anonymous int    `json:"a,omitempty"`
	Listed    bool   `json:"l,omitempty"`
	Users     int    `json:"n,omitempty"` // if they are not listed

	Has  []shared `json:"u,omitempty"`
	Gone []string `json:"g,omitempty"`
}

// shared is a user of a node.
type shared struct {
	User string          `json:"u"`
	Data json.RawMessage `json:"d,omitempty"`
	At   int64           `json:"t"`
}

const (
	partUsers   = 200     // of a list in one message
	partBytes   = 200_000 // of them: what clients choose may take six times as much as JSON, and all of it has to fit nodes.MaxTell
	maxDataSize = 4096
	maxParts    = 32 // of a list: twice as many as maxListed users with the longest names and data need
)

// size returns at most how many bytes a user takes in a message.
func (u *shared) size() int { return 2*len(u.User) + len(u.Data) + 48 }

// json returns the share as it is sent. What clients get on another node is what they get here, byte by byte: json.Marshal would
// escape HTML, so that a user who moves between nodes would seem to have other data.
func (s *share) json() []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if e.Encode(s) != nil {
		return nil // a member's data is JSON
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// isValid reports whether what another node says can be passed on to clients.
func (s *share) isValid() bool {
	if hub.CheckName("", s.Channel) != nil || s.Anonymous < 0 || s.Users < 0 || s.Part < 0 || s.Part > maxParts || !s.Listed && len(s.Has) > 0 {
		return false
	}
	for _, u := range s.Has {
		if hub.CheckName("", u.User) != nil || len(u.Data) > maxDataSize || len(u.Data) > 0 && hub.CheckJSON(u.Data, memberLevels) != nil {
			return false
		}
	}
	return true
}

// memberLevels is at least as deep as routes allow a member's data to be.
const memberLevels = 20

// other is what another node has in a room.
type other struct {
	version   uint64
	heard     time.Duration // when it last told something
	anonymous int
	users     int // that are not listed
	listed    bool
	parts     []shared // of a list of which more is to come
	nextPart  int
	asked     time.Duration // when a part was missing last
}

// sharing is what a room tells other nodes. It is nil while no broker is used.
type sharing struct {
	version uint64              // what they were told last; 0: nothing
	changed map[string]struct{} // users here that have changed since
	dirty   bool                // something here has changed since
	listed  bool                // they were told users, and not only how many
}

// touch notes that something has changed here: a user, or how many there are without one.
func (r *room) touch(user string) {
	if r.sharing == nil {
		return
	}
	r.sharing.dirty = true
	if user != "" && r.sharing.listed {
		r.sharing.changed[user] = struct{}{}
	}
}

// lists reports whether other nodes are told who is here. They are told again before the room lists its members again.
func (r *room) lists() bool { return r.count() <= listedAgain || !r.counting && r.count() <= maxListed }

// shareAll returns what this node has.
func (r *room) shareAll() (parts []share) {
	s := share{Channel: r.channel, Version: r.sharing.version, Anonymous: r.anonymous + r.absent, Listed: r.lists()}
	if !s.Listed {
		s.Users = r.here
		return []share{s}
	}
	size := 0
	for user, m := range r.members {
		if !m.isHere() {
			continue
		}
		u := shared{user, json.RawMessage(m.data), m.at}
		if size += u.size(); len(s.Has) == partUsers || size > partBytes {
			s.More = true
			parts = append(parts, s)
			s = share{Channel: s.Channel, Version: s.Version, Anonymous: s.Anonymous, Listed: true, Part: s.Part + 1}
			size = u.size()
		}
		s.Has = append(s.Has, u)
	}
	return append(parts, s)
}

// shareChange returns what has changed here since the last time, in the version that follows.
func (r *room) shareChange(version uint64) []share {
	x := r.sharing
	base := x.version
	listed := r.lists()
	all := base == 0 || listed != x.listed || !listed || len(x.changed) > partUsers
	x.version, x.listed, x.dirty = version, listed, false
	changed := x.changed
	x.changed = make(map[string]struct{})
	if all {
		return r.shareAll()
	}
	s := share{Channel: r.channel, Version: version, Base: base, Anonymous: r.anonymous + r.absent, Listed: true}
	size := 0
	for user := range changed {
		u := shared{User: user}
		if m := r.members[user]; m != nil && m.isHere() {
			u.Data, u.At = json.RawMessage(m.data), m.at
			s.Has = append(s.Has, u)
		} else {
			s.Gone = append(s.Gone, user)
		}
		if size += u.size(); size > partBytes {
			return r.shareAll()
		}
	}
	return []share{s}
}

// take takes what another node has. It reports false if something is missing in between, so that all has to be asked for.
func (r *room) take(node uint64, s *share, now time.Duration) bool {
	o := r.others[node]
	switch {
	case s.End:
		r.dropNode(node)
		return true
	case s.Version == 0:
		return true // it only asks
	case s.Bare:
		if o != nil && o.version == s.Version {
			o.heard = now
			return true
		}
		return o != nil && o.version > s.Version // it was overtaken
	case o != nil && s.Version < o.version:
		return true // overtaken
	case s.Base != 0 && (o == nil || o.version != s.Base):
		return false
	}
	if o == nil {
		if r.others == nil {
			r.others = make(map[uint64]*other)
		}
		o = new(other)
		r.others[node] = o
	}
	o.heard = now
	if s.Base == 0 {
		if s.Part == 0 {
			o.parts, o.nextPart = nil, 0
		}
		if s.Part != o.nextPart {
			// Asked once for all parts of a list, or each would be answered by another list.
			ask := o.asked == 0 || now-o.asked >= spreadEvery
			if ask {
				o.asked = now
			}
			return !ask
		}
		o.parts, o.nextPart = append(o.parts, s.Has...), o.nextPart+1
		if s.More {
			return true
		}
		if s.Listed || o.listed { // a room in which members are only counted may have very many
			r.replace(node, o.parts)
		}
		o.parts, o.nextPart = nil, 0
	} else {
		for _, user := range s.Gone {
			r.setElsewhere(node, user, nil)
		}
		for i := range s.Has {
			r.setElsewhere(node, s.Has[i].User, &s.Has[i])
		}
	}
	o.version, o.anonymous, o.listed, o.users = s.Version, s.Anonymous, s.Listed, s.Users
	return true
}

// replace has a node have exactly these users.
func (r *room) replace(node uint64, users []shared) {
	has := make(map[string]bool, len(users))
	for i := range users {
		has[users[i].User] = true
		r.setElsewhere(node, users[i].User, &users[i])
	}
	for user, m := range r.members {
		if !has[user] && m.indexOf(node) >= 0 {
			r.setElsewhere(node, user, nil)
		}
	}
}

// dropNode forgets what a node has.
func (r *room) dropNode(node uint64) {
	o := r.others[node]
	if o == nil {
		return
	}
	if o.listed {
		r.replace(node, nil)
	}
	delete(r.others, node)
}

// setElsewhere notes that a node has a user, or has not.
func (r *room) setElsewhere(node uint64, user string, has *shared) {
	if has == nil && r.members[user] == nil {
		return
	}
	r.update(user, func(m *member) {
		i := m.indexOf(node)
		switch {
		case has == nil && i >= 0:
			m.elsewhere[i] = m.elsewhere[len(m.elsewhere)-1]
			m.elsewhere = m.elsewhere[:len(m.elsewhere)-1]
		case has == nil:
		case i >= 0:
			m.elsewhere[i] = elsewhere{node, has.At, string(has.Data)}
		default:
			m.elsewhere = append(m.elsewhere, elsewhere{node, has.At, string(has.Data)})
		}
	})
}

// indexOf returns where a node is in elsewhere, or -1.
func (m *member) indexOf(node uint64) int {
	for i, e := range m.elsewhere {
		if e.node == node {
			return i
		}
	}
	return -1
}

// allListed reports whether this node knows the users of all others.
func (r *room) allListed() bool {
	for _, o := range r.others {
		if !o.listed && o.version > 0 { // without a version, its list is on its way
			return false
		}
	}
	return true
}
