package redis

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	_ "github.com/caddy-broadcast/caddy-broadcast" // so that `xcaddy build --with` of this package gives a Caddy that broadcasts
	"github.com/caddy-broadcast/caddy-broadcast/broker"
	"github.com/caddy-broadcast/caddy-broadcast/internal/brokermodule"
)

func init() {
	caddy.RegisterModule(Broker{})
}

// Broker shares messages with other Caddy processes through a server of Redis or Valkey. All processes with the same `prefix` and
// the same database of the same server have the same messages. A message is acknowledged to its publisher when the server has it.
// Whether it survives a restart or a failover of the server depends on the server: see `durable` and `replicas`.
//
// Text options may have placeholders such as `{env.REDIS_PASSWORD}` or `{file./run/secrets/redis}`. Use them for secrets,
// because Caddy's admin API shows the configuration as it is written. Placeholders in `user`, `password` and the URL's login are
// expanded for each connection, so that a secret in a file may change; others are expanded when the configuration is loaded. A
// reload with the same options keeps the connection.
type Broker struct {
	// Where the server is. `rediss` instead of `redis` encrypts the connection.
	//
	//   - `redis://user:password@host:6379/0`: one server, and the number of its database. User, password, port (`6379`) and
	//     number (`0`) may be left out.
	//   - `unix:///run/redis/redis.sock?db=0`, or `redis+unix`: the same over a unix socket.
	//   - `redis+sentinel://s1:26379,s2:26379,s3:26379/mymaster/0`: the master that these Sentinels know by this name. A login
	//     is that of the master.
	//   - `redis+cluster://n1:6379,n2:6379`: a Redis Cluster. All messages are on one of its masters, so it is not faster than a
	//     single server. Use it if you have one already.
	//
	// A user or a password has to be percent-encoded, except for placeholders in it.
	URL string `json:"url,omitempty"`

	// What all keys and channels of the log in Redis begin with: `{bc:0}`. Another prefix is another log, for example of another
	// application in the same database. Letters, digits, `_` and `-`, at most 64. Default: `bc`.
	Prefix string `json:"prefix,omitempty"`

	// How many replicas of the server must have a message before it is acknowledged. A message then survives a failover,
	// unless a replica that does not have it is promoted; with one replica and `1` that cannot happen. If fewer replicas are
	// connected, publishers get a 504. Default: `0`, which waits for none: a failover may then lose the last messages.
	// Maximum: `5`.
	Replicas int `json:"replicas,omitempty"`

	// Whether the server is configured to lose nothing that it has acknowledged when it is restarted, with `appendonly yes`
	// and `appendfsync always`. Then clients resume after a restart. Without this option they get a gap, because Caddy cannot
	// know whether the last messages are still there. Set it only if it is true: otherwise clients miss messages without a
	// gap. It is for one server: it cannot be used with Sentinels, a Redis Cluster, or `replicas`, because a replica that takes
	// over may lack messages. Default: `false`.
	Durable bool `json:"durable,omitempty"`

	// The name of an ACL user, which needs a `password`. It must not be set if the URL has a login. Default: Redis' own user
	// `default`.
	User string `json:"user,omitempty"`

	// The password of `user`. Without `user` it is that of the user `default`, which is `requirepass` in the server's
	// configuration. Default: none.
	Password string `json:"password,omitempty"`

	// The name of an ACL user of the Sentinels, which needs a `sentinel_password`. Default: their user `default`.
	SentinelUser string `json:"sentinel_user,omitempty"`

	// The password for the Sentinels. Default: none.
	SentinelPassword string `json:"sentinel_password,omitempty"`

	// Encrypts the connections, also those to Sentinels, and sets which certificates are trusted. Default: encrypted if the
	// URL begins with `rediss`.
	TLS *brokermodule.TLS `json:"tls,omitempty"`

	// How long a publisher waits for the server's acknowledgement. Then it gets a 504, because the message may or may not have
	// been published. Default: `5s`. Minimum: `100ms`. Maximum: `1m`.
	PublishTimeout caddy.Duration `json:"publish_timeout,omitempty"`

	config Config
	inURL  bool // the URL has a login
}

// maxReplicas is there to find typing errors: nobody needs more, which would only make publishing slow. The defaults are in
// Config.withDefaults.
const maxReplicas = 5

// CaddyModule returns the Caddy module information.
func (Broker) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "broadcast.brokers.redis", New: func() caddy.Module { return new(Broker) }}
}

