package brokertest

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
)

// notes is a sink that writes down what it is told.
type notes struct {
	mu    sync.Mutex
	lines []string
}

func (n *notes) add(format string, args ...any) {
	n.mu.Lock()
	n.lines = append(n.lines, fmt.Sprintf(format, args...))
	n.mu.Unlock()
}

func (n *notes) Epoch(epoch string, at uint64) { n.add("epoch %s", epoch) }
func (n *notes) Entries(run []broker.Entry) {
	for _, e := range run {
		n.add("%s", e.Data)
	}
}
func (n *notes) Advance(uint64)         {}
func (n *notes) Broken(error)           { n.add("broken") }
func (n *notes) Lost(channels []string) { n.add("lost%v", channels) }
func (n *notes) Repaired()              { n.add("repaired") }

// take returns what was written down since the last call.
func (n *notes) take() []string {
	synctest.Wait()
	n.mu.Lock()
	defer n.mu.Unlock()
	lines := n.lines
	n.lines = nil
	return lines
}

func (n *notes) expect(t *testing.T, want ...string) {
	t.Helper()
	if got := n.take(); !slices.Equal(got, want) {
		t.Fatalf("got %q, not %q", got, want)
	}
}

// fixture is a Memory with two nodes: one publishes, the other one is subscribed to a and b.
type fixture struct {
	*testing.T
	m           *Memory
	first       *MemoryBroker
	second      *MemoryBroker
	log, reader broker.Log
	notes       *notes
}

func withFixture(t *testing.T, test func(f *fixture)) {
	synctest.Test(t, func(t *testing.T) {
		f := &fixture{T: t, m: NewMemory(MemoryConfig{Latency: time.Millisecond}), notes: &notes{}}
		defer f.m.Close()
		f.first, f.second = f.m.Broker(), f.m.Broker()
		f.log, _ = f.first.Dial(&notes{}, broker.Options{})
		f.reader, _ = f.second.Dial(f.notes, broker.Options{})
		opened := make(chan bool)
		f.reader.Open([]string{"a", "b"}, func(uint64, error) { close(opened) })
		<-opened
		f.notes.expect(t, f.epoch(), "repaired")
		test(f)
	})
}

// epoch is how notes has the epoch that the broker is in.
func (f *fixture) epoch() string {
	epoch, _ := f.m.Position()
	return "epoch " + epoch
}

// publish publishes to channels, each with its name and a number, and returns the error.
func (f *fixture) publish(entries ...broker.Entry) (places []broker.Place, err error) {
	done := make(chan bool)
	f.log.Publish(entries, func(p []broker.Place, e error) { places, err = p, e; close(done) })
	<-done
	return places, err
}

func entry(channel, data string) broker.Entry {
	return broker.Entry{Channel: channel, Data: []byte(data)}
}

func (f *fixture) must(channel, data string) {
	f.Helper()
	if _, err := f.publish(entry(channel, data)); err != nil {
		f.Fatal(err)
	}
	time.Sleep(10 * time.Millisecond)
}

func TestMemoryRepairsAfterLostEntry(t *testing.T) {
	withFixture(t, func(f *fixture) {
		f.second.LoseLive(1)
		f.must("a", "a1")
		f.must("b", "b1")
		f.notes.expect(t, "b1")
		f.must("a", "a2") // its chain shows that a1 is missing
		f.notes.expect(t, "broken", "a1", "a2", "repaired")
		f.second.LoseLive(1)
		f.must("a", "a3")
		time.Sleep(time.Second) // a tick shows it
		f.notes.expect(t, "broken", "a3", "repaired")
	})
}

func TestMemoryCatchesUp(t *testing.T) {
	withFixture(t, func(f *fixture) {
		f.must("a", "a1")
		f.second.Disconnect()
		f.must("a", "a2")
		f.must("c", "c1")
		f.second.Reconnect()
		f.must("b", "b1")
		f.notes.expect(t, "a1", "broken", "a2", "repaired", "b1")
		f.second.Disconnect()
		f.must("a", "a3")
		f.m.Forget("a", 0)
		f.second.Reconnect()
		f.must("b", "b2")
		f.notes.expect(t, "broken", "lost[a]", "repaired", "b2")
	})
}

