package nats

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync/atomic"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"go.uber.org/zap"
)

const (
	// dialTimeout is how long one server may take to accept a connection.
	// The dialer's time includes resolving the name. Then the next server of the list has its turn.
	dialTimeout = 2 * time.Second

	// writeTimeout is how long a socket may accept nothing. nats.go holds the lock of the connection meanwhile, and its
	// default is a minute.
	writeTimeout = 5 * time.Second

	// rawRoom is how many messages fit between the client library and the queue.
	// The reader waits while it is half full, and then adds at most 2340: see throttled. So half of it is always enough.
	rawRoom = 16384
)

// options returns how to connect. RetryOnFailedConnect and the dialer's first error make natsgo.Connect return at once.
func (l *log) options() ([]natsgo.Option, error) {
	c := &l.config
	options := []natsgo.Option{
		natsgo.Name(c.Name),
		// Dial may not wait for the broker: Caddy starts without it, and a reload may not hang.
		natsgo.RetryOnFailedConnect(true),
		// The library gives up after 60 tries by default. Clients then would get nothing until Caddy is restarted.
		natsgo.MaxReconnects(-1),
		natsgo.CustomReconnectDelay(l.reconnectDelay),
		natsgo.Timeout(dialTimeout),
		natsgo.FlusherTimeout(writeTimeout),
		// The default notices after four minutes that a connection is dead.
		// Now it is six seconds: the third ping without an answer ends it (processPingTimer in nats.go 1.55).
		natsgo.PingInterval(2 * time.Second),
		natsgo.MaxPingsOutstanding(2),
		// The default keeps 8 MiB while there is no connection and sends it later, when the publisher has long been told that
		// nothing was published.
		natsgo.ReconnectBufSize(-1),
		// So that an account can be given this inbox, and not those of others too.
		natsgo.CustomInboxPrefix("_INBOX_" + c.Prefix),
		// An error of the login may go away, as when a password is changed on both sides.
		natsgo.IgnoreAuthErrorAbort(),
		natsgo.SkipHostLookup(), // the dialer resolves names, and does not make Connect wait for them
		natsgo.SetCustomDialer(&dialer{l: l, dialer: net.Dialer{Timeout: dialTimeout, KeepAlive: 10 * time.Second}, first: len(c.Servers)}),
		natsgo.DisconnectErrHandler(func(_ *natsgo.Conn, err error) { l.disconnected(err) }),
		natsgo.ReconnectHandler(func(*natsgo.Conn) { l.connected() }),
		natsgo.ConnectHandler(func(*natsgo.Conn) { l.connected() }),
		natsgo.ReconnectErrHandler(func(_ *natsgo.Conn, err error) { l.notConnected(err) }),
		natsgo.ErrorHandler(func(_ *natsgo.Conn, sub *natsgo.Subscription, err error) {
			if !l.peerError(sub, err) {
				l.asyncError(err)
			}
		}),
	}
	switch {
	case c.User != "":
		options = append(options, natsgo.UserInfoHandler(func() (string, string) {
			user, password, _ := c.login()
			return user, password
		}))
	case c.Token != "":
		options = append(options, natsgo.TokenHandler(func() string {
			_, _, token := c.login()
			return token
		}))
	case c.Credentials != "":
		// The library reads the file at each connect (UserCredentials in nats.go 1.55), so that it may be renewed.
		options = append(options, natsgo.UserCredentials(c.Credentials))
	case c.NKey != "":
		option, err := natsgo.NkeyOptionFromSeed(c.NKey)
		if err != nil {
			return nil, fmt.Errorf("nkey: %w", err)
		}
		options = append(options, option)
	}
	if c.TLS != nil {
		options = append(options, natsgo.Secure(c.TLS.Clone()))
	}
	return options, nil
}

func (c *Config) login() (user, password, token string) {
	if c.Login == nil {
		return c.User, c.Password, c.Token
	}
	return c.Login()
}

// reconnectDelay is 100 to 200 ms, so that the nodes of a broker that was restarted do not all come at once.
func (l *log) reconnectDelay(int) time.Duration {
	if l.generation.Load() == 0 {
		return time.Millisecond // it was never tried
	}
	return 100*time.Millisecond + rand.N(100*time.Millisecond)
}

// notConnected says why there is no connection. The client library tells no handler of a server that refuses the login, or of a
// failed TLS handshake, so the keeper asks it too.
func (l *log) notConnected(err error) {
	if err != nil && !errors.Is(err, errFirst) {
		l.setProblem(fmt.Sprint("not connected: ", err))
	}
}

// asyncError gets what the client library has no other way to say.
func (l *log) asyncError(err error) {
	switch {
	case errors.Is(err, natsgo.ErrSlowConsumer):
		// The dialer prevents it. Should it happen, then messages are lost.
		l.broke("overflow")
	case errors.Is(err, natsgo.ErrPermissionViolation) && strings.Contains(err.Error(), leaderElected):
		// The audit finds what this would have told, only later.
		l.logger().Info("the broker's account may not learn of new leaders", zap.Error(err))
	case errors.Is(err, natsgo.ErrPermissionViolation):
		l.denied(err)
	case errors.Is(err, natsgo.ErrAuthorization), errors.Is(err, natsgo.ErrAuthExpired), errors.Is(err, natsgo.ErrAuthRevoked),
		errors.Is(err, natsgo.ErrAccountAuthExpired):
		// While it connects again, ReconnectErrHandler is not told of these (doReconnect in nats.go 1.55).
		l.setProblem(fmt.Sprint("cannot connect: ", err))
		if l.complaints.Fresh(err.Error(), time.Now()) {
			l.logger().Error("the broker refuses the login", zap.Error(err))
		}
	case l.complaints.Fresh(err.Error(), time.Now()):
		l.logger().Warn("connection to the broker", zap.Error(err))
	}
}

// dialer counts connections, and has their reader wait when the client library would drop messages.
type dialer struct {
	l      *log
	dialer net.Dialer
	first  int // how many attempts fail at once, so that natsgo.Connect returns
}

// errFirst is the error of attempts that are not made, so that Connect returns. It is not shown to people.
var errFirst = errors.New("not tried yet")

// Dial implements natsgo.CustomDialer. The library dials one server at a time, so first needs no lock.
func (d *dialer) Dial(network, address string) (net.Conn, error) {
	if d.first > 0 {
		d.first--
		return nil, errFirst
	}
	d.l.requests.lose()
	conn, err := d.dialer.Dial(network, address)
	// A message that comes through this connection is taken from l.raw after this, so who takes it sees that the connection is
	// another. The handlers of the client library run later than that, in goroutines of their own.
	d.l.generation.Add(1)
	if err != nil {
		return nil, err
	}
	return &throttled{Conn: conn, raw: d.l.raw, closed: &d.l.closed}, nil
}

// throttled is a connection whose reader waits while the channel of all subscriptions may become full. The client library
// does not wait: it drops. It reads at most 32 KiB, which is at most 2340 messages, the shortest being "MSG a 1 0".
type throttled struct {
	net.Conn
	raw    chan *natsgo.Msg
	closed *atomic.Bool
}

// Read waits, which makes the server wait too. A server cuts a client that it waits for too long, and then the log catches
// up.
func (t *throttled) Read(b []byte) (int, error) {
	for len(t.raw) > rawRoom/2 && !t.closed.Load() {
		time.Sleep(50 * time.Microsecond) // the goroutine that empties it never waits, it only was not scheduled
	}
	return t.Conn.Read(b)
}
