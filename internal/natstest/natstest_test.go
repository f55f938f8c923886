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
