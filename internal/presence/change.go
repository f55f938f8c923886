package presence

import (
	"cmp"
	"slices"
	"strconv"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/protocol"
)

// Member is a user, as others see it.
type Member struct {
	User string
	Data string // a JSON value, or empty
}

// State is who is on a channel, or what has changed.
type State struct {
	Channel string
	Count   int
	Members []Member // all of them, if Listed
	Joined  []Member // if Changes: who has come, or whose data is another one
	Left    []Member // if Changes
	Listed  bool
	Changes bool
}

// interval returns how long after one change the next one is sent. A large room has to wait longer: a change is written to
// each member.
func (r *room) interval() time.Duration {
	return min(max(minInterval, time.Duration(r.wasTold)*time.Second/membersEachSecond), maxInterval)
}

// isPending reports whether there may be something to tell.
func (r *room) isPending() bool {
	return !r.began || len(r.changed) > 0 || r.count() != r.wasTold || r.mustCount() != r.counting
}

// mustCount reports whether members are to be only counted, from the next change on.
func (r *room) mustCount() bool {
	switch {
	case r.count() > maxListed, r.bytes > maxListBytes:
		return true
	case r.counting && (r.count() > listedAgain || r.bytes > listedAgainBytes):
		return true
	}
	return !r.allListed()
}

// next returns when the room has something to do: the end of a grace period, or a change that can be told.
func (r *room) next() time.Duration {
	at := never
	if len(r.graces) > 0 {
		at = r.graces[0].at
	}
	if r.isPending() {
		at = min(at, r.toldAt+r.interval())
	}
	return at
}

// tell returns what the members have to be told now, if there is something and the last time is long enough ago.
func (r *room) tell(now time.Duration) (s State, ok bool) {
	if !r.isPending() || r.began && now < r.toldAt+r.interval() {
		return s, false
	}
	first := !r.began
	s = State{Channel: r.channel, Count: r.count()}
	was := r.counting
	r.counting = r.mustCount()
	switch {
	case r.counting:
		r.stopListing(was)
	case was:
		r.listAll(&s)
	default:
		r.listChanges(&s)
		if !first && len(s.Joined) == 0 && len(s.Left) == 0 && s.Count == r.wasTold {
			return s, false
		}
	}
	r.began, r.wasTold, r.toldAt, r.list = true, s.Count, now, nil
	return s, true
}

// stopListing forgets what the members were told of each other, when the room begins to count them only.
func (r *room) stopListing(was bool) {
	if was {
		return
	}
	r.changed = nil
	for user, m := range r.members {
		if m.told, m.isTold, m.changed = "", false, false; !m.isPresent() {
			r.remove(user)
		}
	}
}

// listAll has the members told of all of them, when the room begins to list them again.
func (r *room) listAll(s *State) {
	s.Listed = true
	for user, m := range r.members {
		m.told, m.isTold = m.shown(), true
		s.Members = append(s.Members, Member{user, m.told})
	}
	sortMembers(s.Members)
}

// listChanges lists who differs from what the members were told.
func (r *room) listChanges(s *State) {
	s.Changes = true
	for _, user := range r.changed {
		m := r.members[user]
		m.changed = false
		switch data := m.shown(); {
		case m.isPresent() && (!m.isTold || m.told != data):
			m.told, m.isTold = data, true
			s.Joined = append(s.Joined, Member{user, data})
		case !m.isPresent():
			if m.isTold {
				s.Left = append(s.Left, Member{User: user})
			}
			r.remove(user)
		}
	}
	if cap(r.changed) > maxListed {
		r.changed = nil
	}
	clear(r.changed)
	r.changed = r.changed[:0]
	sortMembers(s.Joined)
	sortMembers(s.Left)
}

// told returns what the members already know, for a new member. Later changes are sent to all of them together.
func (r *room) told() State {
	s := State{Channel: r.channel, Count: r.wasTold, Listed: !r.counting}
	if s.Listed {
		for user, m := range r.members {
			if m.isTold {
				s.Members = append(s.Members, Member{user, m.told})
			}
		}
		sortMembers(s.Members)
	}
	return s
}

// sortMembers sorts by user, so that all nodes and clients have the same order.
func sortMembers(ms []Member) {
	slices.SortFunc(ms, func(a, b Member) int { return cmp.Compare(a.User, b.User) })
}

// JSON returns the state as clients get it.
func (s State) JSON() []byte {
	p := protocol.AppendString([]byte(`{"channel":`), s.Channel)
	p = strconv.AppendInt(append(p, `,"count":`...), int64(s.Count), 10)
	if s.Listed {
		p = appendMembers(append(p, `,"members":`...), s.Members)
	}
	if s.Changes {
		p = appendMembers(append(p, `,"joined":`...), s.Joined)
		p = appendMembers(append(p, `,"left":`...), s.Left)
	}
	return append(p, '}')
}

func appendMembers(p []byte, ms []Member) []byte {
	p = append(p, '[')
	for i, m := range ms {
		if i > 0 {
			p = append(p, ',')
		}
		p = protocol.AppendString(append(p, `{"user":`...), m.User)
		if m.Data != "" {
			p = append(append(p, `,"data":`...), m.Data...)
		}
		p = append(p, '}')
	}
	return append(p, ']')
}
