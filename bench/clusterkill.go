//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	client "github.com/nats-io/nats.go"
)

// killName measures how long nothing is delivered after the broker's process was killed, and what of that which was acked is
// missing then.
const killName = "kill -9"

const (
	killPublishers = 8
	killInterval   = 40 * time.Millisecond // between the messages of a publisher: together 200 a second
	killEnough     = 200                   // messages that are acked afterwards, so about a second
	killPatience   = 60 * time.Second
)

// measureKill kills the only server of the log, which is started again at once, as systemd would do. Of three it kills the leader,
// which stays away: the others have to go on. Each node has one subscriber. It speaks raw, so it is not told what it misses.
func (c *cluster) measureKill(d *deployment) error {
	victim, err := d.leader()
	if err != nil {
		return err
	}
	s := d.place(here, c.prefix())
	var fleets []*fleet
	for _, n := range d.nodes {
		t := s.target
		t.addr = n.addr
		f, err := dialAll(t, 1, 1, 0)
		if err != nil {
			return err
		}
		defer f.close()
		fleets = append(fleets, f)
	}
	p := publishNumbers(d.nodes, s.path(0))
	defer p.stop()
	if err := p.await(killEnough / 2); err != nil {
		return err
	}
	silence := watchSilence(fleets)
	victim.stop()
	if len(d.brokers) == 1 {
		if err := victim.again(); err != nil {
			return err
		}
	}
	if err := p.await(killEnough); err != nil {
		return err
	}
	p.stop()
	// Long enough for a node that has only now found another server. What a new epoch has dropped does not come at all.
	patience := 10 * time.Second
	if c.quick || d.name == redisOff || d.name == redisSecond {
		patience = time.Second
	}
	r := clusterResult{}
	for _, f := range fleets {
		f.wait(int64(p.acked.count), patience)
		missing, extra := f.compare([]tally{p.acked})
		r.missing, r.extra, r.closed = r.missing+missing, r.extra+extra, r.closed+f.closed.Load()
	}
	r.messages, r.silence = int64(p.acked.count), silence()
	c.add(killName, setup{d.name, here}, r)
	fmt.Printf("%-9s %-21s silent for %s; %d acked, missing %d extra %d closed %d\n", killName, d.name, short(r.silence), r.messages, r.missing, r.extra, r.closed)
	return nil
}

// leader returns the server that puts the messages of the Caddys in order.
func (d *deployment) leader() (*server, error) {
	if len(d.brokers) == 1 {
		return d.brokers[0], nil
	}
	nc, err := client.Connect("nats://" + d.brokers[0].addr)
	if err != nil {
		return nil, err
	}
	defer nc.Close()
	m, err := nc.Request("$JS.API.STREAM.INFO.BROADCAST", nil, 5*time.Second)
	if err != nil {
		return nil, err
	}
	var info struct{ Cluster struct{ Leader string } }
	if err := json.Unmarshal(m.Data, &info); err != nil {
		return nil, err
	}
	for i, b := range d.brokers {
		if info.Cluster.Leader == natsName(i) {
			return b, nil
		}
	}
	return nil, fmt.Errorf("%q leads the stream", info.Cluster.Leader)
}

// watchSilence looks at how much was delivered until the returned function is called, which returns the longest time in which
// one of the fleets got nothing. It looks each millisecond, a fifth of the time between two messages.
func watchSilence(fleets []*fleet) (stop func() time.Duration) {
	done, ended := make(chan struct{}), make(chan time.Duration)
	go func() {
		longest := time.Duration(0)
		had, since := make([]int64, len(fleets)), make([]time.Time, len(fleets))
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for i := range since {
			since[i] = time.Now()
		}
		for {
			now := time.Now()
			for i, f := range fleets {
				if n := f.delivered.Load(); n != had[i] {
					longest = max(longest, now.Sub(since[i]))
					had[i], since[i] = n, now
				}
			}
			select {
			case <-done:
				ended <- longest
				return
			case <-tick.C:
			}
		}
	}()
	return func() time.Duration { close(done); return <-ended }
}

// numbers publishes numbered messages, each with a key, and repeats one until it is acked. So the number of messages that were
// acked is that of messages that subscribers have to get, once each.
type numbers struct {
	nodes  []*server
	path   string
	cancel context.CancelFunc
	all    sync.WaitGroup
	begun  atomic.Uint32

	mu    sync.Mutex
	acked tally
	last  error // why a message was not acked
}

// publishNumbers begins to publish, on all nodes.
func publishNumbers(nodes []*server, path string) *numbers {
	ctx, cancel := context.WithCancel(context.Background())
	p := &numbers{nodes: nodes, path: path, cancel: cancel}
	for i := range killPublishers {
		p.all.Go(func() {
			tick := time.NewTicker(killInterval)
			defer tick.Stop()
			for ctx.Err() == nil {
				p.publish(p.nodes[i%len(p.nodes)], p.begun.Add(1))
				select {
				case <-ctx.Done():
				case <-tick.C:
				}
			}
		})
	}
	return p
}

// publish repeats a message until it is acked. It also does so after stop, as one that nobody has acked may have been stored.
func (p *numbers) publish(node *server, number uint32) {
	body := payload(128, number)
	for end := time.Now().Add(killPatience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		err := p.post(node, number, body)
		p.mu.Lock()
		p.last = err
		if err == nil {
			p.acked.add(number)
		}
		p.mu.Unlock()
		if err == nil {
			return
		}
	}
}

// post publishes once.
func (p *numbers) post(node *server, number uint32, body []byte) error {
	req, err := http.NewRequest("POST", "http://"+node.addr+p.path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Idempotency-Key", fmt.Sprint(number))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, resp.Body)
	if resp.StatusCode/100 != 2 {
		return errors.New(resp.Status)
	}
	return nil
}

// await waits until this many more messages were acked.
func (p *numbers) await(more uint64) error {
	count := func() (uint64, error) {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.acked.count, p.last
	}
	first, _ := count()
	for end := time.Now().Add(killPatience); ; time.Sleep(5 * time.Millisecond) {
		n, err := count()
		if n >= first+more {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("%d of %d messages were acked in %v: %w", n-first, more, killPatience, err)
		}
	}
}

// stop waits until the last messages are acked. It may be called twice.
func (p *numbers) stop() {
	p.cancel()
	p.all.Wait()
}
