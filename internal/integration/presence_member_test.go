package integration

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
)

// roster is a client that keeps who is present on its channels, as pages do.
type roster struct {
	v1Test
	ws    *websocket.Conn
	rooms map[string]*rosterRoom
	left  []string // whoever has left, in order
}

// rosterRoom has members by user, or nil if they are only counted.
type rosterRoom struct {
	count   int
	members map[string]string
}

func (s v1Test) roster(path string) *roster {
	s.T.Helper()
	c := s.dial(path)
	c.SetReadLimit(1 << 20)
	return &roster{v1Test: s, ws: c, rooms: make(map[string]*rosterRoom)}
}

// take takes what the client is told.
func (r *roster) take(text string) {
	r.T.Helper()
	type member struct {
		User string
		Data json.RawMessage
	}
	var n struct {
		Channel               string
		Count                 int
		Members, Joined, Left []member
	}
	if err := json.Unmarshal([]byte(text), &n); err != nil {
		r.T.Fatal(text, err)
	}
	room := r.rooms[n.Channel]
	if room == nil {
		room = new(rosterRoom)
		r.rooms[n.Channel] = room
	}
	room.count = n.Count
	if n.Members != nil || n.Joined == nil {
		room.members = nil
	}
	if n.Members != nil {
		room.members = make(map[string]string)
	}
	for _, m := range slices.Concat(n.Members, n.Joined) {
		room.members[m.User] = string(m.Data)
	}
	for _, m := range n.Left {
		delete(room.members, m.User)
		r.left = append(r.left, m.User)
	}
}

// until reads until a channel has these members, written as `ann"data" bob 3`, with the count at the end.
func (r *roster) until(channel, want string) {
	r.T.Helper()
	got := ""
	for got != want {
		r.take(r.present(r.ws))
		if room := r.rooms[channel]; room != nil {
			got = ""
			for _, user := range slices.Sorted(maps.Keys(room.members)) {
				got += user + room.members[user] + " "
			}
			got += fmt.Sprint(room.count)
		}
	}
}

// TestPresenceWho: each client of a route that has the option and receives messages is a member, whatever it speaks. Clients that
// only publish, or that came through another route, are not. Raw WebSockets are told nothing.
func TestPresenceWho(t *testing.T) {
	s := v1Test{caddytest.Start(t, "---\n"+`
		broadcast /room room {
			user {query.me}
			presence 0
			socketio
		}
		broadcast /write room {
			user {query.me}
			subscribe off
		}
		broadcast /mute room {
			user {query.me}
		}`), make(map[string]int)}
	s.dial("/write?me=writer")
	mute := s.dial("/mute?me=mute")
	if status, body := s.Post(s.Addr+"/room?me=poster", "text/plain", "posted"); status != 200 {
		t.Fatal(status, body)
	}
	ann := s.roster("/room?me=ann")
	ann.until("room", "ann 1")
	raw := s.Dial("/room?me=raw", nil)
	ann.until("room", "ann raw 2")
	s.Stream("http://"+s.Addr+"/room?me=stream", "Accept", "text/event-stream")
	ann.until("room", "ann raw stream 3")
	s.Stream("http://" + s.Addr + "/room?me=v1stream&protocol=broadcast.v1")
	ann.until("room", "ann raw stream v1stream 4")
	polls := s.Addr + "/room?EIO=4&transport=polling&me=polls"
	_, open := s.Do("GET", polls, "")
	_, sid, _ := strings.Cut(open, `"sid":"`)
	sid, _, _ = strings.Cut(sid, `"`)
	s.Do("POST", polls+"&sid="+sid, "40")
	ann.until("room", "ann polls raw stream v1stream 5")
	if _, body := s.Do("GET", polls+"&sid="+sid, ""); !strings.Contains(body, `42["presence",{"channel":"room",`) {
		if _, next := s.Do("GET", polls+"&sid="+sid, ""); !strings.Contains(next, `42["presence",{"channel":"room",`) {
			t.Errorf("a session that polls got %q, %q", body, next)
		}
	}
	s.Publish("channel=room", "first")
	s.Expect(raw, "first")
	s.awaitMessage(mute, `"first"`)
}

// awaitMessage reads a message, and before it none with a presence.
func (s v1Test) awaitMessage(c *websocket.Conn, want string) {
	s.T.Helper()
	for text := ""; !strings.Contains(text, want); {
		if text = s.read(c); strings.Contains(text, `"presence"`) {
			s.T.Fatal(text)
		}
	}
}

const patientRoute = `
	broadcast /patient room {
		user {query.me}
		presence 1m
		member {query.data}
	}
	broadcast /brief room {
		user {query.me}
		expires {query.until}
		presence 1m
	}`

