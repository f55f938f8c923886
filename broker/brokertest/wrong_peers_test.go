package brokertest

import (
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
)

// TestWrongPeers is TestWrongLogs for what a log offers beside the log.
func TestWrongPeers(t *testing.T) {
	for _, w := range []struct {
		name  string
		wrong wrongPeers
		rule  string
	}{
		{"sends to all instead of one", wrongPeers{sendsToAll: true}, "peers/a message to one node comes to it alone"},
		{"says another sender", wrongPeers{wrongFrom: true}, "peers/a message to one node comes to it alone"},
		{"sends to itself", wrongPeers{echoes: true}, "peers/a message to all comes to all others"},
		{"gives a message twice", wrongPeers{twice: true}, "peers/messages come at most once and unchanged"},
		{"cuts messages", wrongPeers{cuts: true}, "peers/messages come at most once and unchanged"},
		{"keeps messages for others", wrongPeers{keeps: true}, "peers/messages are not kept for a node that comes later"},
		{"sends messages later", wrongPeers{sendsLater: true}, "peers/messages are not kept while the broker is down"},
		{"sorts the answer", wrongPeers{sorts: true}, "peers/counts of all nodes come in the order of the argument"},
		{"knows no count of all channels", wrongPeers{noAll: true}, "peers/counts of all nodes come in the order of the argument"},
		{"keeps what is 0", wrongPeers{keepsZero: true}, "peers/counts change and 0 removes"},
		{"sets some of many", wrongPeers{setsSome: true}, "peers/counts of many channels in one call"},
		{"sets an older number last", wrongPeers{reorders: true}, "peers/counts of a channel keep the order of the calls"},
		{"forgets nobody", wrongPeers{neverForgets: true}, "peers/Forget removes the counts of one node"},
		{"forgets everybody", wrongPeers{forgetsAll: true}, "peers/Forget removes the counts of one node"},
		{"forgets for ever", wrongPeers{forgetsForEver: true}, "peers/a node that was forgotten counts again"},
		{"says nothing of what is not stored", wrongPeers{hidesErrors: true}, "peers/errors of counts are true while the broker is down"},
		{"answers twice", wrongPeers{answersTwice: true}, "peers/calls inside callbacks"},
		{"does not answer what Close interrupts", wrongPeers{forgetsCalls: true}, "peers/Close answers everything and is the end"},
	} {
		t.Run(w.name, func(t *testing.T) {
			i := slices.IndexFunc(rules, func(r rule) bool { return r.name == w.rule })
			if i < 0 {
				t.Fatalf("there is no rule %q", w.rule)
			}
			var problems []string
			synctest.Test(t, func(t *testing.T) { problems = checkWrong(rules[i], wrong{peers: w.wrong}) })
			if problems == nil {
				t.Errorf("the rule %q does not find it", w.rule)
			}
			t.Logf("%.300q", problems)
		})
	}
}

// wrongPeers is what is wrong with a log's broker.Peers.
type wrongPeers struct {
	sendsToAll, wrongFrom, echoes, twice, cuts, keeps, sendsLater, sorts, noAll, keepsZero, setsSome, reorders bool
	neverForgets, forgetsAll, forgetsForEver, hidesErrors, answersTwice, forgetsCalls                          bool
}

// keptMail is what a wrong log keeps that it should not.
type keptMail struct {
	mu       sync.Mutex
	messages [][]byte
}

func (k *keptMail) add(message []byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.messages = append(k.messages, slices.Clone(message))
}

func (k *keptMail) each(do func(message []byte)) {
	k.mu.Lock()
	messages := k.messages
	k.messages = nil
	k.mu.Unlock()
	for _, m := range messages {
		do(m)
	}
}

// options are those that a wrong log is dialed with.
func (w wrongPeers) options(o broker.Options, kept *keptMail) broker.Options {
	receive := o.Message
	o.Message = func(from uint64, message []byte) {
		if w.wrongFrom {
			from = from%3 + 1
		}
		if w.twice {
			receive(from, slices.Clone(message))
		}
		receive(from, message)
	}
	if w.keeps {
		kept.each(func(m []byte) { receive(1, m) })
	}
	return o
}

func (l *wrongLog) Send(to uint64, message []byte) {
	w, p := l.wrong.peers, l.Log.(broker.Peers)
	if w.echoes && to == 0 {
		l.options.Message(l.options.Node, slices.Clone(message))
	}
	if w.keeps {
		l.kept.add(message)
	}
	if w.sendsLater && !l.Log.Status().Up {
		l.sink.repaired = append(l.sink.repaired, func() { p.Send(to, message) })
		return
	}
	if w.sendsToAll {
		to = 0
	}
	if w.cuts {
		message = message[:min(len(message), 200<<10)]
	}
	p.Send(to, message)
}

func (l *wrongLog) SetCounts(counts map[string]int, done func(error)) {
	w, p := l.wrong.peers, l.Log.(broker.Peers)
	if _, all := counts[""]; all && w.noAll {
		delete(counts, "")
	}
	if w.keepsZero {
		maps.DeleteFunc(counts, func(_ string, n int) bool { return n == 0 })
	}
	if w.setsSome && len(counts) > 1000 {
		maps.DeleteFunc(counts, func(channel string, n int) bool { return n > 2990 })
	}
	if w.reorders && counts["a"]%2 == 0 {
		time.AfterFunc(10*time.Millisecond, func() { p.SetCounts(counts, done) })
		return
	}
	if w.forgetsCalls {
		p.SetCounts(counts, func(err error) {
			if err == nil {
				done(nil)
			}
		})
		return
	}
	if w.hidesErrors {
		p.SetCounts(counts, func(error) { done(nil) })
		return
	}
	p.SetCounts(counts, done)
	if w.answersTwice {
		done(nil)
	}
}

func (l *wrongLog) Counts(channels []string, done func([]map[uint64]int, error)) {
	w := l.wrong.peers
	if w.sorts {
		channels = slices.Sorted(slices.Values(channels))
	}
	l.Log.(broker.Peers).Counts(channels, func(all []map[uint64]int, err error) {
		for _, counts := range all {
			if l.forgotten > 0 {
				delete(counts, l.forgotten)
			}
		}
		done(all, err)
	})
}

func (l *wrongLog) Forget(node uint64) {
	w, p := l.wrong.peers, l.Log.(broker.Peers)
	switch {
	case w.neverForgets:
	case w.forgetsForEver:
		l.forgotten = node
	case w.forgetsAll:
		for node := range uint64(5) {
			p.Forget(node)
		}
	default:
		p.Forget(node)
	}
}
