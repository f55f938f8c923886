package socketio

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/protocol"
	"github.com/caddy-broadcast/caddy-broadcast/internal/socketio/packet"
)

// wire is a WebSocket that accepts as much as it likes.
type wire struct {
	mu      sync.Mutex
	changed sync.Cond
	got     []byte
	closed  bool
}

func newWire() *wire {
	w := new(wire)
	w.changed.L = &w.mu
	return w
}

func (w *wire) TryWrite(p []byte) (int, error) {
	n := len(p)
	if rand.IntN(4) == 0 {
		n = rand.IntN(n + 1)
	}
	return w.Write(p[:n], 0)
}

func (w *wire) Write(p []byte, _ time.Duration) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.got = append(w.got, p...)
	w.changed.Broadcast()
	return len(p), nil
}

func (w *wire) Close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	w.changed.Broadcast()
}

// take waits for something, and takes all.
func (w *wire) take() (p []byte, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.got) == 0 && !w.closed {
		w.changed.Wait()
	}
	p, w.got = w.got, nil
	return p, len(p) > 0
}

// event is a message that was published, or that a client has got.
type event struct {
	channel string
	seq     uint64
}

// stay is how long a client was in a room, in the log's order. It gets what comes after the first position, up to the last one.
type stay struct {
	room     string
	from, to uint64
}

const forEver = 1 << 62

// life is a client between a Connect that was not recovered and the end of that. The model of it is simple: it gets what is
// published in its rooms while it is there, once, in order, whatever happens to its connections.
type life struct {
	stays     []stay
	recovered []stay // in which it may also get what was before it came: room, offset and where the log was then
	got       []event
	over      bool   // it has left, one channel after the other
	last      uint64 // what it had got then
}

func (l *life) leave(room string, at uint64) {
	for i := range l.stays {
		if s := &l.stays[i]; s.to == forEver && (room == "" || s.room == room) {
			s.to = at
		}
	}
}

// check compares what it got with what it should have.
func (l *life) check(t *testing.T, name string, published []event) {
	t.Helper()
	end := uint64(0)
	for i, e := range l.got {
		if i > 0 && e.seq <= end {
			t.Fatalf("%s: %d after %d", name, e.seq, end)
		}
		end = e.seq
	}
	in := func(stays []stay, e event) bool {
		return slices.ContainsFunc(stays, func(s stay) bool { return s.room == e.channel && s.from < e.seq && e.seq <= s.to })
	}
	for _, e := range published {
		got := slices.Contains(l.got, e)
		switch should := in(l.stays, e); {
		case got && !should && !in(l.recovered, e):
			t.Fatalf("%s: it got %v\n%+v", name, e, l)
		case should && !got && (!l.over || e.seq < l.last):
			t.Fatalf("%s: it misses %v\n%+v", name, e, l)
		}
	}
}

// visitor is a client of the model.
type visitor struct {
	*testing.T
	*model
	name  string
	polls bool

	session *session
	poller  *poller // if it polls
	wire    *wire   // if it does not
	frames  []byte  // that it has not looked at

	life     *life
	lives    []*life
	pid      string
	position string // the last it got
	moved    bool   // to a WebSocket
	attached bool   // the server has not been told that its connection has ended
	asked    int
}

// model is a hub, and what was done with it.
type model struct {
	e      *Endpoint
	o      *hub.ConnOptions
	world  sync.RWMutex // held by who changes everything at once
	mu     sync.Mutex
	events []event
}

func newModel() *model {
	table := NewTable()
	return &model{
		e: &Endpoint{
			Endpoint: &protocol.Endpoint{Hub: hub.New(hub.Config{History: 100_000}), MaxMessage: 1000}, Table: table,
			Recovery: time.Hour, JoinEvent: "join", LeaveEvent: "leave",
		},
		o: &hub.ConnOptions{
			Format: Format{true}, PingInterval: time.Hour, WriteTimeout: time.Minute, MaxBacklog: 16 << 20, Observer: table.Observe(nobody{}),
		},
	}
}

func (m *model) close() {
	m.e.Hub.Close(hub.ReasonRestart, "", 0, time.Millisecond)
	m.e.Table.Close()
}

// publishUntil publishes on channels at random, with pauses of different lengths, so that the clients come in between.
func (m *model) publishUntil(stop <-chan struct{}, r *rand.Rand) {
	for {
		select {
		case <-stop:
			return
		default:
		}
		channel := "main"
		if n := r.IntN(4); n < 3 {
			channel = "room:" + strconv.Itoa(n)
		}
		m.world.RLock()
		m.publish(channel)
		m.world.RUnlock()
		time.Sleep(time.Duration(r.IntN(200)) * time.Microsecond)
	}
}

