package cluster

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/nats-io/nats.go"

	"github.com/caddy-broadcast/caddy-broadcast/internal/natstest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/servertest"
)

// single is three nodes on one server, each with a proxy between.
type single struct {
	server  server
	proxies []*servertest.Proxy
	nodes   []*node
	options func(more, addr string) string // of a node's hub that uses an address
	other   string                         // more options: another log

	// Of NATS.
	nats  *natstest.Server
	drops []*natstest.Proxy // the proxies
}

// server is a server of a broker.
type server interface {
	Addr() string
	Kill()
	Run()
	WaitReady()
}

type natsServer struct{ *natstest.Server }

func (s natsServer) WaitReady() { s.Server.WaitReady() }

func startSingle(t *testing.T) *single {
	t.Helper()
	nats := natstest.Start(t, "write_deadline: \"1s\"")
	s := &single{server: natsServer{nats}, nats: nats, other: "stream OTHER\nprefix other"}
	s.options = func(more, addr string) string { return broker(one+"\n"+more, "nats://"+addr) }
	for range 3 {
		p := natstest.NewProxy(t, nats)
		s.drops, s.proxies = append(s.drops, p), append(s.proxies, p.Proxy)
	}
	s.startNodes(t)
	return s
}

func (s *single) startNodes(t *testing.T) {
	t.Helper()
	s.nodes = startNodes(t, 3, func(i int) string { return s.options("publish_timeout 1s", s.proxies[i].Addr()) })
}

// in returns it for a subtest.
func (s *single) in(t *testing.T) *single {
	sub := *s
	sub.nodes = nil
	for _, n := range s.nodes {
		sub.nodes = append(sub.nodes, n.In(t))
	}
	return &sub
}

// TestOneServer is what fails with one nats-server. The subtests share it and the nodes, and each leaves them in order.
func TestOneServer(t *testing.T) {
	t.Parallel()
	s := startSingle(t)
	for _, row := range []struct {
		name string
		test func(*testing.T, *single)
	}{
		{"unreachable", testUnreachable},
		{"without ack", testWithoutAck},
		{"killed", testKilled},
		{"killed often", testTruthOfOne},
		{"slow", testSlow},
		{"republish lost", testRepublishLost},
		{"lists", testLists},
		{"inspector", testInspector},
		{"kicks", testKicks},
		{"subscriptions", testSubscriptions},
		{"too big", testTooBig},
		{"foreign", testForeign},
		{"keys", testKeys},
		{"wrong prefix", testWrongPrefix},
		{"max_bytes", testMaxBytes},
		{"node killed", testNodeKilled},
		{"presence", testPresence},
		{"conflate", testConflate},
		{"Socket.IO", testSocketIO},
		{"kept", testKept}, // it leaves a node behind that is still asked for a while
		{"node cut off", testNodeCutOff},
		{"node paused", testNodePaused},
		{"reload", testReload},
		{"rolled back", testRolledBack},
		{"deleted", testDeleted},
	} {
		if !t.Run(row.name, func(t *testing.T) { row.test(t, s.in(t)) }) && t.Context().Err() != nil {
			return
		}
	}
}

// A node whose broker cannot be reached says so at once, and publishes nothing. A client that publishes over a WebSocket
// is held back for a while first. Subscribers stay, and get everything afterwards.
func testUnreachable(t *testing.T, s *single) {
	a, b := s.nodes[0], s.nodes[1]
	all := join(t, s.nodes, "unreachable")
	f, err := openFeed(t.Context(), a.Addr, "unreachable")
	if err != nil {
		t.Fatal(err)
	}
	publisher := open(t, a, raw, "", "elsewhere")
	s.proxies[0].Refuse()
	a.waitState("broker down", func(v totals) bool { return !v.Broker.Up })
	begun := time.Now()
	got := mustNot(t, a, "unreachable", "no", "", http.StatusServiceUnavailable)
	if got.retryAfter == "" || !strings.Contains(got.body, "nothing was published") || time.Since(begun) > 3*time.Second {
		t.Errorf("%+v after %v", got, time.Since(begun))
	}
	a.ExpectMetrics("broker_up 0")
	if err := publisher.ws.Write(t.Context(), websocket.MessageText, []byte("no")); err != nil {
		t.Fatal(err)
	}
	if _, code, err := f.publish(t.Context(), "no", ""); code != "unavailable" || err != nil {
		t.Errorf("broadcast.v1: %q %v", code, err)
	}
	publisher.expectClose(t, websocket.StatusTryAgainLater)
	send(t, b, "unreachable", "1", "")
	send(t, b, "unreachable", "2", "")
	s.proxies[0].Accept()
	a.waitUp()
	a.ExpectMetrics("broker_up 1")
	send(t, a, "unreachable", "3", "")
	all.expect(t, "1", "2", "3")
}

