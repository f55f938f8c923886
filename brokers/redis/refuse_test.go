package redis

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
	"github.com/caddy-broadcast/caddy-broadcast/internal/redistest"
)

// eager publishes as soon as it is told that the log is up.
type eager struct {
	*node
	answers chan error
}

func (e eager) Repaired() {
	e.node.Repaired()
	e.node.log.Publish([]broker.Entry{entry("a", "x")}, func(_ []broker.Place, err error) { e.answers <- err })
}

// After the log has reported that it is up, publishing works, also if the server could not be reached before.
func TestPublishAtOnce(t *testing.T) {
	s := redistest.Start(t)
	proxy := redistest.NewProxy(t, s)
	proxy.Refuse()
	answers := make(chan error, 10)
	n := dialSink(t, testConfig(t, proxy.Addr()), keepAll, func(n *node) broker.Sink { return eager{n, answers} })
	awaitProblem(t, n, "not connected: ")
	proxy.Accept()
	if err := <-answers; err != nil {
		t.Error(err)
	}
}

// A call that has waited too long for a session is answered with ErrDown, and is not stored with the rest of its batch.
func TestExpiredIsNotStored(t *testing.T) {
	s := redistest.Start(t)
	n := dialTest(t, testConfig(t, s.Addr()))
	n.MustPublish(t, entry("a", "0"))
	expired, stored := make(chan error, 1), make(chan error, 1)
	call := func(data string, deadline time.Duration, to chan error) part {
		es := []broker.Entry{entry("a", data)}
		return part{es: es, c: &call{
			es: es, next: 1, deadline: time.Now().Add(deadline), done: func(_ []broker.Place, err error) { to <- err },
		}}
	}
	// As after a batch that another session was told not to store.
	p := &n.log.publisher
	p.mu.Lock()
	p.number++
	p.flying = &batch{number: p.number, size: 2, parts: []part{call("expired", -time.Second, expired), call("stored", patience, stored)}}
	p.mu.Unlock()
	p.wake()
	if err := <-expired; !errors.Is(err, broker.ErrDown) {
		t.Errorf("the one that expired: %v", err)
	}
	if err := <-stored; err != nil {
		t.Errorf("the other one: %v", err)
	}
	es, err := n.Last(t.Context(), "a", 10, 1000)
	if err != nil || len(es) != 2 || string(es[1].Data) != "stored" {
		t.Errorf("stored: %v, %v", es, err)
	}
}

// A server without memory stores nothing of a batch, and people see why.
func TestOutOfMemory(t *testing.T) {
	s := redistest.Start(t)
	n := dialTest(t, testConfig(t, s.Addr()))
	n.MustOpen(t, "a")
	n.MustPublish(t, entry("a", "1"))
	s.Do("CONFIG", "SET", "maxmemory", "1")
	if _, err := n.Try(entry("a", "2"), entry("b", "2")); !errors.Is(err, broker.ErrDown) {
		t.Errorf("without memory: %v", err)
	}
	if p := n.Status().Problem; !strings.Contains(p, "OOM") {
		t.Errorf("the problem is %q", p)
	}
	s.Do("CONFIG", "SET", "maxmemory", "0")
	n.MustPublish(t, entry("a", "3"))
	if p := n.Status().Problem; p != "" {
		t.Errorf("later the problem is %q", p)
	}
	if es, complete, err := n.Read(t.Context(), "a", 0, 10, 1000); err != nil || !complete || len(es) != 2 {
		t.Errorf("stored: %v, %v, %v", es, complete, err)
	}
}

// A part that is refused is not taken for all of it.
func TestRefusedInTheMiddle(t *testing.T) {
	s := redistest.Start(t, "user app on nopass ~* &{bc:0}:o:* &{bc:0}:p:* &{bc:0}:c:a +@all")
	c := testConfig(t, s.Addr())
	c.User, c.Password = "app", "any"
	n := dialTest(t, c)
	if _, err := n.Try(entry("a", "1"), entry("denied", "2")); !errors.Is(err, broker.ErrUnknown) {
		t.Errorf("Publish: %v", err)
	}
	n.MustPublish(t, entry("a", "3"))
}

