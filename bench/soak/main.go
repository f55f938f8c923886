//go:build linux

// Command soak has clients of all kinds come, go and get stuck for an hour, while the server's configuration is reloaded again
// and again. It fails unless the server's memory, goroutines and descriptors stay flat and all of it is given back when the
// clients have left. It writes docs/soak.svg and the figures in docs/performance.md.
//
//	go run ./bench/soak -for 1h
package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

// options are those of the command line.
type options struct {
	length   time.Duration
	clients  int
	life     time.Duration // of a client, on average
	reload   time.Duration // between two configurations
	sample   time.Duration // between two looks at the server
	messages int           // published per second
	report   string
}

func main() {
	var o options
	flag.DurationVar(&o.length, "for", time.Hour, "how long clients come and go")
	flag.IntVar(&o.clients, "clients", 300, "clients at a time")
	flag.DurationVar(&o.life, "life", 20*time.Second, "how long a client stays on average")
	flag.DurationVar(&o.reload, "reload", 30*time.Second, "time between two reloads")
	flag.DurationVar(&o.sample, "sample", 10*time.Second, "time between two samples")
	flag.IntVar(&o.messages, "messages", 40, "messages per second")
	flag.StringVar(&o.report, "report", "docs", "the folder to write the plot and the figures to; empty for none")
	flag.Parse()
	if err := soak(o); err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

// soak runs it, and reports the result.
func soak(o options) error {
	dir, err := os.MkdirTemp("", "soak")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s, err := startServer(dir)
	if err != nil {
		return err
	}
	defer s.stop()
	before, err := s.sample()
	if err != nil {
		return err
	}
	r := &run{options: o, server: s, begin: time.Now()}
	samples, err := r.crowd()
	if err != nil {
		return err
	}
	after, err := r.emptied(before)
	if err != nil {
		return err
	}
	v := judge(samples, before, after)
	closed, err := s.closed()
	if err != nil {
		return err
	}
	text := r.text(v) + closed
	fmt.Print(text)
	if o.report != "" {
		if err := os.WriteFile(filepath.Join(o.report, "soak.svg"), plot(samples), 0o644); err != nil {
			return err
		}
		if err := writeFigures(filepath.Join(o.report, "performance.md"), text); err != nil {
			return err
		}
	}
	return v.err()
}

// run is the state of a soak. Clients only count in it.
type run struct {
	options
	server  *server
	begin   time.Time
	counts  [len(kinds)]count
	posts   atomic.Int64
	reloads int
}

// count is what happened to clients of a kind.
type count struct{ came, stuck, received, rejected atomic.Int64 }

// crowd has clients come and go until the time is over, and returns what the samples found meanwhile. It returns when the last
// client has left.
func (r *run) crowd() (samples []sample, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), r.length)
	defer cancel()
	var all sync.WaitGroup
	defer all.Wait()
	for i := range r.clients {
		// Each place is always of the same kind, so that the mix does not change, and with it what the server needs.
		all.Go(func() { r.place(ctx, i) })
	}
	all.Go(func() { r.publish(ctx) })
	sampling, reloading := time.NewTicker(r.sample), time.NewTicker(r.reload)
	defer sampling.Stop()
	defer reloading.Stop()
	for {
		select {
		case <-ctx.Done():
			return samples, nil
		case <-reloading.C:
			r.reloads++
			if err := r.server.load(r.reloads); err != nil {
				cancel()
				return nil, fmt.Errorf("reload %d: %w", r.reloads, err)
			}
		case <-sampling.C:
			s, err := r.server.sample()
			if err != nil {
				cancel()
				return nil, fmt.Errorf("after %v: %w", time.Since(r.begin), err)
			}
			if ctx.Err() != nil {
				return samples, nil // the clients are leaving
			}
			s.at = time.Since(r.begin)
			samples = append(samples, s)
			fmt.Printf("%8s  %s\n", s.at.Round(time.Second), s)
		}
	}
}

// place has one client after the other until the context ends.
func (r *run) place(ctx context.Context, i int) {
	k := i % len(kinds)
	for ctx.Err() == nil {
		// One in five gets stuck, which the server finds out and ends. It lives longer than that takes.
		stuck := kinds[k].sticks && rand.IntN(5) == 0
		life := time.Duration(float64(r.life) * min(rand.ExpFloat64(), 4))
		if stuck {
			life = 2 * r.life
			r.counts[k].stuck.Add(1)
		}
		lifetime, cancel := context.WithTimeout(ctx, life)
		v := newVisitor(lifetime, r.server, &r.counts[k], stuck)
		r.counts[k].came.Add(1)
		if err := kinds[k].visit(v); err != nil {
			r.counts[k].rejected.Add(1)
		}
		v.leave()
		cancel()
		// Not at once: if a configuration has no such route, it would ask without a pause.
		pause(ctx, time.Duration(rand.Int64N(int64(time.Second))))
	}
}

// pause waits, or until the context ends.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// emptied waits until the server has let go of all clients, and returns what it then has. A stuck connection, a Socket.IO
// session that polled, and what idle HTTP/2 connections hold take their timeouts, so it looks for up to two minutes.
func (r *run) emptied(before sample) (s sample, err error) {
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(2 * time.Second) {
		s, err = r.server.sample()
		if err != nil || s.connections == 0 && s.goroutines <= before.goroutines+slackGoroutines && s.descriptors <= before.descriptors+slackDescriptors {
			return s, err
		}
		if time.Now().After(end) {
			return s, nil // judge says what was not given back
		}
	}
}
