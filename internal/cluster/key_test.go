package cluster

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/caddy-broadcast/caddy-broadcast/internal/natstest"
)

// TestKeyOutlivesMessage: a key is known for two minutes on every node, even when the stream has dropped its message. The
// content of that is not known then, so another message with the key counts as the same.
func TestKeyOutlivesMessage(t *testing.T) {
	t.Parallel()
	server := natstest.Start(t, "")
	nodes := startNodes(t, 2, func(int) string { return broker(one+"\nmax_bytes 1MiB", server.URL()) })
	all := join(t, nodes, "keys")
	id := send(t, nodes[0], "keys", "original", "key")
	all.expect(t, "original")
	var texts []string
	half := strings.Repeat("x", 1<<15)
	for i := range 40 {
		texts = append(texts, fmt.Sprint(half, i))
		send(t, nodes[i%2], "keys", texts[i], "")
	}
	all.expect(t, texts...)
	_, js := server.JetStream(t)
	if _, err := js.GetMsg("BROADCAST", seqOf(id)); err == nil {
		t.Fatal("the stream has it still")
	}
	for _, n := range nodes {
		if again := send(t, n, "keys", "original", "key"); again != id {
			t.Errorf("node %s: it was published at %s, and again at %s", n.name, id, again)
		}
		a, err := post(t.Context(), n.Addr, "keys", "other", "key")
		if err != nil || a.status != http.StatusOK || a.id != id {
			t.Errorf("node %s: another message with its key: %+v %v", n.name, a, err)
		}
	}
	send(t, nodes[0], "keys", "last", "")
	all.expect(t, "last")
}
