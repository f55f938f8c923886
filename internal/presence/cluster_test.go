package presence_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
	"github.com/caddy-broadcast/caddy-broadcast/broker/brokertest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/nodes"
	"github.com/caddy-broadcast/caddy-broadcast/internal/presence"
)

// machine is a node, as package brokered makes it, on a broker in memory.
type machine struct {
	t       testing.TB
	hub     *hub.Hub
	table   *presence.Table
	options *hub.ConnOptions
	broker  *brokertest.MemoryBroker
}

func newMachine(t testing.TB, memory *brokertest.Memory, name string) *machine {
	t.Helper()
	m := &machine{t: t, hub: hub.New(hub.Config{}), broker: memory.Broker()}
	cluster := nodes.New(m.hub)
	m.table = presence.NewTable(m.hub)
	m.table.Share(cluster)
	m.options = options(m.table)
	err := m.hub.UseLog(func(sink broker.Sink) (broker.Log, error) {
		session := cluster.NewSession(name)
		log, err := m.broker.Dial(session.Sink(sink), broker.Options{Node: m.hub.Node(), Name: name, Message: session.Receive})
		if err != nil {
			return nil, err
		}
		return session.Attach(log), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func (m *machine) close() { m.hub.Close(hub.ReasonRestart, "", 0, time.Second) }

// expect checks what members of this node know.
func (m *machine) expect(users string, count int) {
	m.t.Helper()
	s, _ := m.table.Of("room")
	var got []string
	for _, member := range s.Members {
		got = append(got, member.User)
	}
	if strings.Join(got, " ") != users || s.Count != count {
		m.t.Errorf("%d members: %v, want %d: %s", s.Count, got, count, users)
	}
}

// withMachines runs a test with n nodes, in the time of testing/synctest.
func withMachines(t testing.TB, n int, test func(memory *brokertest.Memory, all []*machine)) {
	memory := brokertest.NewMemory(brokertest.MemoryConfig{Latency: time.Millisecond})
	defer memory.Close()
	var all []*machine
	for i := range n {
		all = append(all, newMachine(t, memory, fmt.Sprint("node", i)))
	}
	time.Sleep(3 * time.Second)
	test(memory, all)
	for _, m := range all {
		m.close()
	}
	time.Sleep(2 * time.Second)
}

// TestCluster: with a broker, members on all nodes know each other. A new node learns all of them. The members of a node that is
// cut off leave within ten seconds, and come back with it. Those on it keep their list meanwhile.
func TestCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		withMachines(t, 3, func(memory *brokertest.Memory, all []*machine) {
			a, b := all[0], all[1]
			join(t, a.hub, a.options, "ann")
			bob, _ := join(t, b.hub, b.options, "bob")
			join(t, b.hub, b.options, "")
			time.Sleep(3 * time.Second)
			synctest.Wait()
			a.expect("ann bob", 3)
			b.expect("ann bob", 3)

			fresh := newMachine(t, memory, "fresh")
			defer fresh.close()
			time.Sleep(3 * time.Second)
			join(t, fresh.hub, fresh.options, "eve")
			time.Sleep(3 * time.Second)
			synctest.Wait()
			for _, m := range []*machine{a, b, fresh} {
				m.expect("ann bob eve", 4)
			}

			b.broker.Disconnect()
			time.Sleep(10 * time.Second)
			synctest.Wait()
			a.expect("ann eve", 2)
			fresh.expect("ann eve", 2)
			b.expect("ann bob eve", 4)
			bob.Done()
			time.Sleep(7 * time.Second)
			synctest.Wait()
			b.expect("ann eve", 3)
			b.broker.Reconnect()
			time.Sleep(10 * time.Second)
			synctest.Wait()
			for _, m := range []*machine{a, b, fresh} {
				m.expect("ann eve", 3)
			}
		})
	})
}

// TestClusterTraffic: what a node is sent of each join on another one, while 10,000 clients join within five seconds on three nodes,
// and nothing of it grows with the number of members.
func TestClusterTraffic(t *testing.T) {
	const count = 10_000
	for _, row := range []struct {
		rooms           int
		messages, bytes float64 // at most
	}{
		{1, 0.01, 20}, {100, 0.1, 120}, {count / 2, 0.3, 250},
	} {
		t.Run(fmt.Sprint(row.rooms, " rooms"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				withMachines(t, 3, func(_ *brokertest.Memory, all []*machine) {
					quiet := sentWhile(all, func() { time.Sleep(20 * time.Second) })
					busy := sentWhile(all, func() {
						for i := range count {
							m := all[i%3]
							c, _, err := m.hub.Connect(hub.Subscriber{Channels: []string{fmt.Sprint("room", i%row.rooms)}, User: fmt.Sprint("user", i)}, m.options)
							if err != nil {
								t.Fatal(err)
							}
							c.Start(new(sink), nil)
							if i%20 == 19 {
								time.Sleep(10 * time.Millisecond)
							}
						}
						time.Sleep(15 * time.Second)
						synctest.Wait()
					})
					joins := float64(2 * count) // each is told to two nodes
					messages, bytes := (float64(busy.Messages)-float64(quiet.Messages))/joins, (float64(busy.Bytes)-float64(quiet.Bytes))/joins
					t.Logf("%.4f messages and %.0f bytes per join and other node", messages, bytes)
					if messages > row.messages || bytes > row.bytes {
						t.Errorf("%.4f messages and %.0f bytes per join and other node, want %v and %v", messages, bytes, row.messages, row.bytes)
					}
				})
			})
		})
	}
}

// sentWhile returns what the nodes are sent of each other's messages while f runs.
func sentWhile(all []*machine, f func()) (n brokertest.Flow) {
	sum := func() (n brokertest.Flow) {
		for _, m := range all {
			x := m.broker.Traffic().Message
			n.Messages, n.Bytes = n.Messages+x.Messages, n.Bytes+x.Bytes
		}
		return n
	}
	before := sum()
	f()
	after := sum()
	return brokertest.Flow{Messages: after.Messages - before.Messages, Bytes: after.Bytes - before.Bytes}
}
