package resp

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/time/rate"
)

const (
	// maxConns is how many connections a server has. A publisher has one, or a pool of some. Redis has 10,000.
	maxConns = 1000

	// loginTimeout is how long a connection may take to log in. Without it, strangers could hold all connections for nothing.
	// Clients log in with the first bytes they send. Afterwards there is no timeout: pools keep idle connections for days.
	loginTimeout = 30 * time.Second

	// maxWrongLogins is how often one connection may try a password. Clients try one.
	maxWrongLogins = 8

	// complainEvery bounds what strangers can have logged.
	complainEvery = 10 * time.Second
)

// Publication is what a PUBLISH or SPUBLISH has.
type Publication struct{ Channel, Payload []byte }

// Publisher takes what is published.
type Publisher interface {
	// Publish is called with what a connection publishes, in its order, by one goroutine: all that one read has brought, up
	// to maxBatch and to the next command that is another one. All bytes are in the read buffer: they are valid until
	// Publish returns, so who keeps them copies them.
	//
	// For each of them, in their order, it calls c.Answer or, if it does not know yet how many subscribers got the message,
	// c.Hold. Publish may also block: then the connection is not read, and TCP holds its client back.
	Publish(c *Conn, ps []Publication)

	// TooLong is told of what a client that may publish wanted to publish, and had more bytes than are accepted. Its
	// connection ends.
	TooLong(channel string, size, limit int)
}

// Config is what a server can be given anew while it runs.
type Config struct {
	// Publisher must not be nil.
	Publisher Publisher

	// Password is what clients log in with. If it is empty, they need not. Who is logged in stays so.
	Password string

	// User is the name that clients may log in with, besides "default".
	User string

	// Log must not be nil.
	Log *zap.Logger
}

// Server serves the Redis protocol. Make one with New.
type Server struct {
	config   atomic.Pointer[Config]
	subs     subscriptions
	complain complaints

	mu        sync.Mutex
	conns     map[*Conn]struct{}
	listeners map[net.Listener]struct{}
	ended     *sync.Cond // when a connection has ended
	lastID    uint64
	closing   bool
	rejected  uint64
}

// complaints are what people are told of, each kind not too often.
type complaints struct{ accept, full, http, login rate.Sometimes }

// Stats are a server's totals.
type Stats struct {
	Connections   int
	Subscriptions int
	Rejected      uint64 // connections beyond the limit
}

// New makes a server that listens nowhere yet.
func New(c Config) *Server {
	s := &Server{conns: make(map[*Conn]struct{}), listeners: make(map[net.Listener]struct{})}
	s.ended = sync.NewCond(&s.mu)
	for _, c := range []*rate.Sometimes{&s.complain.accept, &s.complain.full, &s.complain.http, &s.complain.login} {
		c.Interval = complainEvery
	}
	s.Configure(c)
	return s
}

// Configure replaces the configuration, from what each connection reads next.
func (s *Server) Configure(c Config) { s.config.Store(&c) }

// Stats returns the totals of now.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Stats{Connections: len(s.conns), Subscriptions: int(s.subs.total.Load()), Rejected: s.rejected}
}

// Serve accepts connections until the listener is closed, and returns nil then. Closing a listener leaves its connections.
func (s *Server) Serve(l net.Listener) error {
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		return l.Close()
	}
	s.listeners[l] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.listeners, l)
		s.mu.Unlock()
	}()
	var delay time.Duration
	for {
		nc, err := l.Accept()
		if err == nil {
			delay = 0
			s.add(nc)
			continue
		}
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		// Nearly always it is that no file can be opened (EMFILE), which passes. As net/http does, and for the same reason:
		// there is nothing better to do (golang/go#24808).
		if e, ok := errors.AsType[net.Error](err); !ok || !e.Timeout() && !isTemporary(err) {
			return err
		}
		delay = min(max(2*delay, 5*time.Millisecond), time.Second)
		s.complain.accept.Do(func() { s.config.Load().Log.Warn("accepting a Redis client failed", zap.Error(err)) })
		time.Sleep(delay)
	}
}

// isTemporary reports what net calls temporary. That is deprecated because it is not well defined, but for Accept it is.
func isTemporary(err error) bool {
	e, ok := errors.AsType[interface {
		error
		Temporary() bool
	}](err)
	return ok && e.Temporary()
}

// add begins to serve a connection, if there is room.
func (s *Server) add(nc net.Conn) {
	config := s.config.Load()
	s.mu.Lock()
	full := len(s.conns) >= maxConns
	if full {
		s.rejected++
	}
	if full || s.closing {
		s.mu.Unlock()
		if full {
			s.complain.full.Do(func() { config.Log.Warn("too many Redis clients are connected", zap.Int("limit", maxConns)) })
			nc.SetWriteDeadline(time.Now().Add(100 * time.Millisecond)) // it would block only if the kernel had no memory
			nc.Write([]byte("-ERR max number of clients reached\r\n"))
		}
		nc.Close()
		return
	}
	s.lastID++
	c := newConn(s, nc, s.lastID, config.Password == "")
	s.conns[c] = struct{}{}
	s.mu.Unlock()
	go c.serve()
}

// remove notes that a connection has ended.
func (s *Server) remove(c *Conn) {
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
	s.ended.Broadcast()
}

// Shutdown closes all listeners, and then the connections. Commands that have been read are still answered, also those whose
// answer is held back, as long as ctx lasts. A Publisher that blocks for longer may still be running when Shutdown returns an
// error.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closing = true
	for l := range s.listeners {
		l.Close()
	}
	for c := range s.conns {
		c.stop()
	}
	defer context.AfterFunc(ctx, s.ended.Broadcast)()
	for len(s.conns) > 0 {
		if err := ctx.Err(); err != nil {
			for c := range s.conns {
				c.cut()
			}
			return err
		}
		s.ended.Wait()
	}
	return nil
}

// mayLogIn checks a login. It takes the same time whatever is wrong, also for passwords of different lengths.
func (c *Config) mayLogIn(user, password []byte) bool {
	same := func(a []byte, b string) int {
		x, y := sha256.Sum256(a), sha256.Sum256([]byte(b))
		return subtle.ConstantTimeCompare(x[:], y[:])
	}
	name := same(user, "default")
	if c.User != "" {
		name |= same(user, c.User)
	}
	if c.Password == "" {
		return name == 1 // as Redis does: its user default then has any password
	}
	return name&same(password, c.Password) == 1
}
