package cluster

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
)

// listed is an entry of a list.
type listed struct {
	ID, Node, User, Channel string
	Subscribers             int
}

// list gets a list from a node's admin API, page by page.
func (n *node) list(path string) (list []listed, pages int, missing string) {
	n.T.Helper()
	for path = "/broadcast" + path; path != ""; pages++ {
		resp, err := http.Get("http://" + n.Admin + path)
		if err != nil {
			n.T.Fatal(err)
		}
		var page []listed
		err = json.NewDecoder(resp.Body).Decode(&page)
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK || err != nil {
			n.T.Fatal(resp.Status, err)
		}
		list = append(list, page...)
		missing = resp.Header.Get("Broadcast-Missing")
		path, _, _ = strings.Cut(strings.TrimPrefix(resp.Header.Get("Link"), "<"), ">")
	}
	return list, pages, missing
}

// of connects clients of a user, and returns their IDs too.
func (n *node) of(user, channel string, count int) (conns []*websocket.Conn, ids []string) {
	n.T.Helper()
	for range count {
		c := n.Dial("/live/"+channel+"?user="+user, &websocket.DialOptions{Subprotocols: []string{v1}})
		_, frame, err := c.Read(n.T.Context())
		var hello []struct{ Hello struct{ Connection string } }
		if err == nil {
			err = json.Unmarshal(frame, &hello)
		}
		if err != nil || len(hello) == 0 {
			n.T.Fatalf("%s, %v", frame, err)
		}
		conns, ids = append(conns, c), append(ids, hello[0].Hello.Connection)
	}
	return conns, ids
}

// waitNodes waits until each of the nodes knows of the others.
func waitNodes(nodes []*node, count int) {
	for _, n := range nodes {
		n.waitState(fmt.Sprint(count, " nodes"), func(v totals) bool { return v.Broker != nil && v.Broker.Nodes == count })
	}
}

// command runs `caddy broadcast …` against the node.
func (n *node) command(args ...string) (out string, err error) {
	cmd := exec.Command(os.Args[0], append(append([]string{"broadcast"}, args...), "--address", n.Admin)...)
	cmd.Env = append(os.Environ(), caddytest.AsCaddy+"=1")
	p, err := cmd.CombinedOutput()
	return string(p), err
}

// Lists are those of all nodes, whichever is asked, and name who is missing.
func testLists(t *testing.T, s *single) {
	waitNodes(s.nodes, 3)
	var ids []string
	for i, n := range s.nodes {
		_, of := n.of(fmt.Sprint("user", i), "lists", 2+i)
		ids = append(ids, of...)
	}
	slices.SortFunc(ids, func(a, b string) int { return strings.Compare(a[:6], b[:6]) })
	for _, n := range s.nodes {
		list, pages, missing := n.list("/connections?channel=lists&limit=2")
		var got []string
		for _, c := range list {
			got = append(got, c.ID)
		}
		if !slices.Equal(got, ids) || pages != 5 || missing != "" {
			t.Errorf("%s: %v on %d pages, not %v; missing %q", n.name, got, pages, ids, missing)
		}
		list, _, _ = n.list("/channels?prefix=lists")
		if len(list) != 1 || list[0].Subscribers != 9 {
			t.Errorf("%s: %+v", n.name, list)
		}
		if status, body := n.Do("GET", n.Admin+"/broadcast/channels/lists", ""); status != 200 || !strings.Contains(body, `"subscribers":9`) ||
			!strings.Contains(body, `"users":{"user0":2,"user1":3,"user2":4}`) {
			t.Errorf("%d %s", status, body)
		}
		if list, _, _ = n.list("/connections?channel=lists&node=b"); len(list) != 3 || list[0].Node != "b" || list[0].User != "user1" {
			t.Errorf("%+v", list)
		}
	}
	if status, body := s.nodes[0].Do("GET", s.nodes[0].Admin+"/broadcast/connections?node=d", ""); status != 404 {
		t.Errorf("%d %s", status, body)
	}

	s.nodes[2].freeze()
	defer s.nodes[2].thaw()
	list, _, missing := s.nodes[0].list("/connections?channel=lists")
	if len(list) != 5 || missing != "c" {
		t.Errorf("%d connections, missing %q", len(list), missing)
	}
	if status, body := s.nodes[0].Do("GET", s.nodes[0].Admin+"/broadcast/channels/lists", ""); status != 200 || !strings.Contains(body, `"subscribers":5`) || !strings.Contains(body, `"missing":["c"]`) {
		t.Errorf("%d %s", status, body)
	}
	out, err := s.nodes[0].command("connections", "--channel", "lists")
	if err != nil || strings.Count(out, " lists\n") != 5 || !strings.Contains(out, "NODE") || !strings.Contains(out, "node c has not answered") {
		t.Errorf("%s %v", out, err)
	}
}

