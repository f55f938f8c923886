package redis

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
	"github.com/caddy-broadcast/caddy-broadcast/broker/brokertest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/redistest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/servertest"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"
)

// server is a broker of one real server.
type server struct {
	t         *testing.T
	s         *redistest.Server
	name      string // of the log
	durable   bool
	disturbed bool // it was stopped

	last *servertest.Proxy // of the node that was dialed last
}

func (s *server) Broker() broker.Broker {
	c := testConfig(s.t, s.s.Addr())
	c.Prefix, c.Durable = s.name, s.durable
	return dialing(c)
}

func (s *server) Stop()   { s.disturbed = true; s.s.Kill() }
func (s *server) Start()  { s.s.Run(); s.s.WaitReady() }
func (s *server) Freeze() { s.disturbed = true; s.s.Freeze() }
func (s *server) Thaw()   { s.s.Thaw() }

// cutter is a server whose nodes are each behind a proxy.
type cutter struct{ *server }

func (s cutter) Broker() broker.Broker {
	s.last = redistest.NewProxy(s.t, s.s)
	c := testConfig(s.t, s.last.Addr())
	c.Prefix = s.name
	if strings.HasSuffix(s.t.Name(), "/what_is_lost_is_named_before_what_comes_after_it") {
		return keepingLittle(c)
	}
	return dialing(c)
}

// keepingLittle has the log keep so little that Forget can do what the log does.
type keepingLittle Config

func (c keepingLittle) Dial(sink broker.Sink, o broker.Options) (broker.Log, error) {
	defer func(n int) { minMessages = n }(minMessages)
	minMessages = 1
	o.Retention.Messages = 1
	return Dial(Config(c), sink, o)
}

func (s cutter) CutOff()  { s.last.Refuse() }
func (s cutter) Restore() { s.last.Accept() }

// Forget leaves as many as have to be kept, which the log's own scripts do too when there are many more.
func (s cutter) Forget(channel string) {
	prefix := "{" + s.name + ":0}:"
	s.s.Do("XTRIM", prefix+"h:"+s.s.Do("HGET", prefix+"m", "x")+":"+channel, "MAXLEN", "2")
}

// flushed is a server that loses everything, and goes on.
type flushed struct{ cutter }

func (s flushed) RollBack() { s.s.Do("FLUSHALL") }

// emptied is a server that keeps nothing when it is restarted.
type emptied struct{ cutter }

func (s emptied) RollBack() { s.s.Kill(); s.s.Run() }

type dialing Config

func (c dialing) Dial(sink broker.Sink, o broker.Options) (broker.Log, error) {
	return Dial(Config(c), sink, o)
}

func testConfig(t testing.TB, address string) Config {
	c := Config{Servers: []string{address}, PublishTimeout: 5 * time.Second}
	if os.Getenv("VERBOSE") != "" {
		logger := zaptest.NewLogger(t)
		c.Logger = func() *zap.Logger { return logger }
	}
	return c
}

// Each rule has a log of its own on the same server, until one has stopped it.
func TestConformance(t *testing.T) {
	for _, program := range redistest.Programs(t) {
		t.Run(program, func(t *testing.T) {
			outer := t
			last := &server{disturbed: true}
			brokertest.Run(t, func(t *testing.T) brokertest.Cluster {
				s := last.s
				if last.disturbed {
					s = redistest.StartProgram(outer, program, redistest.AOF)
				}
				last = &server{t: t, s: s, name: fmt.Sprint("s", rand.Uint64()), durable: true}
				return last
			})
		})
	}
}

// Servers that lose what they had.
func TestConformanceOfLosers(t *testing.T) {
	for name, loser := range map[string]func(cutter) brokertest.Cluster{
		"flushed": func(c cutter) brokertest.Cluster { return flushed{c} },
		"emptied": func(c cutter) brokertest.Cluster { return emptied{c} },
	} {
		t.Run(name, func(t *testing.T) {
			brokertest.Run(t, func(t *testing.T) brokertest.Cluster {
				return loser(cutter{&server{t: t, s: redistest.Start(t), name: "bc"}})
			})
		})
	}
}
