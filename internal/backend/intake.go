// Package backend accepts what backends publish with the Redis protocol, and gives it to the hub: Socket.IO's emits and commands
// about clients and rooms, and plain messages. Backends publish to Caddy itself (Listen), or to a Redis server that Caddy
// subscribes to (Connect).
//
// Settings belong to a configuration. The Intake outlives configurations, as the hub does. Open opens the address that a
// configuration listens on, before it is known whether the configuration will run. Use applies the settings once it runs.
package backend

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/resp"
)

// shutdownTimeout is how long clients of an address that is closed have for the answers that they wait for.
const shutdownTimeout = 2 * time.Second

// logger returns that of the running configuration.
var logger = func() *zap.Logger { return caddy.Log().Named("broadcast.redis") } // a variable for tests

// Intake accepts what backends publish to this process.
type Intake struct {
	hub     *hub.Hub
	counts  counts
	servers *caddy.UsagePool // of *server, by address

	mu         sync.Mutex // held while the settings change
	current    *server    // that of the settings in use, or nil
	source     string     // the key of the one that runs, or empty
	stopSource func()
	closed     bool

	taker     atomic.Pointer[taker] // of what comes from the Redis of Connect
	connected atomic.Bool           // to it
}

// New returns the intake of a hub.
func New(h *hub.Hub) *Intake { return &Intake{hub: h, servers: caddy.NewUsagePool()} }

// server serves an address, for as long as any loaded configuration listens there.
type server struct {
	address  caddy.NetworkAddress
	listener net.Listener
	resp     *resp.Server
	serving  bool
}

// Open opens what settings listen on, unless it is open already. No connection is accepted before Use. The caller calls release
// when the configuration ends.
func (i *Intake) Open(s *Settings) (release func() error, err error) {
	if s.listen == nil {
		return func() error { return nil }, nil
	}
	key := s.listen.address.String()
	if err := i.checkFree(s.listen); err != nil {
		return nil, err
	}
	_, _, err = i.servers.LoadOrNew(key, func() (caddy.Destructor, error) {
		l, err := s.listen.address.Listen(context.Background(), 0, net.ListenConfig{})
		if err != nil {
			return nil, err
		}
		return &server{address: s.listen.address, listener: l.(net.Listener), resp: resp.New(s.listen.config(i))}, nil
	})
	if err != nil {
		return nil, err
	}
	return sync.OnceValue(func() error {
		_, err := i.servers.Delete(key)
		return err
	}), nil
}

// checkFree returns an error if another program listens on the address. Caddy's own listeners set SO_REUSEPORT, and replace unix
// sockets. So two Caddys would both listen, and each would get a part of what backends emit, or one all of it.
func (i *Intake) checkFree(s *listenSettings) (err error) {
	if s.address.IsFdNetwork() {
		return nil
	}
	own := false // of a configuration that runs, maybe by another name
	i.servers.Range(func(_, value any) bool {
		o := value.(*server).address
		own = o.IsUnixNetwork() == s.address.IsUnixNetwork() && o.StartPort == s.address.StartPort &&
			(!o.IsUnixNetwork() || socketFile(o) == socketFile(s.address))
		return !own
	})
	if own {
		return nil
	}
	if s.address.IsUnixNetwork() {
		nc, err := net.Dial(s.address.Network, socketFile(s.address))
		if err == nil {
			nc.Close()
			return fmt.Errorf("listen %s: %w", s.address, syscall.EADDRINUSE)
		}
		return nil // nobody is there, or a file that is left of somebody
	}
	l, err := net.Listen(s.address.Network, s.address.JoinHostPort(0))
	if err == nil {
		l.Close()
	}
	return err
}

// socketFile returns the file of a unix socket.
func socketFile(a caddy.NetworkAddress) string {
	path, _, _ := strings.Cut(a.Host, "|") // what is behind it are permissions
	return path
}

// config returns the configuration of the server.
func (s *listenSettings) config(i *Intake) resp.Config {
	return resp.Config{Publisher: &taker{i, s.queue}, User: s.user, Password: s.password, Log: logger()}
}

// Use applies the settings of a configuration that runs. Open has opened its address.
func (i *Intake) Use(s *Settings) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.closed {
		return
	}
	i.current = nil
	if s.listen != nil {
		i.listenLocked(s.listen)
	}
	i.connectLocked(s.connect)
}

// listenLocked serves connections as the settings say.
func (i *Intake) listenLocked(s *listenSettings) {
	i.servers.Range(func(key, value any) bool {
		if key == s.address.String() {
			i.current = value.(*server)
		}
		return i.current == nil
	})
	c := i.current
	if c == nil {
		return // its configuration has just ended
	}
	c.resp.Configure(s.config(i))
	if c.serving {
		return
	}
	c.serving = true
	go func() {
		if err := c.resp.Serve(c.listener); err != nil {
			logger().Error("the listener of Redis clients has failed", zap.Error(err))
		}
	}()
}

// Destruct closes the address and its connections.
func (s *server) Destruct() error {
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	s.listener.Close()
	s.resp.Shutdown(ctx) // it fails only if it had to cut connections
	return nil
}

// connectLocked subscribes to the Redis of the settings, and to no other one. An existing connection is kept if nothing that it
// depends on has changed.
func (i *Intake) connectLocked(s *connectSettings) {
	key := ""
	if s != nil {
		key = s.key
		i.taker.Store(&taker{i, s.queue})
	}
	if key == i.source {
		return
	}
	if i.stopSource != nil {
		i.stopSource()
	}
	if i.source, i.stopSource = key, nil; s == nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	channels, patterns := s.queue.subscriptions()
	source := &resp.Source{
		Address: s.option.InitAddress[0], TLS: s.option.TLSConfig, Login: s.login, Channels: channels, Patterns: patterns,
		Message:   func(channel string, payload []byte) { i.taker.Load().takeSource(channel, payload) },
		Connected: func(up bool) { i.connected.Store(up) },
		Log:       logger(),
	}
	go func() {
		defer close(done)
		source.Run(ctx)
	}()
	i.stopSource = func() { cancel(); <-done }
}

// Close ends the subscription. Servers end with the configurations that have them.
func (i *Intake) Close() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.closed = true
	i.connectLocked(nil)
}