// A kick reaches all nodes: those that are away when they are back.
func testKicks(t *testing.T, s *single) {
	waitNodes(s.nodes, 3)
	a, b, c := s.nodes[0], s.nodes[1], s.nodes[2]
	var anns []*websocket.Conn
	for _, n := range s.nodes {
		conns, _ := n.of("ann", "kicks", 1)
		anns = append(anns, conns...)
	}
	bens, ids := c.of("ben", "kicks", 2)
	kick := func(by *node, what string, status int, want string) {
		t.Helper()
		got, body := by.Do("DELETE", by.Admin+"/broadcast/connections"+what, "")
		if got != status || !strings.Contains(body, want) {
			t.Errorf("%s at %s: %d %s, want %d %s", what, by.name, got, body, status, want)
		}
	}
	kick(a, "/"+ids[0], 200, `{"closed":1,"nodes":1,"missing":[]}`)
	c.ExpectClose(bens[0], websocket.StatusPolicyViolation)
	kick(a, "/"+ids[0], 404, "no such connection")
	kick(b, "?user=ann", 200, `{"closed":3,"nodes":3,"missing":[]}`)
	for _, conn := range anns {
		a.ExpectClose(conn, websocket.StatusPolicyViolation)
	}
	kick(b, "?user=ann", 404, "no such connection")

	cut, _ := a.of("ann", "kicks", 1)
	frozen, _ := c.of("ann", "kicks", 1)
	s.proxies[0].Refuse()
	a.waitState("broker down", func(v totals) bool { return !v.Broker.Up })
	c.freeze()
	kick(b, "?user=ann", 202, `{"closed":0,"nodes":1,"missing":["a","c"]}`)
	if out, err := b.command("kick", ids[1]); err != nil || !strings.Contains(out, "closed 0") || !strings.Contains(out, "node c has not answered") {
		t.Errorf("%s %v", out, err)
	}
	c.thaw()
	s.proxies[0].Accept()
	c.ExpectClose(frozen[0], websocket.StatusPolicyViolation)
	c.ExpectClose(bens[1], websocket.StatusPolicyViolation)
	a.ExpectClose(cut[0], websocket.StatusPolicyViolation)
	a.waitUp()
	waitNodes(s.nodes, 3)

	cut, _ = a.of("ann", "kicks", 1)
	other, _ := b.of("ann", "kicks", 1)
	s.proxies[0].Refuse()
	a.waitState("broker down", func(v totals) bool { return !v.Broker.Up })
	kick(a, "?user=ann", 503, `"closed":1,"nodes":1,"missing":["b","c"]}`)
	a.ExpectClose(cut[0], websocket.StatusPolicyViolation)
	s.proxies[0].Accept()
	a.waitUp()
	begun := time.Now()
	kick(a, "?user=ann", 200, `{"closed":1,"nodes":3,"missing":[]}`)
	b.ExpectClose(other[0], websocket.StatusPolicyViolation)
	t.Logf("a kick takes %v", time.Since(begun))
}

// A backend subscribes and unsubscribes connections on all nodes, by whichever node it asks: on those that are away when they are back.
func testSubscriptions(t *testing.T, s *single) {
	waitNodes(s.nodes, 3)
	a, b, c := s.nodes[0], s.nodes[1], s.nodes[2]
	conns, ids := make(map[*node]*websocket.Conn), make(map[*node]string)
	for _, n := range s.nodes {
		of, id := n.of("sue", "subscriptions", 1)
		conns[n], ids[n] = of[0], id[0]
	}
	change := func(by *node, method, body string, status int, want string) {
		t.Helper()
		got, answer := by.Do(method, by.Admin+"/broadcast/subscriptions", body)
		if got != status || !strings.Contains(answer, want) {
			t.Fatalf("%s %s at %s: %d %s, want %d %s", method, body, by.name, got, answer, status, want)
		}
	}
	const user = `{"user":"sue","channel":"vip"}`

	change(a, "POST", user, 200, `{"subscribed":3,"nodes":3,"missing":[]}`)
	b.Publish("channel=vip", "one")
	for _, n := range s.nodes {
		expectSubscribed(n, conns[n], "one")
	}
	one := `{"connection":"` + ids[c] + `","channel":"vip"}`
	change(a, "DELETE", one, 200, `{"unsubscribed":1,"nodes":1,"missing":[]}`)
	change(a, "DELETE", one, 404, "no such connection")
	a.Publish("channel=vip", "two")
	a.Publish("channel=subscriptions", "three")
	for _, n := range s.nodes {
		if n == c {
			expectEntries(n, conns[n], `{"unsubscribed":{"channel":"vip"}}`, `"three"`)
		} else {
			expectEntries(n, conns[n], `"two"`, `"three"`)
		}
	}

	c.freeze()
	change(b, "POST", user, 202, `{"subscribed":2,"nodes":2,"missing":["c"]}`)
	if out, err := b.command("unsubscribe", "vip", ids[c]); err != nil || !strings.Contains(out, "unsubscribed 0") || !strings.Contains(out, "node c has not answered") {
		t.Errorf("%s %v", out, err)
	}
	c.thaw()
	// Both came through the log, so in this order.
	expectEntries(c, conns[c], `{"subscribed":{"channel":"vip","id":`, `{"unsubscribed":{"channel":"vip"}}`)
	waitNodes(s.nodes, 3)

	s.proxies[0].Refuse()
	a.waitState("broker down", func(v totals) bool { return !v.Broker.Up })
	change(a, "POST", user, 503, "")
	s.proxies[0].Accept()
	a.waitUp()
	change(a, "DELETE", user, 200, `"nodes":3,"missing":[]}`)
}

// expectSubscribed: the notice comes before the first message of the channel.
func expectSubscribed(n *node, c *websocket.Conn, data string) {
	n.T.Helper()
	expectEntries(n, c, `{"subscribed":{"channel":"vip","id":`, `"channel":"vip","data":"`+data+`"`)
}

// expectEntries reads until it has as many entries as texts, and wants each to contain its text. Heartbeats have none.
func expectEntries(n *node, c *websocket.Conn, texts ...string) {
	n.T.Helper()
	for len(texts) > 0 {
		_, frame, err := c.Read(n.T.Context())
		var entries []json.RawMessage
		if err == nil {
			err = json.Unmarshal(frame, &entries)
		}
		if err != nil || len(entries) > len(texts) {
			n.T.Fatalf("%s: %s, %v, want %q", n.name, frame, err, texts)
		}
		for _, entry := range entries {
			if !strings.Contains(string(entry), texts[0]) {
				n.T.Fatalf("%s: %s, want %s", n.name, entry, texts[0])
			}
			texts = texts[1:]
		}
	}
}
