package integration

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/coder/websocket"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
	"github.com/caddy-broadcast/caddy-broadcast/broker/brokertest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
)

func init() {
	caddy.RegisterModule(memoryModule{})
}

// memory is a broker in memory that configurations name.
type memory struct {
	*brokertest.Memory
	dials  atomic.Int32
	refuse atomic.Bool // Dial fails
}

// memories are those of the running test, by name.
var memories sync.Map

func newMemory(t *testing.T, name string, c brokertest.MemoryConfig) *memory {
	t.Helper()
	c.Tick = 20 * time.Millisecond
	m := &memory{Memory: brokertest.NewMemory(c)}
	memories.Store(name, m)
	t.Cleanup(m.Close)
	return m
}

// has reports whether the data was stored.
func (m *memory) has(data string) bool {
	for _, epoch := range m.Stored() {
		for _, e := range epoch.Entries {
			if string(e.Data) == data {
				return true
			}
		}
	}
	return false
}

// memoryModule is `broker memory <name> [<option>]`.
type memoryModule struct {
	Name   string `json:"name,omitempty"`
	Option string `json:"option,omitempty"`
}

func (memoryModule) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "broadcast.brokers.memory", New: func() caddy.Module { return new(memoryModule) }}
}

func (b *memoryModule) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if !d.Args(&b.Name) {
		return d.ArgErr()
	}
	d.Args(&b.Option)
	return nil
}

func (b *memoryModule) Dial(sink broker.Sink, o broker.Options) (broker.Log, error) {
	found, _ := memories.Load(b.Name)
	m := found.(*memory)
	if m.refuse.Load() {
		return nil, errors.New("these options cannot work")
	}
	m.dials.Add(1)
	return m.Broker().Dial(sink, o)
}

// onBroker is a configuration with a broker.
func onBroker(name, site string) string {
	return "broadcast {\nhistory 10\nnode here\npartition_timeout 1s\nbroker memory " + name + "\n}\n---\n" + site
}

// awaitHealth waits until GET /broadcast/health has a status, and returns the body.
func awaitHealth(s *caddytest.Server, want int) string {
	s.T.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		status, body := s.Do("GET", s.Admin+"/broadcast/health", "")
		if status == want {
			return body
		}
		if time.Now().After(deadline) {
			s.T.Fatalf("health: %d %s", status, body)
		}
	}
}

// TestBrokerReload: a reload with the same broker keeps the connection; another one, or none, is used from then on.
func TestBrokerReload(t *testing.T) {
	a, b := newMemory(t, "a", brokertest.MemoryConfig{}), newMemory(t, "b", brokertest.MemoryConfig{})
	s := caddytest.Start(t, onBroker("a", "broadcast /ws"))
	awaitHealth(s, http.StatusNoContent)
	c := s.Dial("/ws", nil)
	s.Publish("", "one")
	s.Expect(c, "one")
	if err := s.Load(strings.Replace(onBroker("a", "header X-Other on\nbroadcast /ws"), "history 10", "history 20", 1)); err != nil {
		t.Fatal(err)
	}
	s.Publish("", "two")
	s.Expect(c, "two")
	if n := a.dials.Load(); n != 1 || !a.has("two") {
		t.Errorf("the broker was dialled %d times", n)
	}
	if err := s.Load(onBroker("b", "broadcast /ws")); err != nil {
		t.Fatal(err)
	}
	awaitHealth(s, http.StatusNoContent)
	// A connection that is there has a gap at the change. One that comes is answered when the channel is open.
	c = s.Dial("/ws", nil)
	s.Publish("", "three")
	s.Expect(c, "three")
	if a.has("three") || !b.has("three") {
		t.Error("the message went to the other broker")
	}
	if err := s.Load("broadcast /ws"); err != nil {
		t.Fatal(err)
	}
	s.Publish("", "four")
	s.Expect(c, "four")
	if b.has("four") || s.Totals().Broker != nil {
		t.Error("without a broker it is used")
	}
}

