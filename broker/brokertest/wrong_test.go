package brokertest

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
)

// TestWrongLogs has the suite check logs that each break one rule, and expects that the rule is the one that fails.
func TestWrongLogs(t *testing.T) {
	for _, w := range []struct {
		name  string
		wrong wrong
		rule  string
	}{
		{"right", wrong{}, ""},
		{"swaps two entries", wrong{swaps: true}, "every node gets every entry in one order"},
		{"drops an entry", wrong{drops: true}, "every node gets every entry in one order"},
		{"gives one position twice", wrong{repeats: true}, "every node gets every entry in one order"},
		{"changes data", wrong{changes: true}, "content comes as it was published"},
		{"calls opened too early", wrong{opensEarly: true}, "every entry after what Open returns comes"},
		{"calls barriers too early", wrong{barrierEarly: true}, "a barrier waits for what was stored before, on any node"},
		{"ignores keys", wrong{ignoresKeys: true}, "the same key on all nodes at the same moment"},
		{"says that reads are complete", wrong{complete: true}, "Read and Last keep to their limits"},
		{"answers twice", wrong{answersTwice: true}, "publishes without waiting keep the order of the calls"},
		{"splits calls", wrong{splits: true}, "entries of one call are next to each other"},
		{"does not wait in Close", wrong{closesLater: true}, "Close answers everything and is the end"},
		{"tells an epoch too late", wrong{epochLate: true}, "answers are of the epoch that the Sink was told"},
		{"names losses too late", wrong{losesLate: true}, "what is lost is named before what comes after it"},
		{"two names are one", wrong{foldsCase: true}, "channels of all kinds of names are different"},
	} {
		t.Run(w.name, func(t *testing.T) {
			for _, r := range rules {
				if w.rule != "" && r.name != w.rule {
					continue
				}
				var problems []string
				synctest.Test(t, func(t *testing.T) { problems = checkWrong(r, w.wrong) })
				if w.rule == "" && problems != nil {
					t.Errorf("%s: a log that is right fails: %q", r.name, problems)
				}
				if w.rule != "" && problems == nil {
					t.Errorf("the rule %q does not find it", r.name)
				}
			}
		})
	}
}

// checkWrong runs a rule and returns how it fails.
func checkWrong(r rule, w wrong) []string {
	m := NewMemory(MemoryConfig{Latency: time.Millisecond, Jitter: time.Millisecond, MaxData: 1 << 20})
	defer m.Close()
	var c Cluster = wrongCluster{memoryCluster{m}, w, &keptMail{}}
	failures := &failures{}
	s := &suite{tb: failures, cluster: c}
	done := make(chan bool)
	go func() {
		defer close(done)
		defer s.finish()
		r.check(s)
	}()
	<-done
	failures.mu.Lock()
	defer failures.mu.Unlock()
	return failures.lines
}

// failures is a tb that a rule may fail.
type failures struct {
	mu    sync.Mutex
	lines []string
}

func (f *failures) Helper() {}
func (f *failures) Errorf(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.lines = append(f.lines, fmt.Sprintf(format, args...))
}
func (f *failures) Skip(args ...any) {
	f.Errorf("skipped: %s", fmt.Sprint(args...))
	runtime.Goexit()
}
func (f *failures) Fatalf(format string, args ...any) {
	f.Errorf(format, args...)
	runtime.Goexit()
}

// wrong is what is wrong with a log.
type wrong struct {
	swaps, drops, repeats, changes, opensEarly, barrierEarly, ignoresKeys, complete, answersTwice, splits, closesLater, foldsCase, epochLate, losesLate bool

	peers wrongPeers
}

type wrongCluster struct {
	memoryCluster
	wrong wrong
	kept  *keptMail
}

func (c wrongCluster) Broker() broker.Broker { return wrongBroker{c.Memory.Broker(), c.wrong, c.kept} }

type wrongBroker struct {
	broker.Broker
	wrong wrong
	kept  *keptMail
}

