package redis

import (
	"crypto/tls"
	"time"

	"go.uber.org/zap"
)

// Config is the options of a broker as the connection uses them: with defaults, and with placeholders replaced. It has
// secrets, so it must not be logged.
type Config struct {
	// Servers are addresses: host:port, or the path of a unix socket if it begins with a slash. With Master they are those
	// of Sentinels, with Cluster those of any nodes of a Redis Cluster, and otherwise there is one.
	Servers []string

	Master  string // the name by which Sentinels know the server
	Cluster bool

	User, Password                 string // of the server
	SentinelUser, SentinelPassword string
	Login                          func() (user, password string) // asked for each connection; nil: they stay the same

	DB     int
	Prefix string // of all keys and channels: it names the log
	Name   string // of this node, for people who look at the server's clients

	Replicas int  // how many replicas have to have a message before it is acknowledged
	Durable  bool // the server keeps everything that it has acknowledged, so a restart does not change the epoch

	TLS *tls.Config // nil does not encrypt

	PublishTimeout time.Duration // how long to wait for the ack of a message

	// Logger is called for each message that is logged, since the log outlives the configuration whose logger it is. nil
	// logs nothing.
	Logger func() *zap.Logger
}

// withDefaults returns the configuration with the documented defaults of options that are not set.
func (c Config) withDefaults() Config {
	if c.Prefix == "" {
		c.Prefix = "bc"
	}
	if c.PublishTimeout <= 0 {
		c.PublishTimeout = 5 * time.Second
	}
	if c.Logger == nil {
		none := zap.NewNop()
		c.Logger = func() *zap.Logger { return none }
	}
	return c
}

// login returns the user and the password for the server.
func (c *Config) login() (user, password string) {
	if c.Login == nil {
		return c.User, c.Password
	}
	return c.Login()
}