func TestMemoryStopsAndRollsBack(t *testing.T) {
	withFixture(t, func(f *fixture) {
		f.must("a", "a1")
		f.m.Stop()
		if _, err := f.publish(entry("a", "a2")); err != broker.ErrDown {
			t.Fatal(err)
		}
		f.m.Start()
		f.must("a", "a3")
		f.notes.expect(t, "a1", "broken", "repaired", "a3")
		f.m.Rollback(1)
		f.must("a", "a4")
		f.notes.expect(t, f.epoch(), "a4")
		f.m.Stop()
		f.m.Rollback(1)
		f.m.Start()
		f.must("a", "a5")
		f.notes.expect(t, "broken", f.epoch(), "repaired", "a5")
	})
}

func TestMemoryLosesAcks(t *testing.T) {
	withFixture(t, func(f *fixture) {
		f.first.LoseAcks(1)
		e := entry("a", "a1")
		e.Key[0], e.Digest = 1, 1
		if _, err := f.publish(e); err != broker.ErrUnknown {
			t.Fatal(err)
		}
		if places, err := f.publish(e); err != nil || !places[0].Repeated {
			t.Fatal(places, err)
		}
		f.first.LosePublishes(1)
		if _, err := f.publish(entry("a", "a2")); err != broker.ErrUnknown {
			t.Fatal(err)
		}
		f.notes.expect(t, "a1")
	})
}

func TestMemoryFreezesAndMutes(t *testing.T) {
	withFixture(t, func(f *fixture) {
		f.m.Freeze()
		if _, err := f.publish(entry("a", "a1")); err != broker.ErrDown && err != broker.ErrUnknown {
			t.Fatal(err)
		}
		f.m.Thaw()
		f.must("a", "a2")
		f.notes.expect(t, "broken", "a1", "repaired", "a2")
		f.second.Mute(true)
		f.must("a", "a3")
		f.second.Mute(false)
		time.Sleep(time.Second)
		f.notes.expect(t, "broken", "a3", "repaired")
		f.second.Mute(true)
		time.Sleep(5 * time.Second)
		f.must("a", "a4")
		f.second.Mute(false)
		time.Sleep(5 * time.Second)
		f.notes.expect(t, "broken", "a4", "repaired")
	})
}

// Traffic counts what goes over the link of each node: a node that is not subscribed is sent no entry.
func TestMemoryTraffic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMemory(MemoryConfig{})
		defer m.Close()
		var brokers []*MemoryBroker
		var logs []broker.Log
		for range 2 {
			b := m.Broker()
			l, err := b.Dial(newRecorder(), broker.Options{})
			if err != nil {
				t.Fatal(err)
			}
			brokers, logs = append(brokers, b), append(logs, l)
		}
		synctest.Wait()
		logs[0].Open([]string{"ab"}, func(uint64, error) {})
		synctest.Wait()
		logs[1].Publish([]broker.Entry{{Channel: "ab", Data: []byte("123")}}, func([]broker.Place, error) {})
		time.Sleep(3 * time.Second)
		synctest.Wait()
		reader, writer := brokers[0].Traffic(), brokers[1].Traffic()
		if want := (Traffic{Entry: Flow{1, 5}, Open: Flow{1, 2}, Tick: Flow{6, 0}, CatchUp: Flow{1, 0}}); reader != want {
			t.Errorf("the subscriber: %+v, not %+v", reader, want)
		}
		if want := (Traffic{Publish: Flow{1, 5}, Ack: Flow{1, 0}, Tick: Flow{6, 0}, CatchUp: Flow{1, 0}}); writer != want {
			t.Errorf("the publisher: %+v, not %+v", writer, want)
		}
	})
}
