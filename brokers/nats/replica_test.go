package nats

import (
	"context"
	"fmt"
	"testing"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
	"github.com/caddy-broadcast/caddy-broadcast/internal/natstest"
	natsgo "github.com/nats-io/nats.go"
)

// A replica that lags behind answers direct gets from what it has: "no message", or an old one as the newest. Read and Last
// have to know better. The node is connected to the server that lags, which answers by itself.
func TestLaggingReplica(t *testing.T) {
	servers := natstest.StartCluster(t, 3, "")
	from := dialTest(t, testConfig(t, servers[0].URL(), 3))
	var follower *natstest.Server
	info, err := natsgo.Connect(servers[0].URL())
	if err != nil {
		t.Fatal(err)
	}
	defer info.Close()
	js, _ := info.JetStream()
	for i := range 3 {
		// The leader must go on, and so must the server that publishes.
		if stream, err := js.StreamInfo("BROADCAST"); err == nil && i > 0 && stream.Cluster.Leader != fmt.Sprintf("n%d", i) {
			follower = servers[i]
		}
	}
	n := dialTest(t, testConfig(t, follower.URL(), 3))
	direct, err := natsgo.Connect(follower.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer direct.Close()
	stale, reads := 0, 0
	for round := range 15 {
		channel := fmt.Sprint("a", round)
		follower.Freeze()
		var es []broker.Entry
		for i := range 300 {
			es = append(es, entry(channel, fmt.Sprint(i)))
		}
		newest := from.publish(t, es...)[299].Seq
		// These wait in the socket of the frozen server, and are answered first when it goes on.
		answers := make(chan *natsgo.Msg, 1)
		sub, _ := direct.ChanSubscribe(direct.NewInbox(), answers)
		direct.PublishRequest("$JS.API.DIRECT.GET.BROADCAST", sub.Subject, []byte(`{"last_by_subj":"bc.s.`+channel+`"}`))
		type result struct {
			es       []broker.Entry
			complete bool
			err      error
		}
		read := make(chan result, 1)
		go func() {
			es, complete, err := n.Read(context.Background(), channel, newest-200, 1000, 1<<30)
			read <- result{es, complete, err}
		}()
		follower.Thaw()
		if m := <-answers; m.Header.Get("Nats-Sequence") != fmt.Sprint(newest) {
			stale++
		}
		sub.Unsubscribe()
		r := <-read
		if r.err != nil {
			continue // the client may have given up the frozen connection: nothing wrong was said
		}
		reads++
		if len(r.es) != 200 || !r.complete || r.es[199].Seq != newest {
			t.Errorf("Read returned %d entries, complete: %v", len(r.es), r.complete)
		}
	}
	if reads == 0 {
		t.Error("no Read was answered")
	}
	t.Logf("%d of 15 plain answers were out of date, %d reads, all right", stale, reads)
}
