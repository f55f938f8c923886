package nats

import (
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
	"github.com/caddy-broadcast/caddy-broadcast/broker/brokertest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/natstest"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"
)

// servers is a broker of real servers.
type servers struct {
	t    *testing.T
	all  []*natstest.Server
	last int
}

// Broker connects each node to another server first.
func (s *servers) Broker() broker.Broker {
	s.last++
	return dialing(testConfig(s.t, s.all[s.last%len(s.all)].URL(), len(s.all)))
}

func (s *servers) Stop() {
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
	natstest.Thorough(t)
	brokertest.Run(t, func(t *testing.T) brokertest.Cluster {
		return &servers{t: t, all: natstest.StartCluster(t, 3, "")}
	})
}