// TestBrokerOfRefusedConfig: a configuration that cannot be started never sends a message elsewhere.
func TestBrokerOfRefusedConfig(t *testing.T) {
	newMemory(t, "a", brokertest.MemoryConfig{})
	b := newMemory(t, "b", brokertest.MemoryConfig{})
	s := caddytest.Start(t, onBroker("a", "broadcast /ws"))
	awaitHealth(s, http.StatusNoContent)
	c := s.Dial("/ws", nil)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for i := range 5 { // Caddy starts apps in no particular order
		if err := s.Load(onBroker("b", "broadcast /ws\n}\nhttp://"+taken.Addr().String()+" {\nrespond hi")); err == nil {
			t.Fatal("a configuration with a port that is taken is loaded")
		}
		s.Publish("", fmt.Sprint(i))
		s.Expect(c, fmt.Sprint(i))
	}
	if n := b.dials.Load(); n != 0 {
		t.Errorf("its broker was dialled %d times", n)
	}
}

// TestBrokerThatCannotWork: at the start the configuration is refused. On a reload the hub goes on, and people are told.
func TestBrokerThatCannotWork(t *testing.T) {
	newMemory(t, "a", brokertest.MemoryConfig{})
	newMemory(t, "b", brokertest.MemoryConfig{}).refuse.Store(true)
	if err := caddytest.Load("{\nadmin off\nbroadcast {\nbroker memory b\n}\n}\nhttp://" + caddytest.FreeAddr(t) + " {\nbroadcast /ws\n}"); err == nil ||
		!strings.Contains(err.Error(), "these options cannot work") {
		t.Fatalf("it starts: %v", err)
	}
	s := caddytest.Start(t, onBroker("a", "broadcast /ws"))
	awaitHealth(s, http.StatusNoContent)
	c := s.Dial("/ws", nil)
	if err := s.Load(onBroker("b", "broadcast /ws")); err != nil {
		t.Fatal(err)
	}
	if body := awaitHealth(s, http.StatusServiceUnavailable); !strings.Contains(body, "these options cannot work") {
		t.Errorf("health: %s", body)
	}
	s.WaitLog("the broker of this configuration cannot be used")
	s.Publish("", "still here")
	s.Expect(c, "still here")
	if err := s.Load(onBroker("a", "broadcast /ws")); err != nil {
		t.Fatal(err)
	}
	awaitHealth(s, http.StatusNoContent)
}

// TestBrokerDown: Caddy starts without the broker. Routes say that they have to wait, others serve, and balancers leave the
// node out until the broker is there, and when it has been away for longer than partition_timeout.
func TestBrokerDown(t *testing.T) {
	m := newMemory(t, "a", brokertest.MemoryConfig{})
	m.Stop()
	s := caddytest.Start(t, onBroker("a", `broadcast /ws
		respond /other served
		handle /health {
			@healthy broadcast_healthy
			respond @healthy 200
			respond "{broadcast.problem}" 503
		}`))
	if status, body := s.Do("GET", s.Addr+"/other", ""); status != 200 || body != "served" {
		t.Errorf("another route: %d %s", status, body)
	}
	if status, body := s.Post(s.Addr+"/ws", "text/plain", "x"); status != 503 || !strings.Contains(body, broker.ErrDown.Error()) {
		t.Errorf("POST: %d %s", status, body)
	}
	awaitHealth(s, http.StatusServiceUnavailable)
	if status, body := s.Do("GET", s.Addr+"/health", ""); status != 503 || !strings.HasPrefix(body, "nothing has come from the broker yet") {
		t.Errorf("on the site: %d %s", status, body)
	}
	if b := s.Totals().Broker; b == nil || b.Up || b.Node != "here" {
		t.Errorf("GET /broadcast: %+v", b)
	}
	s.ExpectMetrics("broker_up 0")
	m.Start()
	awaitHealth(s, http.StatusNoContent)
	if status, body := s.Do("GET", s.Addr+"/health", ""); status != 200 {
		t.Errorf("on the site: %d %s", status, body)
	}
	c := s.Dial("/ws", nil)
	s.Publish("", "x")
	s.Expect(c, "x")
	if b := s.Totals().Broker; !b.Up || b.Watermark == 0 || b.Lag > 10 {
		t.Errorf("GET /broadcast: %+v", b)
	}
	s.ExpectMetrics("broker_up 1", `broker_publish_total{result="ok"} 1`, `broker_publish_total{result="down"} 1`, "broker_received_total 1",
		"broker_publish_seconds_count 1", "broker_open_channels 1", "broker_open_seconds_count 1")
	m.Stop()
	if body := awaitHealth(s, http.StatusServiceUnavailable); !strings.Contains(body, "nothing has come from the broker for 1s") {
		t.Errorf("health: %s", body)
	}
	s.ExpectClose(c, websocket.StatusTryAgainLater)
	s.ExpectMetrics("broker_refusing 1", `closed_total{reason="unavailable"} 1`)
	if _, resp, err := s.TryDial("/ws", nil); err == nil || resp == nil || resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" {
		t.Errorf("a WebSocket: %v %v", resp, err)
	}
	// An EventSource that got a 503 would not come back.
	if status, body := s.Do("GET", s.Addr+"/ws", "", "Accept", "text/event-stream"); status != 200 || !strings.HasPrefix(body, "retry: ") {
		t.Errorf("an event stream: %d %s", status, body)
	}
}

