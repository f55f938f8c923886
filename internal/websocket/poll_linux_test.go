package websocket

// count returns how many sessions the poller knows.
func (p *Poller) count() int {
	if p == nil {
		return 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.sessions)
}
