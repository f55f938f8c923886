package brokered

import (
	"cmp"
	"encoding/json"
	"fmt"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
)

// Sharing is the options of the app `broadcast` that say what the process shares with others.
type Sharing struct {
	// The message broker that this process shares with others, so that a client receives the same messages on any of them and
	// resumes on any of them. Set it when one machine is not enough, or must not be the only one. Without it the process is
	// on its own. While the broker cannot be reached, publishers get a 503. Default: none.
	Broker json.RawMessage `json:"broker,omitempty" caddy:"namespace=broadcast.brokers inline_key=broker"`

	// What people call this process among those that share the broker: in lists, and in what the broker shows of its
	// clients. It need not be unique. Default: the host name. Maximum: 255 bytes.
	Node string `json:"node,omitempty"`

	// How long clients stay connected while nothing comes from the broker. Then they are closed with 1013, so that they go
	// to a process that the broker reaches, and new connections get a 503 until it is back. A shorter timeout moves
	// clients sooner; a longer one spares them from reconnecting when the broker restarts, or elects another leader, which
	// can take ten seconds. Default: `30s`. Minimum: `1s`. Maximum: `1h`.
	PartitionTimeout caddy.Duration `json:"partition_timeout,omitempty"`
}

// Bounds of partition_timeout.
const (
	defaultPartitionTimeout = 30 * time.Second
	minPartitionTimeout     = time.Second
	maxPartitionTimeout     = time.Hour
)

// Silence returns PartitionTimeout, or its default.
func (s *Sharing) Silence() time.Duration {
	return cmp.Or(time.Duration(s.PartitionTimeout), defaultPartitionTimeout)
}

// Validate checks the options.
func (s *Sharing) Validate() error {
	if silence := s.Silence(); silence < minPartitionTimeout || silence > maxPartitionTimeout {
		return fmt.Errorf("partition_timeout is %s, must be 1s to 1h", silence)
	}
	if s.Node == "" {
		return nil
	}
	return hub.CheckName("the node", s.Node)
}
