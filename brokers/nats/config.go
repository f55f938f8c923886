package nats

import (
	"crypto/tls"
	"time"

	"go.uber.org/zap"
)

// Config is the options of a broker as the connection uses them: with defaults, and with placeholders replaced. It has
// secrets, so it must not be logged.
type Config struct {
	Servers []string // URLs, which may have a user and a password

	// The stream, and the first token of its subjects. Both together name a log.
	Stream, Prefix string

	Replicas int    // of the stream; 0 is 3 where the cluster has as many servers, and an error elsewhere
	Memory   bool   // keeps the stream in memory, and not in files
	MaxBytes int64  // of the stream; the oldest messages go first
	Manage   bool   // creates the stream, or changes what differs; otherwise it is only checked
	Name     string // of this node, for people who look at the server's connections

	// How to log in. At most one of them is set.
	User, Password string
	Token          string
	Login          func() (user, password, token string) // asked for each connection; nil: they stay the same
	Credentials    string                                // a file
	NKey           string                                // a file with a seed

	TLS *tls.Config // nil uses what the URLs say

	PublishTimeout time.Duration // how long to wait for the ack of a message

	// Logger is called for each message that is logged, since the log outlives the configuration whose logger it is. nil
	// logs nothing.
	Logger func() *zap.Logger
}

// withDefaults returns the configuration with the documented defaults of options that are not set.
func (c Config) withDefaults() Config {
	if c.Stream == "" {
		c.Stream = "BROADCAST"
	}
	if c.Prefix == "" {
		c.Prefix = "bc"
	}
	if c.PublishTimeout <= 0 {
		c.PublishTimeout = 5 * time.Second
	}
	if c.MaxBytes <= 0 {
		c.MaxBytes = 1 << 30
	}
	if c.Logger == nil {
		none := zap.NewNop()
		c.Logger = func() *zap.Logger { return none }
	}
	return c
}
