package hub

// Size is size, for tests with the wire formats, which import this package.
func (m *Message) Size() int { return m.size() }
