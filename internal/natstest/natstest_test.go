package natstest

import (
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
)

func TestProxyDrops(t *testing.T) {
	s := Start(t, "")
	p := NewProxy(t, s)
	conn, err := natsgo.Connect(p.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	sub, _ := conn.SubscribeSync("a.>")
	p.Drop(func(subject string, _ []byte) bool { return subject == "a.1" })
	for _, subject := range []string{"a.1", "a.2"} {
		conn.Publish(subject, []byte("x"))
	}
	m, err := sub.NextMsg(5 * time.Second)
	if err != nil || m.Subject != "a.2" || p.Dropped() != 1 {
		t.Fatal(m, err, p.Dropped())
	}
}

func TestKillAndRun(t *testing.T) {
	for _, s := range StartCluster(t, 3, "") {
		s.Kill()
		s.Run()
		s.WaitReady()
	}
}

// No route of such a cluster goes past the proxies: without them a message does not reach another server.
func TestRouted(t *testing.T) {
	servers, routes := StartRouted(t, 3, "")
	var conns []*natsgo.Conn
	for _, s := range servers {
		conn, err := natsgo.Connect(s.URL())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conns = append(conns, conn)
	}
	wait := func(arrive bool) {
		t.Helper()
		for deadline := time.Now().Add(30 * time.Second); ; {
			reached := 0
			for _, conn := range conns[1:] {
				sub, _ := conn.SubscribeSync("a")
				conn.Flush()
				conns[0].Publish("a", nil)
				if _, err := sub.NextMsg(200 * time.Millisecond); err == nil {
					reached++
				}
				sub.Unsubscribe()
			}
			if arrive && reached == 2 || !arrive && reached == 0 {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("a message reaches %d of 2 others", reached)
			}
		}
	}
	wait(true)
	for _, r := range routes {
		r.Refuse()
	}
	wait(false)
	for _, r := range routes {
		r.Accept()
	}
	wait(true)
}
