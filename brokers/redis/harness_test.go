package redis

import (
	"math/rand/v2"
	"testing"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
	"github.com/caddy-broadcast/caddy-broadcast/internal/servertest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/sinktest"
)

const patience = servertest.Patience

// node is a log of this package, and what it has given.
type node struct {
	*log
	*sinktest.Node
}

var keepAll = broker.Retention{Messages: 100_000}

func dialTest(t testing.TB, c Config) *node {
	t.Helper()
	return dialWith(t, c, keepAll)
}

func dialWith(t testing.TB, c Config, keep broker.Retention) *node {
	t.Helper()
	n := dialBroken(t, c, keep)
	n.AwaitUp(t)
	return n
}

func dialBroken(t testing.TB, c Config, keep broker.Retention) *node {
	t.Helper()
	return dialSink(t, c, keep, func(n *node) broker.Sink { return n })
}

// dialSink dials with a Sink that is around the node's.
func dialSink(t testing.TB, c Config, keep broker.Retention, sink func(*node) broker.Sink) *node {
	t.Helper()
	n := &node{Node: sinktest.New(rand.Uint64())}
	n.log = n.Dial(t, dialing(c), sink(n), keep).(*log)
	return n
}

var entry = sinktest.Entry
