package nats

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	natsgo "github.com/nats-io/nats.go"
	"go.uber.org/zap"

	_ "github.com/caddy-broadcast/caddy-broadcast" // so that `xcaddy build --with` of this package gives a Caddy that broadcasts
	"github.com/caddy-broadcast/caddy-broadcast/broker"
	"github.com/caddy-broadcast/caddy-broadcast/internal/brokermodule"
)

func init() {
	caddy.RegisterModule(Broker{})
}

// Broker shares messages with other Caddy processes through a stream of NATS JetStream. All processes with the same `stream` and
// `prefix` on the same cluster have the same messages. A message is acknowledged to its publisher when the stream has
// stored it.
//
// Text options may have placeholders such as `{env.NATS_TOKEN}` or `{file./run/secrets/nats}`. Use them for secrets, because
// Caddy's admin API shows the configuration as it is written. Placeholders in `user`, `password` and `token` are expanded for
// each connection, so that a secret in a file may change; others are expanded when the configuration is loaded. A reload with
// the same options keeps the connection.
type Broker struct {
	// URLs of the servers: `nats://n1.example.com:4222`, `tls://`, `ws://` or `wss://`. Name several of a cluster, so that
	// this process can start while one of them is away; it learns the rest from them. All must use the same way to log in.
	Servers []string `json:"servers,omitempty"`

	// The name of the stream. Another name is another log, for example of another application on the same servers. Then
	// `prefix` must differ too. Letters, digits, `_` and `-`, at most 64. Default: `BROADCAST`.
	Stream string `json:"stream,omitempty"`

	// The first token of the stream's subjects. A channel `news` is stored as `bc.s.news` and sent to the processes as
	// `bc.l.news`. Only these processes may publish on both. Letters, digits, `_` and `-`, at most 64. Default: `bc`.
	Prefix string `json:"prefix,omitempty"`

	// How many servers keep the stream. With 3, no acknowledged message is lost if one server is lost. With 1, only one server
	// has the messages, and publishing is about twice as fast. Default: `3`; a single server needs `1`. Maximum: `5`.
	Replicas int `json:"replicas,omitempty"`

	// Where the servers keep the stream: `file`, or `memory` if messages may be lost when all servers restart. Default:
	// `file`.
	Storage string `json:"storage,omitempty"`

	// How large the stream may become, in bytes. Beyond it the oldest messages are removed, and clients that resume further
	// back are notified of a gap. Default: `1073741824` (1 GiB). Minimum: `1048576` (1 MiB).
	MaxBytes int64 `json:"max_bytes,omitempty"`

	// A file with a JWT and its seed, as `nsc` writes it. It is read again at each reconnect. At most one of `credentials`,
	// `user`, `token` and `nkey` may be set, and none if the URLs have a login. Default: none.
	Credentials string `json:"credentials,omitempty"`

	// A user's name, with `password`. Default: none.
	User string `json:"user,omitempty"`

	// The password of `user`. Default: none.
	Password string `json:"password,omitempty"`

	// A token. Default: none.
	Token string `json:"token,omitempty"`

	// A file with the seed of a user's NKey. It is read again at each reconnect. Default: none.
	NKey string `json:"nkey,omitempty"`

	// Encrypts the connection, and sets which certificates are trusted. Servers that require TLS get it without this option.
	// Default: encrypted if the URLs begin with `tls` or `wss`.
	TLS *brokermodule.TLS `json:"tls,omitempty"`

	// How long a publisher waits for the acknowledgement of the stream. Then it gets a 504, because the message may or may not
	// have been published. An election of another leader takes up to ten seconds: choose a longer time to wait for its end, or
	// a shorter one so that publishers learn of trouble sooner. Default: `5s`. Minimum: `100ms`. Maximum: `1m`.
	PublishTimeout caddy.Duration `json:"publish_timeout,omitempty"`

	// Whether to create the stream, and to change it if it differs from these options. Turn it off where administrators
	// manage streams. Then a stream that differs in a way that matters is an error, which names the field. Default: `true`.
	Manage *bool `json:"manage,omitempty"`

	config Config
}

// Limits of the options. Their defaults are in Config.withDefaults.
const (
	minMaxBytes = 1 << 20
	maxReplicas = 5 // as many as JetStream can have
)

// CaddyModule returns the Caddy module information.
func (Broker) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "broadcast.brokers.nats", New: func() caddy.Module { return new(Broker) }}
}