// A reader is not told that it has all of a channel that the server has removed.
func TestEvicted(t *testing.T) {
	// Of the log only the last reply to a publisher has a lifetime here. So what is evicted is not up to chance.
	s := redistest.Start(t, "maxmemory-policy volatile-lru")
	n := dialTest(t, testConfig(t, s.Addr()))
	n.MustPublish(t, entry("a", "1"))
	at := n.MustPublish(t, entry("b", "2"))[0].Seq
	if _, complete, err := n.Read(t.Context(), "a", 0, 10, 1000); err != nil || !complete {
		t.Fatalf("before: %v, %v", complete, err)
	}
	s.Do("DEL", "{bc:0}:h:"+s.Do("HGET", "{bc:0}:m", "x")+":a")
	for i := range 100 {
		s.Do("SET", fmt.Sprint("other ", i), strings.Repeat("x", 1000), "EX", "1000")
	}
	s.Do("CONFIG", "SET", "maxmemory", fmt.Sprint(usedMemory(t, s)-20_000))
	s.Do("SET", "last", "x")
	s.Do("CONFIG", "SET", "maxmemory", "0")
	if info := s.Do("INFO", "stats"); strings.Contains(info, "evicted_keys:0\r\n") {
		t.Fatal("nothing was evicted")
	}
	if _, complete, err := n.Read(t.Context(), "a", 0, 10, 1000); err != nil || complete {
		t.Errorf("after: %v, %v", complete, err)
	}
	if _, complete, err := n.Read(t.Context(), "a", at, 10, 1000); err != nil || !complete {
		t.Errorf("from now on: %v, %v", complete, err)
	}
}

func usedMemory(t *testing.T, s *redistest.Server) (bytes int) {
	_, text, _ := strings.Cut(s.Do("INFO", "memory"), "used_memory:")
	if _, err := fmt.Sscan(text, &bytes); err != nil {
		t.Fatal(err)
	}
	return bytes
}

// If the server's clock goes back, then what was noted of times before does not make what expires look complete.
func TestClockGoesBack(t *testing.T) {
	s := redistest.Start(t)
	n := dialWith(t, testConfig(t, s.Addr()), broker.Retention{Messages: 100, Age: 2 * time.Minute})
	old := n.MustPublish(t, entry("a", "0"))[0].Seq
	// As if the clock had been an hour ahead until now.
	incarnation := s.Do("HGET", "{bc:0}:m", "x")
	ahead := time.Now().Add(time.Hour)
	s.Do("XADD", "{bc:0}:t:"+incarnation, fmt.Sprint(ahead.UnixMilli()), "s", "0")
	s.Do("HSET", "{bc:0}:m", "tb", fmt.Sprint(ahead.UnixMilli()/10_000))
	n.MustPublish(t, entry("b", "expires"))
	s.Do("DEL", "{bc:0}:h:"+incarnation+":b")
	// As if the hour had passed, so that only the note of before is young: entries of now are older.
	for _, id := range strings.Fields(strings.Trim(s.Do("XRANGE", "{bc:0}:t:"+incarnation, "-", fmt.Sprint(time.Now().UnixMilli())), "[]")) {
		if strings.HasSuffix(strings.Trim(id, "[]"), "-0") {
			s.Do("XDEL", "{bc:0}:t:"+incarnation, strings.Trim(id, "[]"))
		}
	}
	if _, complete, err := n.Read(t.Context(), "b", old, 10, 1000); err != nil || complete {
		t.Errorf("Read: %v, %v", complete, err)
	}
}

// While a cluster moves the log to another server, a batch is stored as a whole or not at all.
func TestResharding(t *testing.T) {
	a, b := startCluster(t)
	c := testConfig(t, a.Addr())
	c.Cluster = true
	n := dialTest(t, c)
	n.MustPublish(t, entry("x", "0"), entry("y", "0"))
	from, to := a, b
	if n.Status().Server == b.Addr() {
		from, to = b, a
	}
	slot := from.Do("CLUSTER", "KEYSLOT", "{bc:0}:m")
	to.Do("CLUSTER", "SETSLOT", slot, "IMPORTING", from.Do("CLUSTER", "MYID"))
	from.Do("CLUSTER", "SETSLOT", slot, "MIGRATING", to.Do("CLUSTER", "MYID"))
	streams := "{bc:0}:h:" + from.Do("HGET", "{bc:0}:m", "x") + ":"
	from.Do("MIGRATE", "127.0.0.1", to.Port, streams+"y", "0", "5000")
	before := from.Do("HGET", "{bc:0}:m", "s")
	if _, err := n.Try(entry("x", "1"), entry("y", "1")); !errors.Is(err, broker.ErrDown) {
		t.Errorf("while it is moved: %v", err)
	}
	if length, s := from.Do("XLEN", streams+"x"), from.Do("HGET", "{bc:0}:m", "s"); length != "1" || s != before {
		t.Errorf("a part was stored: %s of x, position %s", length, s)
	}
	for _, key := range strings.Fields(strings.Trim(from.Do("CLUSTER", "GETKEYSINSLOT", slot, "100"), "[]")) {
		from.Do("MIGRATE", "127.0.0.1", to.Port, key, "0", "5000")
	}
	for _, s := range []*redistest.Server{to, from} {
		s.Do("CLUSTER", "SETSLOT", slot, "NODE", to.Do("CLUSTER", "MYID"))
	}
	n.Await(t, "the server that has it now", func() bool { return len(n.Epochs) == 2 && !n.Down })
	if p := n.MustPublish(t, entry("x", "2"), entry("y", "2")); n.Status().Server != to.Addr() || p[0].Seq != 3 {
		t.Errorf("%v on %s", p, n.Status().Server)
	}
}
