package backend

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/redis/rueidis"

	"github.com/caddy-broadcast/caddy-broadcast/internal/brokermodule"
	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/pattern"
	"github.com/caddy-broadcast/caddy-broadcast/internal/resp"
	"github.com/caddy-broadcast/caddy-broadcast/internal/socketio/packet"
	"github.com/caddy-broadcast/caddy-broadcast/internal/socketio/queue"
)

// Redis configures where backends publish with the Redis protocol: to this Caddy, to a Redis server that Caddy subscribes to, or
// to both. Neither is on by default.
type Redis struct {
	// Caddy speaks the Redis protocol itself, so that a backend needs no Redis server. Give its address to Flask-SocketIO, as
	// `message_queue`, or to any Redis client. Default: off.
	Listen *Listen `json:"listen,omitempty"`

	// Caddy subscribes to a Redis server that backends publish to. Use it if there is one already that your backend has to keep
	// using. It cannot be combined with a `broker`, because each node would publish each message again. Default: off.
	Connect *Connect `json:"connect,omitempty"`
}

// Listen configures Caddy as a server of the Redis protocol. If the address stays the same when the configuration is reloaded,
// it and its connections stay open, and the new options apply to them.
type Listen struct {
	// The network address, such as `127.0.0.1:6379`, or `unix//run/caddy/redis.sock|0660`. An address that other
	// machines can reach needs a `password`, because anyone who can connect can publish anything. Default: `127.0.0.1:6379`.
	Address string `json:"address,omitempty"`

	// A name that clients may log in with, besides Redis's own `default`. It needs a `password`. Default: none.
	User string `json:"user,omitempty"`

	// The password that clients log in with. Use a placeholder, such as `{env.QUEUE_PASSWORD}` or
	// `{file./run/secrets/queue}`, because Caddy's admin API shows the configuration as it is written. It is expanded
	// when the configuration is loaded. Clients that have logged in stay logged in when it changes. Default: none.
	Password string `json:"password,omitempty"`

	Queue
}

// Connect configures the Redis server that Caddy subscribes to. What is published there while the connection is lost is lost too,
// because Redis keeps nothing for subscribers.
type Connect struct {
	// Where it is: `redis://user:password@host:6379`, `rediss://` for TLS, or `unix:///run/redis.sock`. A user or a password must
	// be percent-encoded, except for placeholders in it. The number of a database has no effect, since all of them share their channels.
	URL string `json:"url,omitempty"`

	// The name of an ACL user, if the URL has none. It needs a `password`, and the permissions `+subscribe`, `+psubscribe`
	// and `allchannels`. Default: Redis's own `default`.
	User string `json:"user,omitempty"`

	// Its password. Use a placeholder, such as `{env.REDIS_PASSWORD}` or `{file./run/secrets/redis}`. It is expanded for each
	// connection. Default: none.
	Password string `json:"password,omitempty"`

	Queue
}

// Queue selects what Caddy accepts from backends, and the channels that it goes to.
type Queue struct {
	// The channels of python-socketio: `socketio` is its own default, and `flask-socketio` that of Flask-SocketIO. Set it if
	// the backend has another one (`channel=`). Default: both.
	Channels []string `json:"channels,omitempty"`

	// The prefix of the channels of `@socket.io/redis-emitter`, which is its option `key`. Default: `socket.io`.
	Key string `json:"key,omitempty"`

	// The channel of the namespace `/`. Set it to the first channel of the route for Socket.IO, if that route names its channels.
	// Default: `default`, the channel of a route that names none.
	Main string `json:"main,omitempty"`

	// Whether to accept pickles, which python-socketio before 5.14 sends. They are read as data: nothing in them is run, and a
	// pickle that contains objects is dropped. Turn it off if your backends send only JSON. Default: `true`.
	Pickle *bool `json:"pickle,omitempty"`

	// Channels that any Redis client may publish to. What it publishes goes to the channel of the same name in the hub, as text,
	// or as binary data if it is not UTF-8. `*` matches any text: `room:*`. Default: none.
	Publish []string `json:"publish,omitempty"`
}

const (
	defaultPort    = 6379
	defaultAddress = "127.0.0.1:6379"

	// maxMessage is the size in bytes of the largest message, as that of the admin API. The server accepts twice as much, because
	// a message may be in base64, or escaped.
	maxMessage = 1 << 20
)