// closeRoom has all clients leave a room, as a backend can.
func (m *model) closeRoom(visitors []*visitor, room string) {
	m.world.Lock()
	defer m.world.Unlock()
	m.e.Hub.Command(hub.NameCommand{Do: hub.DoLeave, On: room, Channel: room})
	for _, v := range visitors {
		if v.life != nil && v.attached {
			v.life.leave(room, m.position())
		}
	}
}

func (m *model) publish(channel string) {
	msg := &hub.Message{Channel: channel, Data: []byte(channel)}
	if err := m.e.Hub.Publish(msg); err != nil {
		panic(err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.events = append(m.events, event{channel, msg.Seq})
}

func seqOf(id string) uint64 {
	n, err := strconv.ParseUint(id[strings.LastIndexByte(id, '-')+1:], 10, 64)
	if err != nil {
		panic(id)
	}
	return n
}

// position returns where the log is.
func (m *model) position() uint64 { return m.e.Hub.Stats().Seq }

// connect gives the client another connection.
func (v *visitor) connect() {
	v.session = v.e.open(&protocol.Request{
		Subscriber: hub.Subscriber{Channels: []string{"main"}}, MayJoin: func(string) bool { return true },
	})
	c, _, err := v.e.Hub.Connect(hub.Subscriber{}, v.o)
	if err != nil {
		v.Fatal(err)
	}
	v.frames, v.attached, v.moved = nil, true, false
	if v.polls {
		v.poller = newPoller(v.session, v.o)
		v.session.begin(c, v.o)
		c.Start(&v.poller.transport, nil)
		return
	}
	v.session.begin(c, v.o)
	v.wire = newWire()
	c.Start(v.wire, nil)
}

func (v *visitor) send(text string) {
	if err := v.session.receive(packet.EnginePacket{Type: packet.EngineMessage, Data: []byte(text[1:])}); err != nil && !v.life.over {
		v.Errorf("%s: %s: %v", v.name, text, err)
	}
}

// more waits for more, and keeps it as frames.
func (v *visitor) more() bool {
	if !v.polls || v.moved {
		p, ok := v.wire.take()
		v.frames = append(v.frames, p...)
		return ok
	}
	p, _ := v.poller.transport.poll(v.Context())
	for _, text := range strings.Split(string(p), "\x1e") {
		v.frames = append(v.frames, textFrame([]byte(text))...)
	}
	return string(p) != closePacket
}

// read reads until a packet comes that begins as it should, and returns it. It reports false if the connection ends before.
func (v *visitor) read(until string) (string, bool) {
	for {
		text, left := packet.AppendPayload(nil, v.frames, 1)
		if len(left) == len(v.frames) {
			if !v.more() {
				return "", false
			}
			continue
		}
		v.frames = left
		if rest, ok := strings.CutPrefix(string(text), `42["message","`); ok {
			channel, rest, _ := strings.Cut(rest, `","`)
			v.position = strings.TrimSuffix(rest, `"]`)
			v.life.got = append(v.life.got, event{channel, seqOf(v.position)})
		}
		if strings.HasPrefix(string(text), until) {
			return string(text), true
		}
		if string(text) == "1" {
			return "", false
		}
	}
}

// ask has the client emit an event, and returns the position in its ack.
func (v *visitor) ask(event, room string) uint64 {
	v.asked++
	v.send(fmt.Sprintf("42%d[%q,%q]", v.asked, event, room))
	text, ok := v.read(fmt.Sprintf(`43%d[{"id":"`, v.asked))
	if !ok {
		v.Fatalf("%s: no ack of %s", v.name, event)
	}
	_, id, _ := strings.Cut(text, `"id":"`)
	return seqOf(strings.TrimSuffix(id, `"}]`))
}

// enter takes the client into the namespace, where it was or anew.
func (v *visitor) enter() {
	recovers, credentials := v.life != nil && !v.life.over, ""
	switch {
	case v.life == nil:
		v.life = new(life) // gets what comes before the answer: nothing
	case recovers && v.position == "":
		credentials = fmt.Sprintf(`{"pid":%q}`, v.pid)
	case recovers:
		credentials = fmt.Sprintf(`{"pid":%q,"offset":%q}`, v.pid, v.position)
	}
	from := v.reached()
	v.send("40" + credentials)
	upto := v.model.position()
	text, ok := v.read("40{")
	if !ok {
		v.Fatalf("%s: no answer", v.name)
	}
	_, pid, _ := strings.Cut(text, `"pid":"`)
	pid = strings.TrimSuffix(pid, `"}`)
	if recovers {
		if pid != v.pid {
			v.Fatalf("%s: not recovered from %s", v.name, credentials)
		}
		for i := range v.life.stays {
			s := &v.life.stays[i]
			v.life.recovered = append(v.life.recovered, stay{s.room, from, min(s.to, upto)})
			// Of a room that a backend has taken it out of meanwhile it gets nothing any more, as with the reference.
			if s.to < forEver {
				s.to = min(s.to, from)
			}
		}
		return
	}
	v.pid, v.position, v.life = pid, "", new(life)
	v.lives = append(v.lives, v.life)
	// Nobody knows exactly where in the log it came: it has what comes after the ack of an event.
	at := v.ask("leave", "nothing")
	v.life.stays = append(v.life.stays, stay{"main", at, forEver})
	v.life.recovered = append(v.life.recovered, stay{"main", 0, at})
}

func (v *visitor) reached() uint64 {
	if v.position == "" {
		return 0
	}
	return seqOf(v.position)
}

// upgrade moves the client to a WebSocket, or lets one fail.
func (v *visitor) upgrade(r *rand.Rand) {
	w := newWire()
	u := v.poller.try(w)
	defer u.timer.Stop()
	if r.IntN(4) == 0 {
		u.Done()
		return
	}
	u.probe(w)
	if r.IntN(4) == 0 {
		u.Done()
		return
	}
	if r.IntN(2) == 0 { // one of the official tests does not wait for the answer to its GET
		v.more()
	}
	if err := u.move(w); err != nil {
		v.Errorf("%s: it does not move: %v", v.name, err)
	}
	v.wire, v.moved = w, true
}

// step does something at random.
func (v *visitor) step(r *rand.Rand) {
	v.world.RLock()
	defer v.world.RUnlock()
	room := "room:" + strconv.Itoa(r.IntN(3))
	if !v.attached {
		v.connect()
		v.enter()
		return
	}
	switch r.IntN(10) {
	case 0, 1:
		in := slices.ContainsFunc(v.life.stays, func(s stay) bool { return s.room == room && s.to == forEver })
		if at := v.ask("join", room); !in {
			v.life.stays = append(v.life.stays, stay{room, at, forEver})
		}
	case 2:
		// It leaves somewhere between here and the ack.
		before := v.model.position()
		at := v.ask("leave", room)
		v.life.leave(room, before)
		v.life.recovered = append(v.life.recovered, stay{room, before, at})
	case 8, 9:
		if v.polls && !v.moved {
			v.upgrade(r)
		}
	case 3, 4: // it is cut off, and loses what it has not looked at
		v.connect()
		v.enter()
	case 5: // this is noticed
		v.session.conn.Done()
		v.attached = false
	case 6:
		v.send("41")
		v.life.over, v.life.last = true, v.reached()
		v.enter()
	case 7:
		v.life.over, v.life.last = true, v.reached()
		v.e.Hub.Command(hub.NameCommand{Do: hub.DoClose, Name: v.session.joined[0].name})
		for {
			if _, ok := v.read("41"); !ok {
				break
			}
		}
		v.session.conn.Done()
		v.attached = false
	}
}

// visit does things at random, and is connected at the end.
func (v *visitor) visit(r *rand.Rand) {
	for range 40 {
		if v.Failed() {
			return
		}
		v.step(r)
	}
	v.world.RLock()
	defer v.world.RUnlock()
	if !v.attached {
		v.connect()
		v.enter()
	}
}

// TestModel has clients join, leave, disconnect and come back at random, and a backend close rooms and clients, while messages
// come. Each client gets what it should, once and in order.
func TestModel(t *testing.T) {
	for round := range 6 {
		seed := rand.Uint64()
		t.Run(fmt.Sprintf("%d, seed %d", round, seed), func(t *testing.T) { testModel(t, seed) })
	}
}

func testModel(t *testing.T, seed uint64) {
	m := newModel()
	defer m.close()
	random := func(stream int) *rand.Rand { return rand.New(rand.NewPCG(seed, uint64(stream))) }
	visitors := make([]*visitor, 6)
	var clients, publishers sync.WaitGroup
	stop := make(chan struct{})
	for i := range 2 {
		r := random(100 + i)
		publishers.Go(func() { m.publishUntil(stop, r) })
	}
	for i := range visitors {
		v := &visitor{T: t, model: m, name: fmt.Sprint("client ", i), polls: i%2 == 0}
		visitors[i] = v
		r := random(i)
		clients.Go(func() { v.visit(r) })
	}
	r := random(200)
	for range 5 {
		m.closeRoom(visitors, "room:"+strconv.Itoa(r.IntN(3)))
		time.Sleep(time.Duration(r.IntN(2000)) * time.Microsecond)
	}
	clients.Wait()
	close(stop)
	publishers.Wait()
	if t.Failed() {
		return
	}
	m.publish("main")
	last := m.events[len(m.events)-1].seq
	for _, v := range visitors {
		for v.reached() != last {
			if _, ok := v.read("42"); !ok {
				t.Fatalf("%s: it has ended", v.name)
			}
		}
		for i, l := range v.lives {
			l.check(t, fmt.Sprintf("%s, life %d", v.name, i), m.events)
		}
	}
}
