// Package metrics exports the hub's figures to Prometheus.
package metrics

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/caddy-broadcast/caddy-broadcast/internal/backend"
	"github.com/caddy-broadcast/caddy-broadcast/internal/events"
	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/logwriter"
	"github.com/caddy-broadcast/caddy-broadcast/internal/nodes"
)

// desc describes one of our metrics. The prefix keeps them apart from those of Caddy and of other plugins.
func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("caddy_broadcast_"+name, help, labels, nil)
}

var (
	connections = desc("connections", "Open connections.", "transport")
	channels    = desc("channels", "Channels that have subscribers.")
	published   = desc("published_total", "Messages published.", "source")
	deliveries  = desc("deliveries_total", "Messages handed to connections.")
	delivered   = desc("delivered_bytes_total", "Bytes handed to connections.")
	writes      = desc("writes_total", "Writes to connections. One write may carry several messages.")
	backlog     = desc("backlog_bytes", "Bytes queued for connections that do not accept them yet.")
	history     = desc("history_bytes", "Bytes kept in history.")
	memory      = desc("memory_bytes", "Bytes that count against max_memory: queued, kept, and received of incomplete messages.")
	keys        = desc("keys", "Idempotency keys held.")
	evicted     = desc("keys_evicted_total", "Idempotency keys removed before two minutes had passed, because there was no room for more.")
	closed      = desc("closed_total", "Connections that have ended.", "reason")
	refused     = desc("refused_total", "Connections, messages and requests that a limit rejected.", "limit")
	gaps        = desc("gaps_total", "Gaps that clients were notified of.")
	dropped     = desc("events_dropped_total", "Caddy events that were not emitted because their handlers were slow.")
	logDropped  = desc("log_dropped_total", "Log entries that were not published because there was no room for them, or because publishing failed.")
	fanout      = desc("fanout_seconds", "Time from publishing a message until its last write is handed to the kernel, on each loop that delivers it.")
)

// collector reads the hub when it is scraped. So the hot path only adds to a few counters, one set per loop, and does nothing
// at all for Prometheus. No metric has a label for a channel or a user, because clients choose those and each would be a time
// series of its own. The admin API lists them.
type collector struct {
	hub     *hub.Hub
	cluster *nodes.Cluster
	emitter *events.Emitter
	intake  *backend.Intake
}

// Register registers the hub with a configuration's registry. Caddy makes a new registry for each
// configuration. Registering twice with the same one is not an error.
func Register(r *prometheus.Registry, h *hub.Hub, c *nodes.Cluster, e *events.Emitter, i *backend.Intake) error {
	err := r.Register(collector{h, c, e, i})
	if errors.As(err, new(prometheus.AlreadyRegisteredError)) {
		return nil
	}
	return err
}

// Describe implements prometheus.Collector. The list has to be complete: the registry rejects a metric that was not described.
func (collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		connections, channels, published, deliveries, delivered, writes, backlog, history, memory, keys, evicted, closed, refused, gaps, dropped, logDropped, fanout,
	} {
		out <- d
	}
	// Also without a broker: what the hub publishes to may change between two scrapes, and Caddy's registry is a
	// pedantic one (context.go in Caddy 2.11.9).
	for _, d := range brokerDescs {
		out <- d
	}
	for _, d := range redisDescs {
		out <- d
	}
}

// Collect implements prometheus.Collector. All figures are of one call of Stats, so those that belong together, such as
// messages and deliveries, are of about the same moment.
func (c collector) Collect(out chan<- prometheus.Metric) {
	s := c.hub.Stats()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	// Const metrics and not those of the client library that keep their own values: the hub has the values already, and
	// two copies could differ.
	for transport, n := range s.Transports {
		gauge(connections, float64(n), transport)
	}
	gauge(channels, float64(s.Channels))
	for source, n := range s.Published {
		counter(published, n, source)
	}
	counter(deliveries, s.Deliveries)
	counter(delivered, s.Written)
	counter(writes, s.Writes)
	gauge(backlog, float64(s.Backlog))
	gauge(history, float64(s.KeptBytes))
	gauge(memory, float64(s.Memory))
	gauge(keys, float64(s.Keys))
	counter(evicted, s.KeysEvicted)
	for reason, n := range s.Closed {
		counter(closed, n, reason)
	}
	for limit, n := range s.Rejected {
		counter(refused, n, limit)
	}
	counter(gaps, s.Gaps)
	// The hub does not count these: it emits no events itself, and only calls its observer.
	counter(dropped, c.emitter.Dropped())
	counter(logDropped, logwriter.Dropped())
	c.collectBroker(gauge, counter, out)
	c.collectRedis(gauge, counter)
	out <- prometheus.MustNewConstHistogram(fanout, s.FanoutCount, s.FanoutSum, s.Fanout)
}