// TestBrokerTooBig: what the broker does not accept is a 413, and the log warns of the route that lets it in.
func TestBrokerTooBig(t *testing.T) {
	newMemory(t, "a", brokertest.MemoryConfig{MaxData: 100})
	s := caddytest.Start(t, onBroker("a", "broadcast /ws"))
	awaitHealth(s, http.StatusNoContent)
	if status, body := s.Post(s.Addr+"/ws", "text/plain", strings.Repeat("x", 101)); status != 413 {
		t.Errorf("%d %s", status, body)
	}
	s.WaitLog("lower max_message, or raise the broker's limit")
}

// TestBrokerPart: a publisher of many messages learns how many of them are stored, if one fails after them.
func TestBrokerPart(t *testing.T) {
	m := newMemory(t, "a", brokertest.MemoryConfig{MaxBatch: 2})
	s := caddytest.Start(t, onBroker("a", "broadcast /ws"))
	awaitHealth(s, http.StatusNoContent)
	c := s.Dial("/ws", nil)
	post := func(lines ...string) (int, string) {
		return s.Post(s.Admin+"/broadcast/publish", ndjson, strings.Join(lines, "\n"))
	}
	if status, body := post(`{"data":"first","key":"k"}`); status != 200 {
		t.Fatal(status, body)
	}
	status, body := post(`{"data":"one"}`, "", `{"data":"two"}`, `{"data":"three"}`, `{"data":"not first","key":"k"}`, `{"data":"five"}`)
	if status != 422 || !strings.Contains(body, `"published":2`) || !strings.Contains(body, "the first 2 of 5 messages were published, up to line 3; then: ") ||
		!strings.Contains(body, broker.ErrConflict.Error()) {
		t.Errorf("%d %s", status, body)
	}
	if status, body := post(`{"data":"not first","key":"k"}`, `{"data":"two"}`, `{"data":"three"}`); status != 422 || strings.Contains(body, "published") {
		t.Errorf("nothing was published: %d %s", status, body)
	}
	if status, body := post(`{"data":"three"}`, `{"data":"four"}`, `{"data":"five"}`); status != 200 || strings.Count(body, "\n") != 3 {
		t.Errorf("all were published: %d %s", status, body)
	}
	s.Expect(c, "first", "one", "two", "three", "four", "five")
	if m.has("not first") {
		t.Error("a message that failed is stored")
	}
}

// TestBrokerStatus: the command says what GET /broadcast does, and fails while the node is not healthy.
func TestBrokerStatus(t *testing.T) {
	m := newMemory(t, "a", brokertest.MemoryConfig{})
	m.Stop()
	s := caddytest.Start(t, onBroker("a", "broadcast /ws"))
	command := commandLine{s}
	out, good := command.run(t, "", "status")
	if good || !strings.Contains(out, "nothing has come from the broker yet") {
		t.Errorf("good: %v: %s", good, out)
	}
	m.Start()
	awaitHealth(s, http.StatusNoContent)
	s.Publish("", "one")
	// The log's signs of life have positions, and are no messages.
	if out, good = command.run(t, "", "status"); !good || !strings.Contains(out, "node here: broker up") || !strings.Contains(out, " 1 messages") {
		t.Errorf("good: %v: %s", good, out)
	}
}
