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
