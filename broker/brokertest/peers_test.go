package brokertest

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
)

// twoPeers runs a test with two nodes of a Memory, whose numbers are 1 and 2. settle waits for what is under way.
func twoPeers(t *testing.T, test func(m *Memory, brokers [2]*MemoryBroker, peers [2]broker.Peers, got func() []string, settle func())) {
	synctest.Test(t, func(t *testing.T) {
		m := NewMemory(MemoryConfig{Latency: 10 * time.Millisecond})
		defer m.Close()
		box := newMailbox()
		var brokers [2]*MemoryBroker
		var peers [2]broker.Peers
		for i := range peers {
			brokers[i] = m.Broker()
			log, err := brokers[i].Dial(newRecorder(), broker.Options{Node: uint64(i + 1), Message: box.receive})
			if err != nil {
				t.Fatal(err)
			}
			peers[i] = log.(broker.Peers)
		}
		settle := func() {
			time.Sleep(time.Second)
			synctest.Wait()
		}
		settle()
		test(m, brokers, peers, func() (all []string) {
			settle()
			for message := range box.contents("") {
				all = append(all, message)
			}
			slices.Sort(all)
			return all
		}, settle)
	})
}

func TestMemoryLosesMessages(t *testing.T) {
	twoPeers(t, func(m *Memory, brokers [2]*MemoryBroker, peers [2]broker.Peers, got func() []string, settle func()) {
		brokers[1].LoseMessages(1)
		peers[0].Send(0, []byte("lost"))
		peers[0].Send(2, []byte("a"))
		settle()
		brokers[1].Disconnect()
		peers[0].Send(2, []byte("to a node that is away"))
		peers[1].Send(1, []byte("of a node that is away"))
		settle()
		brokers[1].Reconnect()
		peers[0].Send(2, []byte("b"))
		settle()
		m.Freeze()
		peers[0].Send(2, []byte("c, later"))
		settle()
		m.Thaw()
		settle()
		peers[0].Send(2, []byte("is cut off on its way"))
		brokers[1].Disconnect()
		if all := got(); !slices.Equal(all, []string{"a", "b", "c, later"}) {
			t.Errorf("%q came", all)
		}
	})
}

func TestMemoryCounts(t *testing.T) {
	twoPeers(t, func(m *Memory, brokers [2]*MemoryBroker, peers [2]broker.Peers, _ func() []string, settle func()) {
		set := func(n int) (err error) {
			peers[0].SetCounts(map[string]int{"a": n}, func(e error) { err = e })
			settle()
			return err
		}
		count := func() (n int, err error) {
			peers[1].Counts([]string{"a"}, func(all []map[uint64]int, e error) {
				if err = e; err == nil {
					n = all[0][1]
				}
			})
			time.Sleep(10 * time.Second) // longer than PublishTimeout
			synctest.Wait()
			return n, err
		}
		expect := func(want int) {
			t.Helper()
			if n, err := count(); n != want || err != nil {
				t.Errorf("%d and %v, want %d", n, err, want)
			}
		}
		if err := set(1); err != nil {
			t.Error(err)
		}
		expect(1)
		m.ForgetCounts()
		expect(0)
		brokers[0].Disconnect()
		if err := set(2); !errors.Is(err, broker.ErrDown) {
			t.Error(err)
		}
		brokers[0].Reconnect()
		// What is under way when the connection is cut may be stored.
		var err error
		peers[0].SetCounts(map[string]int{"a": 3}, func(e error) { err = e })
		time.Sleep(15 * time.Millisecond)
		brokers[0].Disconnect()
		settle()
		if !errors.Is(err, broker.ErrUnknown) {
			t.Error(err)
		}
		expect(3)
		m.Freeze()
		if _, err := count(); !errors.Is(err, broker.ErrDown) {
			t.Error(err)
		}
	})
}
