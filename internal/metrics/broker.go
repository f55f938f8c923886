package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
)

// What there is with a message broker, and only then. No metric says which server or node it is about, because Prometheus
// adds the instance, and a cluster's view is a sum or a minimum over instances.
var (
	brokerUp       = desc("broker_up", "Whether everything comes from the broker: 1, or 0.")
	brokerLag      = desc("broker_lag_seconds", "Time since the last sign of life from the broker.")
	brokerPosition = desc("broker_watermark", "The position up to which the hub has everything.")
	brokerRefusing = desc("broker_refusing", "Whether connections are refused because nothing has come from the broker for partition_timeout: 1, or 0.")
	brokerNodes    = desc("broker_nodes", "Nodes that share the log and are alive, as far as this one knows.")
	brokerQueue    = desc("broker_queue_bytes", "Bytes received from the broker and not yet given to the hub.")
	brokerForeign  = desc("broker_foreign_total", "Entries of the log that no node has published.")
	brokerRepairs  = desc("broker_repairs_total", "How often the log had to catch up.", "cause")

	brokerPublished = desc("broker_publish_total", "Messages published to the broker.", "result")
	brokerInFlight  = desc("broker_in_flight", "Messages that the broker has not answered for yet.")
	brokerReceived  = desc("broker_received_total", "Entries received from the broker.")
	brokerLate      = desc("broker_late_total", "Entries received out of order.")
	brokerGaps      = desc("broker_gaps_total", "Channels that the broker has lost messages of.")
	brokerEpochs    = desc("broker_epochs_total", "Epochs of the log: another one begins when the broker has lost data.")
	brokerBarriers  = desc("broker_barriers_total", "How often a client had to wait until the hub had caught up with its position.")
	brokerOpens     = desc("broker_opens_total", "Channels that connections needed: warm were open, cold were opened, and read were also read from the broker.", "kind")
	brokerOpen      = desc("broker_open_channels", "Channels that this node receives.")
	brokerOpenTime  = desc("broker_open_seconds", "Time until channels that a client needed are received, if they were not before.")
	brokerAck       = desc("broker_publish_seconds", "Time from publishing messages until the broker has answered, or was not waited for any longer.")
	brokerDelay     = desc("broker_delay_seconds", "Time from storing a message in the broker until the hub has it, by the clocks of both.")
)

// brokerDescs are those of collectBroker.
var brokerDescs = []*prometheus.Desc{
	brokerUp, brokerLag, brokerPosition, brokerRefusing, brokerNodes, brokerQueue, brokerForeign, brokerRepairs, brokerPublished, brokerInFlight,
	brokerReceived, brokerLate, brokerGaps, brokerEpochs, brokerBarriers, brokerOpens, brokerOpen, brokerOpenTime, brokerAck, brokerDelay,
}

// repairCauses are those of broker.Status.
var repairCauses = []string{"reconnect", "tick", "chain", "leader", "audit", "overflow", "epoch"}

// collectBroker collects nothing without a broker.
func (c collector) collectBroker(gauge func(*prometheus.Desc, float64, ...string), counter func(*prometheus.Desc, uint64, ...string), out chan<- prometheus.Metric) {
	status, stats, ok := c.hub.Log()
	// They are absent rather than 0: an alert such as broker_up == 0 must not fire where there is no broker.
	if !ok {
		return
	}
	gauge(brokerUp, number(status.Up))
	if !status.Heard.IsZero() {
		gauge(brokerLag, time.Since(status.Heard).Seconds())
	} else { // not so small that no alert fires
		gauge(brokerLag, time.Since(c.hub.Stats().Started).Seconds())
	}
	// Prometheus has only floats, which are exact up to 2^53. At 100,000 messages a second that is enough for 2,800
	// years.
	gauge(brokerPosition, float64(stats.Watermark))
	gauge(brokerRefusing, number(stats.Refusing))
	gauge(brokerNodes, float64(c.cluster.Alive()))
	gauge(brokerQueue, float64(status.QueueBytes))
	counter(brokerForeign, status.Foreign)
	for _, cause := range repairCauses { // those that were never the cause too, so that the first one is a rise
		counter(brokerRepairs, status.Repairs[cause], cause)
	}
	// All results are there from the beginning, so that the first one of a kind is a rise: rate() sees nothing in a
	// series that begins with 1.
	for result, n := range stats.Published {
		counter(brokerPublished, n, result)
	}
	gauge(brokerInFlight, float64(stats.InFlight))
	counter(brokerReceived, stats.Received)
	counter(brokerLate, stats.Late)
	counter(brokerGaps, stats.Gaps)
	counter(brokerEpochs, stats.Epochs)
	counter(brokerBarriers, stats.Barriers)
	// All kinds are there from the beginning, as the results are.
	for kind, n := range stats.Opens {
		counter(brokerOpens, n, kind)
	}
	gauge(brokerOpen, float64(stats.OpenChannels))
	// The hub counts the buckets itself, so that it need not know Prometheus.
	histogram := func(d *prometheus.Desc, h hub.Histogram) {
		out <- prometheus.MustNewConstHistogram(d, h.Count, h.Sum, h.Buckets)
	}
	histogram(brokerOpenTime, stats.Open)
	histogram(brokerAck, stats.Publish)
	histogram(brokerDelay, stats.Delay)
}

// number returns a condition as Prometheus has it.
func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