func (b wrongBroker) Dial(sink broker.Sink, o broker.Options) (broker.Log, error) {
	s := &wrongSink{Sink: sink, wrong: b.wrong}
	o = b.wrong.peers.options(o, b.kept)
	log, err := b.Broker.Dial(s, o)
	return &wrongLog{Log: log, wrong: b.wrong, sink: s, options: o, kept: b.kept}, err
}

type wrongSink struct {
	broker.Sink
	wrong wrong
	count int
	held  []broker.Entry
	late  func()   // tells an epoch
	lost  []string // is told with Repaired

	repaired []func() // are called with Repaired
}

func (s *wrongSink) Epoch(epoch string, at uint64) {
	if s.wrong.epochLate && at > 0 {
		s.late = func() { s.Sink.Epoch(epoch, at) }
		return
	}
	s.Sink.Epoch(epoch, at)
}

func (s *wrongSink) Advance(seq uint64) {
	if s.late != nil {
		s.late()
		s.late = nil
	}
	s.Sink.Advance(seq)
}

func (s *wrongSink) Lost(channels []string) {
	if s.wrong.losesLate {
		s.lost = channels
		return
	}
	s.Sink.Lost(channels)
}

func (s *wrongSink) Repaired() {
	if s.lost != nil {
		s.Sink.Lost(s.lost)
		s.lost = nil
	}
	s.Sink.Repaired()
	for _, do := range s.repaired {
		go do()
	}
	s.repaired = nil
}

func (s *wrongSink) Entries(run []broker.Entry) {
	run = slices.Clone(run)
	if s.count++; s.count == 20 {
		switch {
		case s.wrong.swaps:
			s.held = run
			return
		case s.wrong.drops:
			return
		case s.wrong.repeats:
			s.Sink.Entries(slices.Clone(run))
		}
	}
	for i := range run {
		if s.wrong.changes && len(run[i].Data) == 256 {
			run[i].Data = []byte(strings.ToValidUTF8(string(run[i].Data), "?"))
		}
	}
	s.Sink.Entries(append(run, s.held...))
	s.held = nil
}

type wrongLog struct {
	broker.Log
	wrong     wrong
	sink      *wrongSink
	options   broker.Options
	kept      *keptMail
	forgotten uint64
}

func (l *wrongLog) Publish(es []broker.Entry, done func([]broker.Place, error)) {
	if l.wrong.ignoresKeys {
		for i := range es {
			es[i].Key = [16]byte{}
		}
	}
	if l.wrong.foldsCase {
		for i := range es {
			es[i].Channel = strings.ToLower(es[i].Channel)
		}
	}
	if l.wrong.splits && len(es) > 1 {
		l.Log.Publish(es[:1], func(first []broker.Place, err error) {
			l.Log.Publish(es[1:], func(rest []broker.Place, err error) { done(append(first, rest...), err) })
		})
		return
	}
	l.Log.Publish(es, done)
	if l.wrong.answersTwice {
		done(nil, broker.ErrUnknown)
	}
}

func (l *wrongLog) Open(channels []string, opened func(uint64, error)) {
	if l.wrong.opensEarly {
		opened(0, nil)
		opened = func(uint64, error) {}
	}
	l.Log.Open(channels, opened)
}

func (l *wrongLog) Barrier(done func(uint64, error)) {
	if l.wrong.barrierEarly {
		done(0, nil)
		return
	}
	l.Log.Barrier(done)
}

func (l *wrongLog) Read(ctx context.Context, channel string, after uint64, n, bytes int) ([]broker.Entry, bool, error) {
	es, complete, err := l.Log.Read(ctx, channel, after, n, bytes)
	return es, complete || l.wrong.complete, err
}

func (l *wrongLog) Close() {
	if l.wrong.closesLater {
		time.AfterFunc(time.Second, l.Log.Close)
		return
	}
	l.Log.Close()
}
