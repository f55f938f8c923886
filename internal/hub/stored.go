package hub

// stored is a message in the history of its channel.
type stored struct {
	message *Message
	channel *channel
	in      [2]neighbors // inAll, inChannel
}

// The lists that a stored message is in: Hub.history, which has all in the order of the log, and channel.history.
const inAll, inChannel = 0, 1

// neighbors are the messages next to one in a list, nil at its ends.
type neighbors struct{ before, after *stored }

// older and newer return the neighbors in the channel. Of a message that is not kept any more they are those that it had last, so that
// who reads on from it comes to the older ones that are left.
func (s *stored) older() *stored { return s.in[inChannel].before }
func (s *stored) newer() *stored { return s.in[inChannel].after }

// storedList is a linked list of stored messages, the oldest first. Any of them can be removed without moving others, as a slice
// would, and it grows without being copied. A position is found from the newest on: who resumes is sent all that is passed.
type storedList struct {
	oldest, newest *stored
	count          int
}

// append adds a message as the newest.
func (l *storedList) append(which int, s *stored) {
	s.in[which] = neighbors{before: l.newest}
	if l.newest == nil {
		l.oldest = s
	} else {
		l.newest.in[which].after = s
	}
	l.newest = s
	l.count++
}

// prepend adds a message as the oldest.
func (l *storedList) prepend(which int, s *stored) {
	s.in[which] = neighbors{after: l.oldest}
	if l.oldest == nil {
		l.newest = s
	} else {
		l.oldest.in[which].before = s
	}
	l.oldest = s
	l.count++
}

// remove takes a message out, which keeps its neighbors: see older.
func (l *storedList) remove(which int, s *stored) {
	own := s.in[which]
	if own.before == nil {
		l.oldest = own.after
	} else {
		own.before.in[which].after = own.after
	}
	if own.after == nil {
		l.newest = own.before
	} else {
		own.after.in[which].before = own.before
	}
	l.count--
}
