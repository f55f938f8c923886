package redis

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
)

const (
	// dialTimeout is how long a server may take to accept a connection and to log in.
	dialTimeout = 2 * time.Second

	// requestTimeout is how long an answer may take. Servers answer in less than a millisecond, or not at all.
	requestTimeout = 3 * time.Second

	// connections are what a session has: for requests, entries that come, and entries that are published. They are apart so
	// that a long answer delays neither of the others.
	connections = 3
)

// session is one run of a server, as long as all connections to it last. The client library would connect again by itself,
// perhaps to a server that has lost the log. So nothing is dialled after the beginning, and when one connection is lost the
// session is over.
type session struct {
	l          *log
	address    string
	generation uint64

	client  rueidis.Client // its own connection is that for requests
	receive rueidis.DedicatedClient
	write   rueidis.DedicatedClient

	// What the scripts compare.
	run, epoch, incarnation string
	number                  uint64 // of the epoch in the Sink, set when that is told

	evicts atomic.Bool   // the server removes keys when its memory is full
	ticked atomic.Uint64 // the nonce of the last tick that came
	heard  chan struct{} // signals that it has changed
	full   bool          // a message had no room in the queue; only for who reads the connection

	mu     sync.Mutex
	conns  []net.Conn
	began  bool // no more may be dialled
	over   chan struct{}
	cause  string
	reason error
}

// errDialled is what the client library gets when it connects again.
var errDialled = errors.New("the connection was lost")

// dial makes a session with the server at an address, which begins the epoch if it has to.
func (l *log) dial(ctx context.Context, address string, generation uint64) (*session, error) {
	s := &session{l: l, address: address, generation: generation, over: make(chan struct{}), heard: make(chan struct{}, 1)}
	if err := s.dial(ctx); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// dial connects, and begins.
func (s *session) dial(ctx context.Context) (err error) {
	// The client library logs in with a timeout of its own.
	stop := context.AfterFunc(ctx, func() { s.fail("reconnect", ctx.Err()) })
	defer stop()
	if s.client, err = rueidis.NewClient(s.options()); err != nil {
		return err
	}
	s.receive, _ = s.client.Dedicate()
	s.write, _ = s.client.Dedicate()
	for _, d := range []doer{s.client, s.receive, s.write} {
		run, err := runOf(ctx, d)
		if err != nil {
			return err
		}
		if s.run != "" && s.run != run {
			return fmt.Errorf("connections to %s reach different servers", s.address)
		}
		s.run = run
	}
	if err := s.look(ctx); err != nil {
		return err
	}
	s.mu.Lock()
	s.began = true
	s.mu.Unlock()
	lost := s.receive.SetPubSubHooks(rueidis.PubSubHooks{OnMessage: s.message})
	go func() {
		// It also ends when the session is closed.
		err := <-lost
		s.fail("reconnect", err)
	}()
	_, err = s.begin(ctx, s.l.retained(), s.l.fresh())
	return err
}

// options returns how to connect. The library's own ways of connecting again, of trying again, of caching and of finding
// servers are off: what it does by itself would not be seen here.
func (s *session) options() rueidis.ClientOption {
	c := &s.l.config
	return rueidis.ClientOption{
		InitAddress: []string{s.address}, ForceSingleClient: true, PipelineMultiplex: -1, DisableRetry: true, DisableCache: true,
		ClientSetInfo: rueidis.DisableClientSetInfo, // it would need one more permission
		ClientName:    clientName(c.Name), SelectDB: c.DB, TLSConfig: c.TLS,
		AuthCredentialsFn: func(rueidis.AuthCredentialsContext) (rueidis.AuthCredentials, error) {
			user, password := c.login()
			return rueidis.AuthCredentials{Username: user, Password: password}, nil
		},
		// Negative: no pings of the library's own, which would start goroutines that make each publish slower. Ticks show
		// that the server lives.
		Dialer: net.Dialer{Timeout: dialTimeout, KeepAlive: -1}, ConnWriteTimeout: requestTimeout,
		ReadBufferEachConn: 128 << 10, WriteBufferEachConn: 128 << 10,
		DialCtxFn: func(dial context.Context, address string, _ *net.Dialer, config *tls.Config) (net.Conn, error) {
			return s.connect(dial, address, config)
		},
	}
}

// connect dials once for each connection that the session needs.
func (s *session) connect(ctx context.Context, address string, config *tls.Config) (net.Conn, error) {
	s.mu.Lock()
	ended := s.began || len(s.conns) == connections
	s.mu.Unlock()
	if ended {
		return nil, errDialled
	}
	conn, err := dialServer(ctx, address, config)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns = append(s.conns, conn)
	if s.cause != "" {
		conn.Close()
		return nil, errDialled
	}
	return conn, nil
}

// dialServer connects to an address, which may be the path of a socket.
func dialServer(ctx context.Context, address string, config *tls.Config) (net.Conn, error) {
	dialer := net.Dialer{Timeout: dialTimeout, KeepAlive: 10 * time.Second}
	network := "tcp"
	if strings.HasPrefix(address, "/") {
		network = "unix"
	}
	if config == nil {
		return dialer.DialContext(ctx, network, address)
	}
	d := tls.Dialer{NetDialer: &dialer, Config: config}
	return d.DialContext(ctx, network, address)
}

// clientName is a name as CLIENT SETNAME takes it: without spaces, and without what is not ASCII.
func clientName(name string) string {
	return strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return '-'
		}
		return r
	}, name)
}

