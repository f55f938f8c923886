package nats

import (
	"encoding/json"
	"fmt"
	"github.com/caddy-broadcast/caddy-broadcast/internal/brokerlog"
	"strings"
	"testing"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/natstest"
	natsgo "github.com/nats-io/nats.go"
)

// awaitProblem waits until the status says what is wrong.
func (n *node) awaitProblem(t *testing.T, want ...string) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		text, found := n.Status().Problem, 0
		for _, w := range want {
			if strings.Contains(text, w) {
				found++
			}
		}
		if found == len(want) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("problem %q, want %q", text, want)
		}
		time.Sleep(time.Millisecond) // Status has no event
	}
}

func TestEpochsBefore(t *testing.T) {
	for _, n := range []uint64{0, 1, 35, 36, 1 << 40} {
		epoch := newEpoch(n)
		if got := epochsBefore(epoch); got != n || !brokerlog.IsEpoch(epoch) {
			t.Errorf("%s: %d, want %d", epoch, got, n)
		}
	}
	for _, epoch := range []string{"", "short", "12345678", "12345678!"} {
		if got := epochsBefore(epoch); got != 0 {
			t.Errorf("%q: %d", epoch, got)
		}
	}
}

// I7: a stream that is rolled back twice to the same place gets two epochs, and not the one that it had there.
func TestRollBackTwice(t *testing.T) {
	s := natstest.Start(t, "")
	n := dialTest(t, testConfig(t, s.URL(), 1))
	n.MustOpen(t, "a")
	n.MustPublish(t, entry("a", "1"))
	s.Kill()
	rollBack := s.Snapshot()
	s.Run()
	for i := range 2 {
		n.Await(t, "repair", func() bool { return !n.Down && n.Repairs >= 2*i+1 })
		for range 5 {
			for {
				if _, err := n.Try(entry("a", "lost")); err == nil {
					break
				}
				n.Await(t, "the server", func() bool { return !n.Down })
			}
		}
		s.Kill()
		rollBack()
		s.Run()
		n.Await(t, "another epoch", func() bool { return len(n.Epochs) == i+2 && !n.Down })
	}
	seen := map[string]bool{}
	for _, epoch := range n.Epochs {
		if seen[epoch] {
			t.Errorf("an epoch came back: %v", n.Epochs)
		}
		seen[epoch] = true
	}
	if other := dialTest(t, testConfig(t, s.URL(), 1)); other.Epochs[0] != n.Epochs[2] {
		t.Errorf("a new node has the epoch %v, the other one %v", other.Epochs, n.Epochs)
	}
}

// I7: an account that may not change the stream cannot write a new epoch where it stays. Its node delivers nothing and says
// why, until one that may has done it.
func TestEpochCannotBeWritten(t *testing.T) {
	may := strings.Replace(permissions(t), `"$JS.API.STREAM.UPDATE.BROADCAST", `, "", 1)
	if may == permissions(t) {
		t.Fatal("the permission was not found")
	}
	s := natstest.Start(t, `authorization: { users: [{ user: u, password: "secret", `+may+` }, { user: admin, password: "secret" }] }`)
	c := testConfig(t, s.URL(), 1)
	c.User, c.Password = "admin", "secret"
	dialTest(t, c).Close()
	c.User, c.Manage = "u", false
	n := dialTest(t, c)
	n.MustOpen(t, "a")
	first := n.Epochs[0]
	s.Kill()
	rollBack := s.Snapshot()
	s.Run()
	n.Await(t, "repair", func() bool { return n.Repairs >= 2 && !n.Down })
	for range 20 {
		n.MustPublish(t, entry("a", "lost"))
	}
	s.Kill()
	rollBack()
	s.Run()
	n.awaitProblem(t, "epoch", "STREAM.UPDATE.BROADCAST", "may the account")
	if len(n.Epochs) != 1 || !n.Down {
		t.Fatalf("epochs %v, broken %v", n.Epochs, n.Down)
	}
	_, js := admin(t, s)
	c.User = "admin"
	other := dialTest(t, c)
	n.Await(t, "the new epoch", func() bool { return len(n.Epochs) == 2 && !n.Down })
	if n.Epochs[1] == first || other.Epochs[0] != n.Epochs[1] {
		t.Errorf("epochs %v, of the other node %v", n.Epochs, other.Epochs)
	}
	info, err := js.StreamInfo("BROADCAST")
	if err != nil || info.Config.Metadata[metadataEpoch] != n.Epochs[1] {
		t.Errorf("metadata %v, %v", info.Config.Metadata, err)
	}
}