// TestPresenceEnds: a client that may return has not left: neither one whose page is reloaded, whose connection breaks, or whose
// access ends. One that was kicked, that leaves, or that a backend unsubscribes, has.
func TestPresenceEnds(t *testing.T) {
	s := v1Test{caddytest.Start(t, "---\n"+patientRoute), make(map[string]int)}
	ann := s.roster("/patient?me=ann")
	ann.until("room", "ann 1")

	brief := s.dial("/brief?me=brief&until=" + fmt.Sprint(time.Now().Add(time.Second).Unix()))
	ann.until("room", "ann brief 2")
	s.expectClosed(brief, 4401)
	reloaded := s.dial("/patient?me=reloaded&data=1")
	ann.until("room", `ann brief reloaded"1" 3`)
	reloaded.Close(websocket.StatusGoingAway, "")
	broken := s.dial("/patient?me=broken")
	ann.until("room", `ann brief broken reloaded"1" 4`)
	broken.CloseNow()
	s.WaitTotals(func(v caddytest.Totals) bool { return v.Connections == 1 })
	// They return, one of them with other data.
	s.dial("/patient?me=brief")
	s.dial("/patient?me=reloaded&data=2")
	s.dial("/patient?me=broken")
	ann.until("room", `ann brief broken reloaded"2" 4`)
	if len(ann.left) > 0 {
		t.Fatalf("%q have left", ann.left)
	}

	change := func(method, user, channel string) {
		t.Helper()
		if status, body := s.Do(method, s.Admin+"/broadcast/subscriptions", fmt.Sprintf(`{"user":%q,"channel":%q}`, user, channel)); status != 200 {
			t.Fatal(status, body)
		}
	}
	change("POST", "ann", "side")
	ann.until("side", "ann 1")
	change("POST", "brief", "side")
	ann.until("side", "ann brief 2")
	change("DELETE", "brief", "side")
	ann.until("side", "ann 1")
	change("DELETE", "brief", "room")
	ann.until("room", `ann broken reloaded"2" 3`)
	s.Do("DELETE", s.Admin+"/broadcast/connections?user=broken&code=4403", "")
	ann.until("room", `ann reloaded"2" 2`)
	s.Do("DELETE", s.Admin+"/broadcast/connections?user=reloaded", "")
	ann.until("room", `ann 1`)
}

// expectClosed reads until a client of broadcast.v1 is closed with a code.
func (s v1Test) expectClosed(c *websocket.Conn, code websocket.StatusCode) {
	s.T.Helper()
	for {
		if _, _, err := c.Read(s.T.Context()); err != nil {
			if websocket.CloseStatus(err) != code {
				s.T.Fatal(err)
			}
			return
		}
	}
}

// TestPresenceReload: a reload changes presence for the connections that come after it. Those from before keep what they came with.
func TestPresenceReload(t *testing.T) {
	config := func(options string) string {
		return "---\nbroadcast /room room {\nuser {query.me}\n" + options + "\n}"
	}
	s := v1Test{caddytest.Start(t, config("")), make(map[string]int)}
	load := func(options string) {
		t.Helper()
		if err := s.Load(config(options)); err != nil {
			t.Fatal(err)
		}
	}
	before := s.dial("/room?me=before")
	load("presence 0\nmember {query.me}")
	ann := s.roster("/room?me=ann")
	ann.until("room", `ann"ann" 1`)
	load("presence 1m\nmember old:{query.me}")
	s.dial("/room?me=bob").CloseNow() // its grace period is the new one
	ann.until("room", `ann"ann" bob"old:bob" 2`)
	load("")
	s.dial("/room?me=none")
	load("presence 0")
	eve := s.dial("/room?me=eve")
	ann.until("room", `ann"ann" bob"old:bob" eve 3`)
	eve.CloseNow()
	ann.until("room", `ann"ann" bob"old:bob" 2`)
	if !slices.Equal(ann.left, []string{"eve"}) {
		t.Errorf("%q have left", ann.left)
	}
	s.Publish("channel=room", "the end")
	s.awaitMessage(before, "the end")
}

// TestPresenceMany: above 1000 members there are only counts, and when they are 900 again all of them are listed.
func TestPresenceMany(t *testing.T) {
	s := v1Test{caddytest.Start(t, "---\nbroadcast /room room {\nuser {query.me}\npresence 0\n}"), make(map[string]int)}
	ann := s.roster("/room?me=ann")
	const more = 1000
	conns := make([]*websocket.Conn, more)
	var wait sync.WaitGroup
	for part := range 8 {
		wait.Go(func() {
			for i := part; i < more; i += 8 {
				conns[i], _, _ = s.TryDial(fmt.Sprintf("/room?me=u%03d", i), nil)
			}
		})
	}
	wait.Wait()
	for ann.rooms["room"] == nil || ann.rooms["room"].count <= more {
		ann.take(ann.present(ann.ws))
	}
	if ann.rooms["room"].members != nil {
		t.Error("1001 members are listed")
	}
	for _, c := range conns[900:] {
		c.CloseNow()
	}
	for ann.rooms["room"].count > 901 {
		ann.take(ann.present(ann.ws))
	}
	if ann.rooms["room"].members != nil {
		t.Error("901 members are listed again")
	}
	conns[0].CloseNow()
	for ann.rooms["room"].count > 900 {
		ann.take(ann.present(ann.ws))
	}
	if m := ann.rooms["room"].members; len(m) != 900 {
		t.Errorf("%d of 900 members are listed", len(m))
	}
	s.dial("/room?me=u000")
	for ann.rooms["room"].count < 901 {
		ann.take(ann.present(ann.ws))
	}
	if m := ann.rooms["room"].members; len(m) != 901 {
		t.Errorf("%d of 901 members are listed", len(m))
	}
}