// A message whose ack does not come may be stored. Its publisher is told so, and gets the ID of the stored one if it repeats
// the message with its key, wherever that is.
func testWithoutAck(t *testing.T, s *single) {
	a, b, proxy := s.nodes[0], s.nodes[1], s.drops[0]
	all := join(t, s.nodes, "ack")
	f, err := openFeed(t.Context(), a.Addr, "ack")
	if err != nil {
		t.Fatal(err)
	}
	publisher := open(t, a, raw, "", "elsewhere")
	proxy.Drop(func(subject string, _ []byte) bool {
		return strings.HasPrefix(subject, "_INBOX_bc.") && strings.Contains(subject, ".a.")
	})
	mustNot(t, a, "ack", "stored", "k1", http.StatusGatewayTimeout)
	if _, code, err := f.publish(t.Context(), "stored too", "k2"); code != "unknown" || err != nil {
		t.Errorf("broadcast.v1: %q %v", code, err)
	}
	if err := publisher.ws.Write(t.Context(), websocket.MessageText, []byte("x")); err != nil {
		t.Fatal(err)
	}
	publisher.expectClose(t, websocket.StatusTryAgainLater)
	proxy.Drop(nil)
	id := send(t, b, "ack", "stored", "k1")
	send(t, s.nodes[2], "ack", "stored too", "k2")
	all.expect(t, "stored")
	if all[0].lastID != id {
		t.Errorf("the repeated one has the ID %s, and it came with %s", id, all[0].lastID)
	}
	all.expect(t, "stored too")

	// The same, with a connection that passes nothing on.
	proxy.Hold()
	mustNot(t, a, "ack", "held", "k3", http.StatusGatewayTimeout)
	send(t, b, "ack", "held", "k3")
	proxy.Pass()
	a.waitUp()
	send(t, a, "ack", "held", "k3")
	send(t, a, "ack", "last", "")
	all.expect(t, "held", "last")
}

// A server that is killed, and back a second later, has lost nothing. Publishers are told to wait.
func testKilled(t *testing.T, s *single) {
	all := join(t, s.nodes, "killed")
	send(t, s.nodes[0], "killed", "before", "")
	s.server.Kill()
	s.nodes[0].waitState("broker down", func(v totals) bool { return !v.Broker.Up })
	time.AfterFunc(time.Second, s.server.Run)
	texts, told := insistAll(t, s.nodes, "killed", "after", 20)
	if told[http.StatusServiceUnavailable] == 0 || told[0] > 0 {
		t.Errorf("meanwhile publishers were told %v", told)
	}
	all.expect(t, append([]string{"before"}, texts...)...)
}

// A server that is far away holds those back who publish over WebSockets. Nothing is lost, and their order is kept.
func testSlow(t *testing.T, s *single) {
	all := join(t, s.nodes, "slow")
	publisher := open(t, s.nodes[0], raw, "", "slow")
	s.proxies[0].Delay(100 * time.Millisecond)
	var texts []string
	for i := range 300 {
		texts = append(texts, fmt.Sprint(i))
		if err := publisher.ws.Write(t.Context(), websocket.MessageText, []byte(texts[i])); err != nil {
			t.Fatal(err)
		}
		if n := s.nodes[0].metric("broker_in_flight"); n > 64 {
			t.Fatalf("%v messages have no answer", n)
		}
	}
	all.expect(t, texts...)
	s.proxies[0].Delay(0)
}

// What the server sends a node and the network loses is noticed with the next message of the channel. It comes late, but in
// order, for a client that is on this channel alone. One that has had later messages of others is told of a gap.
func testRepublishLost(t *testing.T, s *single) {
	all := join(t, s.nodes, "lossy")
	here, elsewhere := open(t, s.nodes[0], v1, "", "lossy", "sound"), open(t, s.nodes[1], v1, "", "lossy", "sound")
	send(t, s.nodes[0], "lossy", "0", "")
	all.expect(t, "0")
	here.expect(t, "0")
	elsewhere.expect(t, "0")
	before := s.drops[0].Dropped()
	s.drops[0].Drop(func(subject string, payload []byte) bool {
		return subject == "bc.l.lossy" && strings.HasSuffix(string(payload), "lost\r\n")
	})
	send(t, s.nodes[1], "lossy", "lost", "")
	send(t, s.nodes[1], "sound", "1", "")
	here.expect(t, "1")
	if n := s.drops[0].Dropped() - before; n != 1 {
		t.Fatalf("%d messages were dropped", n)
	}
	send(t, s.nodes[1], "lossy", "2", "")
	all.expect(t, "lost", "2")
	here.expectGap(t, "lossy")
	here.expect(t, "2")
	elsewhere.expect(t, "lost", "1", "2")
	s.drops[0].Drop(nil)
	s.nodes[0].ExpectMetrics(`broker_repairs_total{cause="chain"} 1`)
}