// runOf asks a server which of its runs it is in. A server that was restarted, or another one, says something else.
func runOf(ctx context.Context, d doer) (string, error) {
	run, err := info(ctx, d, "server", "run_id")
	if err == nil && run == "" {
		err = errors.New("INFO of the server has no run_id, which shows when it has lost messages")
	}
	return run, err
}

// info returns a field of a section of INFO, or nothing if there is no such field.
func info(ctx context.Context, d doer, section, field string) (string, error) {
	text, err := d.Do(ctx, d.B().Info().Section(section).Build()).ToString()
	if isReply(err, "NOPERM") {
		return "", fmt.Errorf("the account may not use INFO, which shows when the server has lost messages: %w", err)
	}
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, field+":"); ok {
			return strings.TrimSpace(value), nil
		}
	}
	return "", nil
}

// begin settles on the epoch. exactly says that the log has to keep what is wanted, and not what others want, if that is more.
func (s *session) begin(ctx context.Context, want retained, exactly bool) (epoch string, err error) {
	l := s.l
	known, at := l.known()
	m, err := s.eval(ctx, s.client, beginScript, []string{
		l.prefix, s.run, newEpoch(), flag(l.config.Durable), strconv.Itoa(want.limit), strconv.FormatInt(want.ttl, 10), flag(exactly),
		l.id, strconv.FormatUint(s.generation, 10), known, strconv.FormatUint(at, 10),
	})
	if err != nil {
		return "", err
	}
	answer, err := m.ToArray()
	if err != nil || len(answer) != 4 {
		return "", fmt.Errorf("the server's answer is not that of the script (%w)", err)
	}
	if epoch, err = answer[0].ToString(); err != nil {
		return "", err
	}
	now, err := answer[3].AsInt64()
	if err != nil {
		return "", err
	}
	l.setClock(now)
	if s.epoch == "" {
		s.epoch = epoch
		s.incarnation, err = answer[1].ToString()
	}
	return epoch, err
}

// flag returns yes or no as an argument of a script.
func flag(yes bool) string {
	if yes {
		return "1"
	}
	return "0"
}

// args returns the arguments that most scripts begin with, with room for more.
func (s *session) args(more int) []string {
	return append(make([]string, 0, 4+more), s.l.prefix, s.run, s.epoch, s.incarnation)
}

// fail ends the session. The first cause counts: others are mostly its consequences.
func (s *session) fail(cause string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cause != "" {
		return
	}
	s.cause, s.reason = cause, err
	close(s.over)
	// The sockets and not the client, whose Close waits for an answer of the server.
	for _, conn := range s.conns {
		conn.Close()
	}
}

// err says why the session is over.
func (s *session) err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reason == nil {
		return fmt.Errorf("the session ended: %s", s.cause)
	}
	return s.reason
}

// close ends the session and its goroutines.
func (s *session) close() {
	s.fail("reconnect", errDialled)
	if s.client == nil {
		return
	}
	for _, d := range []rueidis.DedicatedClient{s.receive, s.write} {
		if d != nil {
			d.Close()
		}
	}
	s.client.Close()
}