// Metadata that somebody sets back are found by the audit. No node that has the epoch is disturbed but for a moment.
func TestEpochIsAudited(t *testing.T) {
	s := natstest.Start(t, "")
	n := dialTest(t, testConfig(t, s.URL(), 1))
	n.MustOpen(t, "a")
	_, js := admin(t, s)
	set := func(epoch string) {
		t.Helper()
		info, err := n.info(t.Context(), "")
		if err == nil {
			var request map[string]json.RawMessage
			if request, err = info.Config.changed(withEpoch(info.Config, epoch)); err == nil {
				err = n.api(t.Context(), "STREAM.UPDATE.BROADCAST", request, &streamInfo{})
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	first := n.Epochs[0]
	if _, err := js.Publish("bc.s."+epochName, []byte(newEpoch(1))); err != nil { // as a node does
		t.Fatal(err)
	}
	n.Await(t, "the new epoch", func() bool { return len(n.Epochs) == 2 && !n.Down })
	set(first)
	repaired := n.Repairs
	n.log.audit()
	n.Await(t, "repair", func() bool { return n.Repairs > repaired && !n.Down })
	info, err := n.info(t.Context(), "")
	if err != nil || info.Config.Metadata[metadataEpoch] != n.Epochs[1] || len(n.Epochs) != 2 {
		t.Errorf("metadata %v, epochs %v, %v", info.Config.Metadata, n.Epochs, err)
	}
}

func admin(t *testing.T, s *natstest.Server) (*natsgo.Conn, natsgo.JetStreamContext) {
	t.Helper()
	return s.JetStream(t, natsgo.UserInfo("admin", "secret"))
}

// What administrators set on a stream that is managed stays, as far as it does no harm.
func TestUpdateKeeps(t *testing.T) {
	s := natstest.Start(t, "server_tags: [ssd]")
	c := testConfig(t, s.URL(), 1)
	dialTest(t, c).Close()
	conn, _ := admin(t, s)
	config := func() (all map[string]any) {
		t.Helper()
		m, err := conn.Request("$JS.API.STREAM.INFO.BROADCAST", nil, patience)
		if err != nil {
			t.Fatal(err)
		}
		var info struct{ Config map[string]any }
		if err := json.Unmarshal(m.Data, &info); err != nil || info.Config == nil {
			t.Fatalf("%s: %v", m.Data, err)
		}
		return info.Config
	}
	set := map[string]any{
		"compression": "s2", "max_msg_size": 100_000.0, "description": "of the team", "duplicate_window": float64(5 * time.Minute),
		"placement": map[string]any{"tags": []any{"ssd"}}, "allow_msg_ttl": true,
	}
	all := config()
	for name, value := range set {
		all[name] = value
	}
	all["metadata"].(map[string]any)["team"] = "red"
	body, _ := json.Marshal(all)
	if m, err := conn.Request("$JS.API.STREAM.UPDATE.BROADCAST", body, patience); err != nil || strings.Contains(string(m.Data), `"error"`) {
		t.Fatalf("%s: %v", m.Data, err)
	}
	c.MaxBytes *= 2
	n := dialTest(t, c)
	n.log.noteLimit(t.Context())
	got := config()
	for name, want := range set {
		if fmt.Sprint(got[name]) != fmt.Sprint(want) {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
	metadata := got["metadata"].(map[string]any)
	if got["max_bytes"] != float64(c.MaxBytes) || metadata["team"] != "red" || metadata[metadataEpoch] != n.Epochs[0] {
		t.Errorf("%v", got)
	}
}
