package nats

import (
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
	"github.com/caddy-broadcast/caddy-broadcast/broker/brokertest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/natstest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/servertest"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"
)

// servers is a broker of real servers.
type servers struct {
	t    *testing.T
	all  []*natstest.Server
	last int
	name string // of the stream

	disturbed bool // servers were stopped
}

// Broker connects each node to another server first.
func (s *servers) Broker() broker.Broker {
	s.last++
	c := testConfig(s.t, s.all[s.last%len(s.all)].URL(), len(s.all))
	c.Stream, c.Prefix = s.name, s.name
	return dialing(c)
}

func (s *servers) Stop() {
	s.disturbed = true
	for _, server := range s.all {
		server.Kill()
	}
}

func (s *servers) Start() {
	for _, server := range s.all {
		server.Run()
	}
}

func (s *servers) Freeze() {
	s.disturbed = true
	for _, server := range s.all {
		server.Freeze()
	}
}

func (s *servers) Thaw() {
	for _, server := range s.all {
		server.Thaw()
	}
}

type dialing Config

func (c dialing) Dial(sink broker.Sink, o broker.Options) (broker.Log, error) {
	if o.Node == 0 {
		o.Node = rand.Uint64()
	}
	return Dial(Config(c), sink, o)
}

func testConfig(t testing.TB, url string, replicas int) Config {
	c := Config{Servers: []string{url}, Replicas: replicas, Manage: true, PublishTimeout: 5 * time.Second, MaxBytes: 256 << 20}
	if os.Getenv("VERBOSE") != "" {
		logger := zaptest.NewLogger(t)
		c.Logger = func() *zap.Logger { return logger }
	}
	return c
}

func TestConformance(t *testing.T) {
	brokertest.Run(t, func(t *testing.T) brokertest.Cluster {
		return &servers{t: t, all: []*natstest.Server{natstest.Start(t, "")}}
	})
}

func TestConformanceOfThree(t *testing.T) {
	servertest.Thorough(t)
	outer := t
	// Each rule has a stream of its own on the same servers, until one has stopped them: starting them and their elections
	// take longer than all else.
	shared, last := natstest.StartCluster(t, 3, ""), &servers{}
	brokertest.Run(t, func(t *testing.T) brokertest.Cluster {
		if last.disturbed {
			shared = natstest.StartCluster(outer, 3, "")
		}
		last = &servers{t: t, all: shared, name: fmt.Sprint("s", rand.Uint64())}
		return last
	})
}