// A message that NATS would not take is refused by the node, which has warned of the route that lets it in.
func testTooBig(t *testing.T, s *single) {
	a := s.nodes[0]
	a.WaitLog("lower max_message, or raise the broker's limit")
	all := join(t, s.nodes, "big")
	big := strings.Repeat("x", 1<<20)
	mustNot(t, a, "big", big, "", http.StatusRequestEntityTooLarge)
	c := open(t, a, v1, "", "big")
	f := &feed{client: c}
	if _, code, err := f.publish(t.Context(), big, ""); code != "too_big" || err != nil {
		t.Errorf("broadcast.v1: %q %v", code, err)
	}
	publisher := open(t, a, raw, "", "elsewhere")
	if err := publisher.ws.Write(t.Context(), websocket.MessageText, []byte(big)); err != nil {
		t.Fatal(err)
	}
	publisher.expectClose(t, websocket.StatusMessageTooBig)
	send(t, a, "big", "small", "")
	all.expect(t, "small")
	large := strings.Repeat("x", 1<<20-1000)
	send(t, a, "big", large, "")
	all.expect(t, large)
}

// What others publish on the subjects of the log is not delivered, and does no harm.
func testForeign(t *testing.T, s *single) {
	conn, js := s.nats.JetStream(t)
	all := join(t, s.nodes, "foreign")
	send(t, s.nodes[0], "foreign", "1", "")
	for range 3 {
		if _, err := js.Publish("bc.s.foreign", []byte("stored, but not ours")); err != nil {
			t.Fatal(err)
		}
		if err := conn.Publish("bc.l.foreign", []byte("only sent")); err != nil {
			t.Fatal(err)
		}
	}
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	send(t, s.nodes[1], "foreign", "2", "")
	all.expect(t, "1", "2")
	// At least, because a node that has to read the log again counts what is foreign there again.
	for _, n := range s.nodes {
		for deadline := time.Now().Add(10 * time.Second); n.metric("broker_foreign_total") < 6; time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("node %s has counted %v foreign messages", n.name, n.metric("broker_foreign_total"))
			}
		}
	}
}

// The nodes of another prefix have another log. A client that moves there is told that it misses something.
func testWrongPrefix(t *testing.T, s *single) {
	other := startNodes(t, 1, func(int) string { return s.options(s.other, s.server.Addr()) })[0]
	if other.epoch() == s.nodes[0].epoch() {
		t.Error("two logs have one epoch")
	}
	id := send(t, s.nodes[0], "prefix", "1", "")
	c := open(t, other, v1, id, "prefix", "second")
	c.expectGap(t, "prefix", "second")
	send(t, other, "prefix", "2", "")
	c.expect(t, "2")
	id = c.lastID
	for _, kind := range []string{v1, stream} {
		c := open(t, s.nodes[1], kind, id, "prefix")
		c.expectGap(t, "prefix")
	}
}

// When the stream is full its oldest messages go. A client that resumes from before is told.
func testMaxBytes(t *testing.T, s *single) {
	options := func(int) string { return s.options("stream SMALL\nprefix small\nmax_bytes 1MiB", s.server.Addr()) }
	small := startNodes(t, 1, options)[0]
	first := send(t, small, "full", "first", "")
	last, half := "", strings.Repeat("x", 1<<15)
	for i := range 40 {
		last = send(t, small, "full", fmt.Sprint(half, i), "")
	}
	cold := startNodes(t, 1, options)[0]
	for _, kind := range []string{v1, stream} {
		open(t, cold, kind, first, "full").expectGap(t, "full")
		c := open(t, cold, kind, last, "full")
		send(t, small, "full", kind, "")
		c.expect(t, kind)
		last = c.lastID
	}
}

// epochEntries returns the entries that begin an epoch.
func epochEntries(t *testing.T, js nats.JetStreamContext) (n int) {
	t.Helper()
	info, err := js.StreamInfo("BROADCAST", &nats.StreamInfoRequest{SubjectsFilter: "bc.s._epoch"})
	if err != nil {
		t.Fatal(err)
	}
	return int(info.State.Subjects["bc.s._epoch"])
}

// expectEpoch waits until all nodes have another epoch, the same one.
func (s *single) expectEpoch(t *testing.T, before string) (now string) {
	t.Helper()
	for _, n := range s.nodes {
		n.waitState("another epoch", func(v totals) bool { return !strings.HasPrefix(v.ID, before+"-") && v.Broker.Up })
	}
	now = s.nodes[0].epoch()
	if !slices.Equal([]string{now, now}, []string{s.nodes[1].epoch(), s.nodes[2].epoch()}) {
		t.Errorf("the epochs are %s, %s and %s", now, s.nodes[1].epoch(), s.nodes[2].epoch())
	}
	return now
}
