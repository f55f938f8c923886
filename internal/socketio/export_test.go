package socketio

// Waits reports whether a GET of a session waits.
func (t *Table) Waits(sid, route string) bool {
	p := t.find(sid, route)
	if p == nil {
		return false
	}
	p.transport.mu.Lock()
	defer p.transport.mu.Unlock()
	return p.transport.waiting != nil
}

// Posts reports whether a POST of a session is read.
func (t *Table) Posts(sid, route string) bool {
	p := t.find(sid, route)
	return p != nil && p.posting.Load()
}

// Parting is parting.
func Parting(payload string) string { return string(parting([]byte(payload))) }

// Records returns how many records there are, and how many of sessions that have ended.
func (t *Table) Records() (all, ended int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.recovery.records), t.recovery.ended.Len()
}

// Sessions returns how many there are.
func (t *Table) Sessions() (polling, inNamespaces int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.polling), len(t.sessions)
}
