//go:build linux

package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
	"github.com/caddy-broadcast/caddy-broadcast/brokers/nats"
	"github.com/caddy-broadcast/caddy-broadcast/brokers/redis"
)

// logName measures the log without a Caddy in front: what the broker and our client of it can do. The difference to acked is
// what a Caddy and its WebSockets cost.
const logName = "log"

const (
	// The same as ackPublishers times ackWindow, so that the two can be compared.
	logWindow   = 1024 // messages under way
	logChannels = 1000
)

// nobody is a Sink that only tells when the log is there. No channel is opened, so nothing comes back: only publishing is
// measured.
type nobody struct{ up chan struct{} }

func (n *nobody) Repaired() {
	select {
	case n.up <- struct{}{}:
	default:
	}
}
func (*nobody) Epoch(string, uint64)   {}
func (*nobody) Entries([]broker.Entry) {}
func (*nobody) Advance(uint64)         {}
func (*nobody) Lost([]string)          {}
func (*nobody) Broken(error)           {}

// measureLog publishes to a log as fast as acks come, from this process, whose CPU time is that of the client. The CPU time
// contains that of this loop.
func (c *cluster) measureLog(d *deployment) error {
	if len(d.brokers) == 0 {
		return nil
	}
	sink := &nobody{make(chan struct{}, 1)}
	l, err := d.dialLog(sink)
	if err != nil {
		return err
	}
	defer l.Close()
	select {
	case <-sink.up:
	case <-time.After(20 * time.Second):
		return errors.New("the log does not come up")
	}
	broker, self, begin := d.broker().cpu, cpu(os.Getpid()), time.Now()
	acked, err := fillLog(l, begin.Add(time.Duration(c.seconds*float64(time.Second))))
	if err != nil {
		return err
	}
	took, n := time.Since(begin), time.Duration(max(1, acked))
	r := clusterResult{broker: (d.broker().cpu - broker) / n}
	r.messages, r.cpuMessage, r.perSecond = acked, (cpu(os.Getpid())-self)/n, float64(acked)/took.Seconds()
	c.add(logName, setup{d.name, here}, r)
	fmt.Printf("%-9s %-21s %.0f/s, CPU/message of the client %s, broker %s\n", logName, d.name, r.perSecond, micros(r.cpuMessage), micros(r.broker))
	return nil
}

// dialLog connects to the broker as a node does, but to a log of its own, so that the Caddys of the deployment do not receive
// its messages.
func (d *deployment) dialLog(sink broker.Sink) (broker.Log, error) {
	options := broker.Options{Node: rand.Uint64()}
	if isRedis(d.name) {
		return redis.Dial(redis.Config{Servers: []string{d.brokers[0].addr}, Prefix: "bench", Durable: d.name == redisDurable}, sink, options)
	}
	config := nats.Config{Stream: "BENCH", Prefix: "bench", Replicas: len(d.brokers), Manage: true}
	for _, b := range d.brokers {
		config.Servers = append(config.Servers, "nats://"+b.addr)
	}
	return nats.Dial(config, sink, options)
}

// fillLog publishes until a time, and returns how many entries were acked.
func fillLog(l broker.Log, end time.Time) (acked int64, err error) {
	places := make(chan error, logWindow)
	done := func(_ []broker.Place, err error) { places <- err }
	data := make([]byte, 128)
	underway := 0
	for i := 0; ; i++ {
		more := time.Now().Before(end)
		if more {
			// An entry a call, as from clients that do not batch. Many channels, since each is something that the broker has to
			// look up.
			l.Publish([]broker.Entry{{Channel: fmt.Sprint(i % logChannels), Data: data}}, done)
			underway++
		}
		for underway == logWindow || !more && underway > 0 {
			if err := <-places; err != nil {
				return acked, err
			}
			underway--
			acked++
		}
		if !more {
			return acked, nil
		}
	}
}