// Settings are the options of a configuration in the form in which they are used. They do not change.
type Settings struct {
	listen  *listenSettings
	connect *connectSettings
}

type listenSettings struct {
	address        caddy.NetworkAddress
	user, password string
	queue          *queueSettings
}

type connectSettings struct {
	option rueidis.ClientOption // only the address and TLS
	login  func() (user, password string)
	key    string // of what a connection depends on
	queue  *queueSettings
}

// queueSettings are those of a Queue.
type queueSettings struct {
	decoder    queue.Decoder
	main       string
	publish    pattern.List
	namespaces pattern.List
}

// SetNamespaces sets the namespaces besides the main one, as patterns. It must be called before Use.
func (s *Settings) SetNamespaces(names []string) {
	patterns := pattern.ParseList(names)
	if s.listen != nil {
		s.listen.queue.namespaces = patterns
	}
	if s.connect != nil {
		s.connect.queue.namespaces = patterns
	}
}

// Settings expands the placeholders of the options, and checks them. It can be called on nil, if the option is not given.
func (r *Redis) Settings() (*Settings, error) {
	s := new(Settings)
	if r == nil {
		return s, nil
	}
	if r.Listen != nil {
		var err error
		if s.listen, err = r.Listen.settings(); err != nil {
			return nil, fmt.Errorf("redis listen: %w", err)
		}
	}
	if r.Connect != nil {
		var err error
		if s.connect, err = r.Connect.settings(); err != nil {
			return nil, fmt.Errorf("redis connect: %w", err)
		}
	}
	if s.listen != nil && s.connect != nil && s.listen.isAt(s.connect.option.InitAddress[0]) {
		return nil, fmt.Errorf("redis connect: %s is where redis listen listens: only one of the two is needed", s.connect.option.InitAddress[0])
	}
	return s, nil
}

// Validate checks what can be checked before placeholders are expanded.
func (r *Redis) Validate(broker bool) error {
	switch {
	case r == nil:
		return nil
	case r.Connect != nil && broker:
		return errors.New("redis connect cannot be used with a broker: each node would publish each message again; " +
			"use redis listen, and have backends publish to one node")
	case r.Listen != nil && hasPlaceholder(r.Listen.Address, r.Listen.User, r.Listen.Password),
		r.Connect != nil && hasPlaceholder(r.Connect.URL, r.Connect.User, r.Connect.Password):
		return r.validateQueues() // Provision checks the rest
	}
	_, err := r.Settings()
	return err
}

// validateQueues checks what has no placeholders.
func (r *Redis) validateQueues() (err error) {
	if r.Listen != nil {
		if _, err = r.Listen.Queue.settings(); err != nil {
			return fmt.Errorf("redis listen: %w", err)
		}
	}
	if r.Connect != nil {
		if _, err = r.Connect.Queue.settings(); err != nil {
			return fmt.Errorf("redis connect: %w", err)
		}
	}
	return nil
}

func hasPlaceholder(texts ...string) bool {
	return strings.Contains(strings.Join(texts, ""), "{")
}

func (l *Listen) settings() (s *listenSettings, err error) {
	var x brokermodule.Expansion
	s = &listenSettings{user: x.Expand("user", l.User), password: x.Expand("password", l.Password)}
	address := cmp.Or(x.Expand("address", l.Address), defaultAddress)
	if x.Err != nil {
		return nil, x.Err
	}
	if s.address, err = caddy.ParseNetworkAddressWithDefaults(address, "tcp", defaultPort); err != nil {
		return nil, err
	}
	switch {
	case s.address.PortRangeSize() > 1:
		return nil, fmt.Errorf("%s has more than one port", address)
	case !s.address.IsUnixNetwork() && !s.address.IsFdNetwork() && !strings.HasPrefix(s.address.Network, "tcp"):
		return nil, fmt.Errorf("%s: the network is %s, must be tcp or unix", address, s.address.Network)
	case s.password == "" && s.user != "":
		return nil, errors.New("a user needs a password")
	case s.password == "" && resp.NeedsPassword(s.address.Network, s.address.Host):
		return nil, fmt.Errorf("%s can be reached from other machines, where whoever connects may publish anything: "+
			"set a password, or listen on 127.0.0.1 or a unix socket", address)
	}
	s.queue, err = l.Queue.settings()
	return s, err
}

