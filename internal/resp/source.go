package resp

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"time"

	"github.com/redis/rueidis"
	"go.uber.org/zap"
)

const (
	// pingInterval is how long a Redis may be silent before it is asked whether it lives, and answerTimeout how long it may
	// take to say so, and to accept a connection.
	pingInterval  = 30 * time.Second
	answerTimeout = 10 * time.Second

	// Between attempts to connect. The first comes soon, because a restart takes a second.
	minRetry = time.Second
	maxRetry = time.Minute
)

// Source is a real Redis, from which is read what others publish there. What they publish while there is no connection is lost:
// Redis keeps nothing for subscribers that are away.
type Source struct {
	// Address is host:port, or the path of a unix socket.
	Address string

	// Login returns the user and the password, each of which may be empty. It is called for each connection, because a
	// password may change. Nil is nobody.
	Login func() (user, password string)

	// TLS is nil for a connection that is not encrypted.
	TLS *tls.Config

	// Channels are names, and Patterns are as PSUBSCRIBE has them. A message that several of them match comes several times.
	Channels, Patterns []string

	// Message is called for each message, one at a time, in their order. While it blocks, Redis keeps what follows, but no
	// more than its client-output-buffer-limit, and for no longer than pingInterval and answerTimeout: then the connection is
	// taken for dead.
	Message func(channel string, payload []byte)

	// Log must not be nil.
	Log *zap.Logger

	// Connected is told when everything is subscribed to, and when that has ended. It may be nil.
	Connected func(bool)
}

// errEnded is why a connection ended that was closed without a reason.
var errEnded = errors.New("the connection was closed")

// Run subscribes, and does so again whenever the connection is lost, until ctx is done. Message is not called afterwards, but a call
// that blocks may still be running.
func (s *Source) Run(ctx context.Context) {
	log := s.Log.With(zap.String("address", s.Address))
	delay, failed := minRetry, false
	for {
		began := false
		err := s.session(ctx, func() {
			began, delay = true, minRetry
			log.Info("subscribed to Redis")
			s.tell(true)
		})
		if began {
			s.tell(false)
		}
		if ctx.Err() != nil {
			return
		}
		// Once for an outage, however many attempts it takes.
		if began || !failed {
			log.Warn("the connection to Redis is lost, and with it what is published meanwhile; connecting again", zap.Error(err))
		}
		failed = true
		timer := time.NewTimer(delay)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		delay = min(2*delay, maxRetry)
	}
}

func (s *Source) tell(connected bool) {
	if s.Connected != nil {
		s.Connected(connected)
	}
}

// session is one connection. It calls began when everything is subscribed to.
func (s *Source) session(ctx context.Context, began func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	client, err := rueidis.NewClient(s.options(ctx))
	if err != nil {
		return err
	}
	conn, release := client.Dedicate()
	defer func() {
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			release()
			client.Close()
		}()
		select {
		case <-ended: // it waits for Message, which may block
		case <-ctx.Done(): // and a reload must not
		}
	}()
	lost := conn.SetPubSubHooks(rueidis.PubSubHooks{OnMessage: func(m rueidis.PubSubMessage) {
		if ctx.Err() == nil {
			s.Message(m.Channel, []byte(m.Message))
		}
	}})
	if len(s.Channels) > 0 {
		if err := conn.Do(ctx, conn.B().Subscribe().Channel(s.Channels...).Build()).Error(); err != nil {
			return err
		}
	}
	if len(s.Patterns) > 0 {
		if err := conn.Do(ctx, conn.B().Psubscribe().Pattern(s.Patterns...).Build()).Error(); err != nil {
			return err
		}
	}
	began()
	select {
	case err := <-lost:
		if err == nil {
			err = errEnded
		}
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// options returns how to connect. The library would connect again by itself, and its users would not know that messages were
// lost: so it may dial only as long as session needs it to, and a lost connection is an error.
func (s *Source) options(ctx context.Context) rueidis.ClientOption {
	return rueidis.ClientOption{
		InitAddress: []string{s.Address}, ForceSingleClient: true, PipelineMultiplex: -1, DisableRetry: true, DisableCache: true,
		ClientSetInfo: rueidis.DisableClientSetInfo, // it would need one more permission
		ClientName:    "caddy-broadcast", TLSConfig: s.TLS,
		AuthCredentialsFn: func(rueidis.AuthCredentialsContext) (c rueidis.AuthCredentials, _ error) {
			if s.Login != nil {
				c.Username, c.Password = s.Login()
			}
			return c, nil
		},
		Dialer: net.Dialer{Timeout: answerTimeout, KeepAlive: pingInterval}, ConnWriteTimeout: answerTimeout,
		DialCtxFn: func(_ context.Context, address string, d *net.Dialer, config *tls.Config) (net.Conn, error) {
			network := "tcp"
			if strings.HasPrefix(address, "/") {
				network = "unix"
			}
			dial := d.DialContext
			if config != nil {
				dial = (&tls.Dialer{NetDialer: d, Config: config}).DialContext
			}
			nc, err := dial(ctx, network, address)
			if err == nil {
				context.AfterFunc(ctx, func() { nc.Close() }) // or a Redis that does not answer would be waited for
			}
			return nc, err
		},
	}
}
