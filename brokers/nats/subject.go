package nats

import "strings"

// Subjects of the stream are <prefix>.s.<channel>. The stream republishes each as <prefix>.l.<channel>, which is where nodes
// listen. A channel never begins with "_" there, so the names that do are the log's own.
// A name of 255 bytes takes at most 765, and the server takes lines of 4096 (MAX_CONTROL_LINE_SIZE in nats-server 2.15.2).
const (
	tickName   = "_tick"
	epochName  = "_epoch"
	anchorName = "_anchor" // and a number
)

// hexDigits are upper case only, so that a channel has one subject.
const hexDigits = "0123456789ABCDEF"

// plain says which bytes of a channel are in the subject as they are. "." would begin another token, "*" and ">" are
// wildcards, "$" begins the subjects of the server, and white space ends a subject. "=" begins an escape.
var plain = func() (set [256]bool) {
	for _, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_:@,~-") {
		set[c] = true
	}
	return set
}()

// encodeChannel returns the last token of a channel's subject.
func encodeChannel(channel string) string {
	i := 0
	for i < len(channel) && plain[channel[i]] {
		i++
	}
	if i == len(channel) && !strings.HasPrefix(channel, "_") {
		return channel // most are
	}
	var b strings.Builder
	b.Grow(len(channel) + 16)
	for i := range len(channel) {
		c := channel[i]
		if plain[c] && (c != '_' || i > 0) {
			b.WriteByte(c)
			continue
		}
		b.WriteByte('=')
		b.WriteByte(hexDigits[c>>4])
		b.WriteByte(hexDigits[c&15])
	}
	return b.String()
}

// decodeChannel is the reverse of encodeChannel. It is false for a token that encodeChannel does not return.
func decodeChannel(token string) (string, bool) {
	if token == "" || token[0] == '_' {
		return "", false
	}
	if !strings.Contains(token, "=") {
		for i := range len(token) {
			if !plain[token[i]] {
				return "", false
			}
		}
		return token, true
	}
	channel := make([]byte, 0, len(token))
	for i := 0; i < len(token); i++ {
		c := token[i]
		switch {
		case c == '=':
			if i+2 >= len(token) {
				return "", false
			}
			high, low := strings.IndexByte(hexDigits, token[i+1]), strings.IndexByte(hexDigits, token[i+2])
			if high < 0 || low < 0 {
				return "", false
			}
			c = byte(high<<4 | low)
			if plain[c] && (c != '_' || i > 0) {
				return "", false // one channel has one subject
			}
			i += 2
		case !plain[c]:
			return "", false
		}
		channel = append(channel, c)
	}
	return string(channel), true
}
