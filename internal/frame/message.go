package frame

import "unicode/utf8"

// Message is what a client sent in one frame or several, without their headers and masks.
type Message struct {
	Opcode   Opcode // Text or Binary
	payload  []byte
	deflated bool
	owned    bool // nobody else uses payload
	max      int  // bytes of the message, inflated
}

// Data returns the message's data, inflated. Text is valid UTF-8. The data is the caller's only until it returns. The error
// is a *CloseError.
func (m Message) Data() ([]byte, error) {
	if !m.deflated {
		return m.payload, nil // its length and, as it came, its UTF-8 were checked by the Reader
	}
	data, err := inflate(m.payload, m.max)
	switch {
	case err != nil:
		return nil, &CloseError{InvalidData, "invalid deflate data"}
	case len(data) > m.max:
		return nil, errTooBig
	case m.Opcode == Text && !utf8.Valid(data):
		return nil, errNotUTF8
	}
	return data, nil
}

// Own returns the same data for the caller to keep.
func (m Message) Own() ([]byte, error) {
	if m.deflated || m.owned {
		return m.Data()
	}
	return append(make([]byte, 0, len(m.payload)), m.payload...), nil // not bytes.Clone, which leaves spare capacity
}
