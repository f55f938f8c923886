package resp

import "strconv"

const (
	replyOK   = "+OK\r\n"
	replyPong = "+PONG\r\n"
)

// appendHead appends the first line of a value: its type, and a number.
func appendHead(b []byte, kind byte, n int) []byte {
	b = append(b, kind)
	b = strconv.AppendInt(b, int64(n), 10)
	return append(b, '\r', '\n')
}

func appendInt(b []byte, n int) []byte { return appendHead(b, ':', n) }

func appendBulk[T string | []byte](b []byte, text T) []byte {
	b = appendHead(b, '$', len(text))
	b = append(b, text...)
	return append(b, '\r', '\n')
}

// appendNull appends what stands for nothing. RESP2 has no type of its own for it.
func appendNull(b []byte, version int) []byte {
	if version == 3 {
		return append(b, "_\r\n"...)
	}
	return append(b, "$-1\r\n"...)
}

// appendError appends an error, which is a line: what of the client's own text is in it must not end it.
func appendError(b []byte, text string) []byte {
	b = append(b, '-')
	for i := range len(text) {
		c := text[i]
		if c == '\r' || c == '\n' {
			c = ' '
		}
		b = append(b, c)
	}
	return append(b, '\r', '\n')
}
