package nats

import (
	"context"
	"fmt"
	"testing"

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
	stale := 0
	var want uint64 // entries of the channel
	for range 300 {
		place := from.MustPublish(t, entry("a", "x"))[0]
		want++
		if m, err := direct.Request("$JS.API.DIRECT.GET.BROADCAST", []byte(`{"last_by_subj":"bc.s.a"}`), patience); err != nil {
			t.Fatal(err)
		} else if m.Header.Get("Nats-Sequence") != fmt.Sprint(place.Seq) {
			stale++
		}
		es, err := n.Last(context.Background(), "a", 1, 1<<20)
		if err != nil || len(es) != 1 || es[0].Seq != place.Seq {
			t.Fatalf("Last: %v, %v, and %d is stored", es, err, place.Seq)
		}
		es, complete, err := n.Read(context.Background(), "a", place.Seq-1, 10, 1<<20)
		if err != nil || len(es) != 1 || es[0].Seq != place.Seq || !complete && want > 1 {
			t.Fatalf("Read: %v, complete %v, %v, and %d is stored", es, complete, err, place.Seq)
		}
	}
	t.Logf("%d of 300 plain answers were out of date; Read and Last were right", stale)
}