// Provision expands placeholders and reads the files of TLS.
func (b *Broker) Provision(caddy.Context) (err error) {
	var x brokermodule.Expansion
	login := b.login(&x)
	c := Config{
		Stream: x.Expand("stream", b.Stream), Prefix: x.Expand("prefix", b.Prefix),
		Replicas: b.Replicas, Memory: b.Storage == "memory", MaxBytes: b.MaxBytes, Manage: b.Manage == nil || *b.Manage,
		User: login.user, Password: login.password, Token: login.token,
		Credentials: x.Expand("credentials", b.Credentials), NKey: x.Expand("nkey", b.NKey),
		PublishTimeout: time.Duration(b.PublishTimeout),
		Logger:         func() *zap.Logger { return caddy.Log().Named("broadcast.brokers.nats") },
	}
	for _, server := range b.Servers {
		c.Servers = append(c.Servers, x.Expand("servers", server))
	}
	renewed := brokermodule.Renewed(login, b.login)
	c.Login = func() (string, string, string) {
		l := renewed()
		return l.user, l.password, l.token
	}
	c = c.withDefaults()
	if b.TLS != nil {
		if c.TLS, err = b.TLS.Config(&x); err != nil {
			return fmt.Errorf("tls: %w", err)
		}
	}
	if x.Err != nil {
		return x.Err
	}
	b.config = c
	return nil
}

// login is how to log in.
type login struct{ user, password, token string }

func (b *Broker) login(x *brokermodule.Expansion) login {
	return login{x.Expand("user", b.User), x.Expand("password", b.Password), x.Expand("token", b.Token)}
}

// Validate checks the options. Errors show no secret.
func (b *Broker) Validate() error {
	c := &b.config
	switch {
	case len(c.Servers) == 0:
		return errors.New("no server is given, such as nats://127.0.0.1:4222")
	case c.Replicas < 0 || c.Replicas > maxReplicas:
		return fmt.Errorf("replicas is %d, must be 1 to %d", c.Replicas, maxReplicas)
	case !slices.Contains([]string{"", "file", "memory"}, b.Storage):
		return fmt.Errorf("storage is %q, must be file or memory", b.Storage)
	case b.MaxBytes != 0 && b.MaxBytes < minMaxBytes:
		return fmt.Errorf("max_bytes is %d, must be at least %d", b.MaxBytes, minMaxBytes)
	}
	if err := cmp.Or(brokermodule.CheckName("stream", c.Stream), brokermodule.CheckName("prefix", c.Prefix),
		brokermodule.CheckPublishTimeout(b.PublishTimeout), b.validateLogin()); err != nil {
		return err
	}
	schemes := make(map[bool]bool) // whether a URL is of a WebSocket
	for i, server := range c.Servers {
		u, err := parseServer(server)
		if err != nil {
			return fmt.Errorf("servers: URL %d of %d %w", i+1, len(c.Servers), err)
		}
		if u.User != nil && len(b.logins()) > 0 {
			return fmt.Errorf("servers: URL %d of %d has a login, and so has the option %s", i+1, len(c.Servers), b.logins()[0])
		}
		schemes[u.Scheme == "ws" || u.Scheme == "wss"] = true
	}
	if len(schemes) > 1 {
		return errors.New("servers: URLs of WebSockets (ws, wss) cannot be mixed with others") // nats.go's ErrMixingWebsocketSchemes
	}
	return nil
}

// parseServer parses a server's URL. An error does not quote it, because it may have a password.
func parseServer(text string) (*url.URL, error) {
	if !strings.Contains(text, "://") {
		text = "nats://" + text
	}
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Hostname() == "":
		return nil, errors.New("is not valid: it must be such as nats://host:4222; a user and a password in it need percent-encoding")
	case !slices.Contains([]string{"nats", "tls", "ws", "wss"}, u.Scheme):
		return nil, fmt.Errorf("has the scheme %q, must be nats, tls, ws or wss", u.Scheme)
	case emptyPassword(u):
		return nil, errors.New("has a user without a password")
	case u.RawQuery != "" || u.Fragment != "" || u.Path != "" && u.Scheme != "ws" && u.Scheme != "wss":
		return nil, errors.New("has more than a login, a host and a port")
	}
	return u, nil
}

// emptyPassword reports whether a URL has a colon after its user, and nothing after that.
func emptyPassword(u *url.URL) bool {
	password, ok := u.User.Password()
	return ok && password == ""
}

// logins returns the names of the options to log in that are set.
func (b *Broker) logins() (names []string) {
	for _, login := range []struct{ name, value string }{
		{"credentials", b.Credentials}, {"user", b.User + b.Password}, {"token", b.Token}, {"nkey", b.NKey},
	} {
		if login.value != "" {
			names = append(names, login.name)
		}
	}
	return names
}

// validateLogin checks the login.
func (b *Broker) validateLogin() error {
	c := &b.config
	if logins := b.logins(); len(logins) > 1 {
		return fmt.Errorf("%s are set: there can be one login", strings.Join(logins, " and "))
	}
	if (c.User == "") != (c.Password == "") {
		return errors.New("user needs a password, and password a user")
	}
	for _, o := range []struct{ name, file string }{{"credentials", c.Credentials}, {"nkey", c.NKey}} {
		if o.file == "" {
			continue
		}
		if _, err := os.ReadFile(o.file); err != nil {
			return fmt.Errorf("%s: %w", o.name, err)
		}
	}
	if c.NKey != "" {
		if _, err := natsgo.NkeyOptionFromSeed(c.NKey); err != nil {
			return fmt.Errorf("nkey: %w", err)
		}
	}
	return nil
}

// Dial connects to the servers. It implements broker.Broker.
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