// isAt reports whether a client that connects to an address comes to this server. Names are not looked up.
func (s *listenSettings) isAt(address string) bool {
	if s.address.IsUnixNetwork() {
		return socketFile(s.address) == address
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil || port != fmt.Sprint(s.address.StartPort) {
		return false
	}
	local := !resp.NeedsPassword("tcp", host)
	ip := net.ParseIP(s.address.Host)
	anywhere := s.address.Host == "" || ip != nil && ip.IsUnspecified()
	return host == s.address.Host || local && (anywhere || !resp.NeedsPassword("tcp", s.address.Host))
}

func (c *Connect) settings() (s *connectSettings, err error) {
	var x brokermodule.Expansion
	text, user, password := brokermodule.SplitLogin(c.URL)
	inURL := user+password != ""
	if !inURL {
		user, password = c.User, c.Password
	}
	login := func(x *brokermodule.Expansion) [2]string {
		return [2]string{x.Expand("user", user), x.Expand("password", password)}
	}
	address, first := x.Expand("url", text), login(&x)
	if x.Err != nil {
		return nil, x.Err
	}
	if address == "" {
		return nil, errors.New("no url is given, such as redis://127.0.0.1:6379")
	}
	// The errors of the parsers are not shown: they quote the URL, which may have a password.
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "redis" && u.Scheme != "rediss" && u.Scheme != "unix" {
		return nil, errors.New("the url must be like redis://user:password@host:6379, rediss://host:6379 or unix:///run/redis.sock")
	}
	s = new(connectSettings)
	if s.option, err = rueidis.ParseURL(address); err != nil || len(s.option.InitAddress) != 1 {
		return nil, errors.New("the url is not that of a server")
	}
	switch {
	case inURL && c.User+c.Password != "":
		return nil, errors.New("the url has a login, and so have the options user and password")
	case user != "" && password == "":
		return nil, errors.New("a user needs a password")
	}
	renewed := brokermodule.Renewed(first, login)
	s.login = func() (string, string) {
		l := renewed()
		return l[0], l[1]
	}
	s.key = strings.Join([]string{address, user, password}, "\x00")
	if s.queue, err = c.Queue.settings(); err == nil {
		channels, patterns := s.queue.subscriptions()
		s.key += fmt.Sprint("\x00", channels, patterns)
	}
	return s, err
}

func (q *Queue) settings() (*queueSettings, error) {
	channels := q.Channels
	if len(channels) == 0 {
		channels = []string{"socketio", "flask-socketio"}
	}
	s := &queueSettings{main: cmp.Or(q.Main, hub.DefaultChannel)}
	s.decoder = queue.Decoder{
		Channels: channels, Key: cmp.Or(q.Key, "socket.io"), Pickle: q.Pickle == nil || *q.Pickle, MaxMessage: maxMessage,
	}
	for i, name := range channels {
		if err := hub.CheckName(fmt.Sprintf("channel %q", name), name); err != nil {
			return nil, err
		}
		for _, other := range channels[:i] {
			if name == other {
				return nil, fmt.Errorf("channel %q is named twice", name)
			}
		}
	}
	if err := hub.CheckName("key", s.decoder.Key); err != nil {
		return nil, err
	}
	if err := hub.CheckName("main", s.main); err != nil {
		return nil, err
	}
	if strings.HasPrefix(s.main, packet.MainNamespace) {
		return nil, fmt.Errorf("main is %q: the channel of the namespace / cannot begin with a slash, as other namespaces do", s.main)
	}
	for _, text := range q.Publish {
		if err := hub.CheckName(fmt.Sprintf("publish %q", text), text); err != nil {
			return nil, err
		}
	}
	s.publish = pattern.ParseList(q.Publish)
	return s, nil
}

// subscriptions returns what to subscribe to on a Redis server.
func (s *queueSettings) subscriptions() (channels, patterns []string) {
	channels, patterns = s.decoder.Subscriptions()
	for _, p := range s.publish {
		if len(p) == 1 {
			channels = append(channels[:len(channels):len(channels)], p[0])
			continue
		}
		escaped := make([]string, len(p))
		for i, piece := range p {
			escaped[i] = escape.Replace(piece)
		}
		patterns = append(patterns, strings.Join(escaped, "*"))
	}
	return channels, patterns
}

// escape quotes the characters that mean something in a pattern (redis, util.c, stringmatchlen).
var escape = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`, `]`, `\]`)