// Provision expands placeholders, parses the URL and reads the files of TLS.
func (b *Broker) Provision(caddy.Context) (err error) {
	if b.URL == "" {
		return errors.New("no url is given, such as redis://127.0.0.1:6379")
	}
	var x brokermodule.Expansion
	c := Config{
		Prefix: x.Expand("prefix", b.Prefix), Replicas: b.Replicas, Durable: b.Durable,
		SentinelUser:     x.Expand("sentinel_user", b.SentinelUser),
		SentinelPassword: x.Expand("sentinel_password", b.SentinelPassword),
		PublishTimeout:   time.Duration(b.PublishTimeout),
		Logger:           func() *zap.Logger { return caddy.Log().Named("broadcast.brokers.redis") },
	}
	at, err := b.address(&x)
	if err = cmp.Or(x.Err, err); err != nil {
		return err
	}
	c.Servers, c.Master, c.Cluster, c.DB = at.servers, at.master, at.cluster, at.db
	b.inURL = at.login != login{}
	first := b.login(at, &x)
	c.User, c.Password = first.user, first.password
	renewed := brokermodule.Renewed(first, func(x *brokermodule.Expansion) login {
		at, _ := b.address(x)
		return b.login(at, x)
	})
	c.Login = func() (string, string) {
		l := renewed()
		return l.user, l.password
	}
	encrypted := b.TLS
	if encrypted == nil && at.encrypted {
		encrypted = new(brokermodule.TLS)
	}
	if encrypted != nil {
		if c.TLS, err = encrypted.Config(&x); err != nil {
			return fmt.Errorf("tls: %w", err)
		}
	}
	b.config = c.withDefaults()
	return x.Err
}

// login is how to log in.
type login struct{ user, password string }

// login returns that of the URL, or that of the options.
func (b *Broker) login(at address, x *brokermodule.Expansion) login {
	if at.login != (login{}) {
		return at.login
	}
	return login{x.Expand("user", b.User), x.Expand("password", b.Password)}
}

// address expands and parses the URL. Its login is expanded apart from the rest, so that a secret may have any characters.
func (b *Broker) address(x *brokermodule.Expansion) (address, error) {
	text, user, password := brokermodule.SplitLogin(b.URL)
	at, err := parseURL(x.Expand("url", text))
	if err == nil && user+password != "" {
		at.login = login{x.Expand("url", user), x.Expand("url", password)}
	}
	if err == nil && at.login.user != "" && at.login.password == "" && x.Err == nil {
		err = errors.New("has a user without a password; a password alone is :password@")
	}
	if err != nil {
		return at, fmt.Errorf("url: it %w", err)
	}
	return at, nil
}

// Validate checks the options. Errors show no secret.
func (b *Broker) Validate() error {
	c := &b.config
	switch {
	case c.Replicas < 0 || c.Replicas > maxReplicas:
		return fmt.Errorf("replicas is %d, must be 0 to %d", c.Replicas, maxReplicas)
	case b.inURL && b.User+b.Password != "":
		return errors.New("the url has a login, and so have the options user and password")
	case c.User != "" && c.Password == "":
		return errors.New("user needs a password")
	case c.SentinelUser != "" && c.SentinelPassword == "":
		return errors.New("sentinel_user needs a sentinel_password")
	case c.SentinelPassword != "" && c.Master == "":
		return errors.New("sentinel_password is given, but the url is not of Sentinels (redis+sentinel)")
	case c.TLS != nil && c.Servers[0][0] == '/':
		return errors.New("tls is given, but the url is of a unix socket, which is not encrypted")
	}
	return cmp.Or(brokermodule.CheckName("prefix", c.Prefix), brokermodule.CheckPublishTimeout(b.PublishTimeout), b.validateDurable())
}

// validateDurable refuses durable where the server that keeps everything can be replaced by one that does not. Clients would then
// get no gap for what is lost.
func (b *Broker) validateDurable() error {
	const why = "durable says that nothing acknowledged is ever lost, and a replica that takes over may lack the last messages: "
	switch c := &b.config; {
	case !c.Durable:
		return nil
	case c.Master != "":
		return errors.New(why + "it cannot be used with Sentinels")
	case c.Cluster:
		return errors.New(why + "it cannot be used with a Redis Cluster")
	case c.Replicas > 0:
		return errors.New(why + "it cannot be used with the option replicas")
	}
	return nil
}

// Dial connects to the server. It implements broker.Broker.
func (b *Broker) Dial(sink broker.Sink, o broker.Options) (broker.Log, error) {
	c := b.config
	c.Name = o.Name
	return Dial(c, sink, o)
}

// Interface guards
var (
	_ broker.Broker     = (*Broker)(nil)
	_ caddy.Provisioner = (*Broker)(nil)
	_ caddy.Validator   = (*Broker)(nil)
)
