package resp

import (
	"bytes"
	"errors"
	"fmt"
)

// What a command may be. Redis allows 512 MiB in an argument and a million of them, which is no bound at all: a publication
// here has to fit into the hub's max_message, and nothing else is long.
const (
	maxArgs = 1024
	maxBulk = 2 << 20
	maxLine = 64 << 10

	// maxCommand is the longest command: one long argument, and what is around it. It bounds the read buffer.
	maxCommand = maxBulk + 64<<10

	// maxNumber is the longest line that is a type and a number. Redis allows 64 KiB of leading zeros.
	maxNumber = 32
)

// limits are what a client may send.
type limits struct {
	args, bulk, line   int
	manyArgs, longBulk error
}

var (
	known = limits{maxArgs, maxBulk, maxLine, errArgs, errBulk}

	// stranger is for clients that have not logged in where they have to. It is what HELLO needs, with a long password.
	stranger = limits{16, 4 << 10, 4 << 10, errors.New("unauthenticated multibulk length"), errors.New("unauthenticated bulk length")}
)

// What is wrong with bytes that are no command. The texts are those of Redis (networking.c, processMultibulkBuffer).
var (
	errInline  = errors.New("too big inline request")
	errQuotes  = errors.New("unbalanced quotes in request")
	errArgs    = errors.New("invalid multibulk length")
	errBulk    = errors.New("invalid bulk length")
	errTLS     = errors.New("it is not encrypted here")          // Redis waits for the end of a line
	errLineEnd = errors.New("expected CRLF after a bulk string") // Redis skips two bytes without looking
)

// span is where an argument is, from the beginning of its command.
type span struct{ from, to int }

// parser finds commands in a buffer to which bytes are added. It goes on where it was when the bytes ran out: otherwise a
// client that sends a long command byte by byte would have all of it parsed again for each byte.
type parser struct {
	args    []span
	pos     int  // how far the command is parsed
	missing int  // arguments that have not been parsed
	tooLong int  // the length of the argument that was not accepted, or 0
	bulk    int  // the length of the argument at pos, or -1 if that is not known
	begun   bool // whether the line that says how many arguments there are is parsed
	inline  bool // whether the last command was text, not an array
}

// next returns the length of the command that begins in b[0], or 0 if it is not complete. Its arguments are in p.args, which
// may be empty, until the next call.
func (p *parser) next(b []byte, l *limits) (size int, err error) {
	if !p.begun {
		p.args, p.bulk = p.args[:0], -1
		if len(b) == 0 {
			return 0, nil
		}
		if b[0] != '*' {
			return p.text(b, l)
		}
		p.pos, p.inline = 0, false
		n, size, ok := number(b)
		if size == 0 && ok {
			return 0, nil
		}
		if !ok {
			return 0, errArgs
		}
		if n > l.args {
			return 0, l.manyArgs
		}
		p.pos, p.missing, p.begun = size, max(n, 0), true
	}
	for ; p.missing > 0; p.missing-- {
		if more, err := p.argument(b, l); more || err != nil {
			return 0, err
		}
	}
	size, p.begun, p.pos = p.pos, false, 0
	return size, nil
}

// argument parses one, and reports whether it needs more bytes for that.
func (p *parser) argument(b []byte, l *limits) (more bool, err error) {
	if p.bulk < 0 {
		rest := b[p.pos:]
		if len(rest) == 0 {
			return true, nil
		}
		if rest[0] != '$' {
			return false, fmt.Errorf("expected '$', got '%c'", rest[0])
		}
		n, size, ok := number(rest)
		if size == 0 && ok {
			return true, nil
		}
		if ok && n > l.bulk {
			p.tooLong = n
			return false, l.longBulk
		}
		// The whole has a bound too, or each argument could be as long as one may be.
		if !ok || n < 0 || p.pos+size+n+2 > maxCommand {
			return false, errBulk
		}
		p.pos, p.bulk = p.pos+size, n
	}
	end := p.pos + p.bulk
	if len(b) < end+2 {
		return true, nil
	}
	if b[end] != '\r' || b[end+1] != '\n' {
		return false, errLineEnd
	}
	p.args = append(p.args, span{p.pos, end})
	p.pos, p.bulk = end+2, -1
	return false, nil
}

// number parses a line that is a type, which it skips, and a number. The size of the line is 0 if it is not complete, and ok
// says that it can still become one, or is one.
func number(b []byte) (n, size int, ok bool) {
	negative := false
	for i := 1; i < len(b) && i < maxNumber; i++ {
		c := b[i]
		switch {
		case c >= '0' && c <= '9':
			if n = n*10 + int(c-'0'); n > 1<<34 {
				return 0, 0, false
			}
		case c == '-' && i == 1:
			negative = true
		case c == '\r' && i > 1 && (i > 2 || !negative):
			if i+1 == len(b) {
				return 0, 0, true
			}
			if negative {
				n = -n
			}
			return n, i + 2, b[i+1] == '\n'
		default:
			return 0, 0, false
		}
	}
	return 0, 0, len(b) < maxNumber
}

// text parses a command that is a line of words, as people type them. p.pos is how far the end of the line was looked for.
func (p *parser) text(b []byte, l *limits) (size int, err error) {
	p.inline = true
	// A TLS record of type handshake (RFC 8446, section 5.1). Its client would wait for ever. A browser's may have commands in a
	// session ticket, which is from whoever runs the page.
	if b[0] == 0x16 {
		return 0, errTLS
	}
	i := bytes.IndexByte(b[p.pos:], '\n')
	if i < 0 {
		p.pos = len(b)
	} else {
		i += p.pos
	}
	if i > l.line || i < 0 && len(b) > l.line {
		return 0, errInline
	}
	if i < 0 {
		return 0, nil
	}
	p.pos = 0
	p.args, err = words(b[:i], p.args)
	if err == nil && len(p.args) > l.args {
		err = l.manyArgs
	}
	return i + 1, err
}
