package resp

import (
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

const (
	// smallBuffer is a new connection's read buffer. One that is filled by a read is doubled, up to bigBuffer, which is what a
	// pipeline needs: 64 KiB are 1000 short publications a system call. What a longer command needs is let go afterwards.
	smallBuffer = 4 << 10
	bigBuffer   = 64 << 10

	// maxReplies is how many bytes of answers may wait before no more commands are run: an answer may be 50 times as long as
	// its command.
	maxReplies = 64 << 10

	// lingerTime and lingerBytes are how long, and for how much, a connection that is closed for an error is still read: closing
	// a socket that has unread data resets it, and the client would not get the error (RFC 2525, section 2.17).
	lingerTime  = time.Second
	lingerBytes = 4 << 20
)

// Conn is the connection of a client. Its methods are for the Publisher.
type Conn struct {
	server *Server
	nc     net.Conn
	socket io.ReadWriter // what of it is read and written
	id     uint64

	// The reader's.
	in          []byte // the read buffer; in[r:w] has not been run
	r, w        int
	parser      parser
	args        [][]byte
	replies     []byte // what is not yet in line to be written
	config      *Config
	loggedIn    bool
	wrongLogins int
	version     int // of the protocol: 2 or 3
	name        []byte
	channels    map[string]struct{} // that it is subscribed to
	patterns    map[string]struct{}
	transaction *transaction  // that of MULTI, or nil
	batch       []Publication // what is not yet given to the Publisher
	reached     []int         // subscribers of this server that each of the batch has
	answered    int           // how many of the batch have an answer, or one that is held back
	quit        bool          // it has asked to be closed

	// Who writes. The reader writes by itself, until async is set for good.
	async bool
	out

	// version, for those who push messages.
	pushVersion atomic.Int32
}

// noDeadline is that of a connection that may be idle for ever.
var noDeadline time.Time

func newConn(s *Server, nc net.Conn, id uint64, loggedIn bool) *Conn {
	c := &Conn{server: s, nc: nc, socket: newDirect(nc), id: id, loggedIn: loggedIn, version: 2, in: make([]byte, smallBuffer)}
	c.out.init()
	c.setVersion(2)
	if !loggedIn {
		c.awaitLogin()
	}
	return c
}

// awaitLogin bounds how long the connection lasts without a login, also if the client does not read its answers.
func (c *Conn) awaitLogin() { c.setDeadline(time.Now().Add(loginTimeout)) }

// serve runs commands until the connection ends.
func (c *Conn) serve() {
	err := c.read()
	c.server.subs.removeAll(c)
	c.drain()
	if err != nil {
		c.linger()
	}
	c.nc.Close()
	c.server.remove(c)
}

// read runs commands. It returns an error if the client sent what is none.
func (c *Conn) read() error {
	for {
		n, err := c.socket.Read(c.in[c.w:])
		c.w += n
		full := c.w == len(c.in)
		if n > 0 {
			if wrong := c.run(); wrong != nil || c.quit {
				return wrong
			}
		}
		if err != nil {
			return nil
		}
		c.makeRoom(full)
	}
}

// makeRoom makes room in the read buffer.
func (c *Conn) makeRoom(full bool) {
	if c.r > 0 {
		c.w = copy(c.in, c.in[c.r:c.w])
		c.r = 0
	}
	size := len(c.in)
	switch {
	case c.w == len(c.in):
		size *= 2 // a command is longer; the parser bounds it
	case size > bigBuffer && c.w < bigBuffer/2:
		size = bigBuffer
	case full && size < bigBuffer && c.loggedIn:
		size *= 2
	}
	if size != len(c.in) {
		in := make([]byte, size)
		copy(in, c.in[:c.w])
		c.in = in
	}
}

// run runs the commands that are in the read buffer, and has their answers written.
func (c *Conn) run() error {
	if c.config = c.server.config.Load(); c.config.Password == "" {
		c.letIn() // it may have had one when the client came
	}
	for c.r < c.w && !c.quit {
		l := &known
		if !c.loggedIn {
			l = &stranger
		}
		size, err := c.parser.next(c.in[c.r:c.w], l)
		if err != nil {
			c.publishBatch()
			c.replies = appendError(c.replies, "ERR Protocol error: "+err.Error())
			c.reportTooLong()
			return err
		}
		if size == 0 {
			break
		}
		if len(c.parser.args) > 0 {
			c.args = c.args[:0]
			for _, a := range c.parser.args {
				c.args = append(c.args, c.in[c.r+a.from:c.r+a.to])
			}
			if !c.admit() {
				c.publishBatch()
				return nil
			}
			c.command(c.args)
		}
		c.r += size
	}
	c.publishBatch()
	c.flush()
	return nil
}

// reportTooLong tells the Publisher of a publication that is too long: nobody else would learn why the connection ends.
func (c *Conn) reportTooLong() {
	args := c.parser.args
	if !c.loggedIn || c.parser.tooLong == 0 || len(args) != 2 {
		return
	}
	word := func(i int) string { return string(c.in[c.r+args[i].from : c.r+args[i].to]) }
	if name := strings.ToUpper(word(0)); name == "PUBLISH" || name == "SPUBLISH" {
		c.config.Publisher.TooLong(word(1), c.parser.tooLong, known.bulk)
	}
}

// admit reports whether the command in c.args may be run, after it has waited for that. If it may not, the connection is over.
func (c *Conn) admit() bool {
	if isHTTP(c.args, c.parser.inline) {
		c.server.complain.http.Do(func() {
			c.config.Log.Warn("a Redis client sends HTTP and was disconnected: a page in a browser may have been made to attack this port",
				zap.Stringer("client", c.nc.RemoteAddr()))
		})
		c.replies, c.quit = c.replies[:0], true
		c.cut()
		return false
	}
	if len(c.replies) >= maxReplies {
		c.flush()
	}
	if c.async && !c.awaitRoom() {
		c.quit = true
		return false
	}
	return true
}

// linger tells the client that no more comes, and waits for it to close.
func (c *Conn) linger() {
	half, ok := c.nc.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	c.setReadDeadline(time.Now().Add(lingerTime))
	io.CopyN(io.Discard, c.nc, lingerBytes)
}

// out is what is waiting to be written.
type out struct {
	mu      sync.Mutex
	ready   []byte // what can be written
	spare   []byte // the writer's other buffer
	held    []held // answers that are held back, from head on, and what is behind each
	head    int
	first   uint64 // the number of held[head]
	waiting int    // bytes in ready, and behind held answers
	ended   bool   // nothing is added any more: the writer ends when it has written the rest
	stopped bool   // no more is read
	broken  bool   // the socket is closed
	written chan struct{}
	more    *sync.Cond // for the writer: there is more to write, or nothing ever
	less    *sync.Cond // for the reader: less is waiting
}

func (o *out) init() {
	o.more, o.less = sync.NewCond(&o.mu), sync.NewCond(&o.mu)
}
