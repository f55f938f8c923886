package resp

import "bytes"

// words splits a line into words. A word in quotes may have spaces, and in double quotes escapes (redis, sds.c, sdssplitargs).
// What is quoted is rewritten in place, because it never becomes longer.
func words(line []byte, args []span) ([]span, error) {
	for i := 0; ; {
		for i < len(line) && isSpace(line[i]) {
			i++
		}
		if i == len(line) {
			return args, nil
		}
		from, to := i, i // of the word as it is rewritten
		for i < len(line) && !isSpace(line[i]) {
			quote := line[i]
			if quote != '"' && quote != '\'' {
				line[to] = quote
				i, to = i+1, to+1
				continue
			}
			end, n := unquote(line[to:], line[i+1:], quote)
			i, to = i+1+end, to+n
			if end < 0 || i < len(line) && !isSpace(line[i]) {
				return args, errQuotes
			}
		}
		args = append(args, span{from, to})
	}
}

// unquote writes what is in quotes to dst, which is the same memory as src or behind it, and returns where in src it is over,
// and how many bytes it wrote. end is -1 if there is no closing quote.
func unquote(dst, src []byte, quote byte) (end, n int) {
	for i := 0; i < len(src); i++ {
		c := src[i]
		switch {
		case c == quote:
			return i + 1, n
		case c != '\\' || i+1 == len(src):
		case quote == '\'':
			if src[i+1] == '\'' {
				i++
				c = '\''
			}
		case src[i+1] == 'x' && i+3 < len(src) && hex(src[i+2]) >= 0 && hex(src[i+3]) >= 0:
			c = byte(hex(src[i+2])<<4 | hex(src[i+3]))
			i += 3
		default:
			i++
			c = escape(src[i])
		}
		dst[n] = c
		n++
	}
	return -1, n
}

// escape returns what a letter means behind a backslash.
func escape(c byte) byte {
	if i := bytes.IndexByte([]byte("nrtba"), c); i >= 0 {
		return "\n\r\t\b\a"[i]
	}
	return c
}

func hex(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		return int(c|0x20-'a') + 10
	}
	return -1
}

func isSpace(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' || c == 0 }

// isHTTP reports whether a command is the beginning of an HTTP request. A page in a browser may send one to any port of its
// user's machine, with commands in its body, and needs no permission for that. Redis closes at POST and Host: since 3.2.7.
// Here every request line counts, also that of GET, which only a command that is text can be.
func isHTTP(args [][]byte, inline bool) bool {
	name := args[0]
	return is(name, "POST") || is(name, "HOST:") || inline && bytes.HasPrefix(args[len(args)-1], []byte("HTTP/"))
}

// is reports whether a word is one given in capital letters, in whatever case.
func is(word []byte, upper string) bool {
	if len(word) != len(upper) {
		return false
	}
	for i, c := range word {
		if c >= 'a' && c <= 'z' {
			c -= 'a' - 'A'
		}
		if c != upper[i] {
			return false
		}
	}
	return true
}
