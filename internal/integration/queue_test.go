package integration

import (
	"bufio"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"testing"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/redistest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/subprocess"
)

// backend is a Python with the programs that publish through the queue: see testdata/queue/driver.py.
type backend struct {
	t   testing.TB
	in  io.Writer
	out *bufio.Reader
}

// startBackend starts one that connects to a queue, and knows the sockets' IDs by names.
func startBackend(t testing.TB, url string, sids ...string) *backend {
	t.Helper()
	python := caddytest.Python(t, "python3-flask-socketio python3-kombu python3-redis", "flask_socketio", "kombu", "redis")
	cmd := exec.Command(python, append([]string{"testdata/queue/driver.py", url}, sids...)...)
	subprocess.DieWithParent(cmd)
	cmd.Stderr = t.Output() // what the libraries log
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	return &backend{t, in, bufio.NewReader(out)}
}

// do evaluates an expression, and returns its value in JSON.
func (b *backend) do(expression string) string {
	b.t.Helper()
	if _, err := fmt.Fprintln(b.in, expression); err != nil {
		b.t.Fatal(err)
	}
	line, err := b.out.ReadString('\n')
	if err != nil {
		b.t.Fatal(expression, err)
	}
	return strings.TrimSpace(line)
}

// queueStep is what a backend publishes, and what clients get of it: a and b are in the main namespace, c is in /chat.
type queueStep struct {
	do      string
	a, b, c []string
}

func all(frames ...string) []string { return frames }

// toBoth is a step whose event reaches a and b.
func toBoth(do string, frames ...string) queueStep { return queueStep{do: do, a: frames, b: frames} }

// queueSteps are for a client each of /, / and /chat. A, B, and C are their sockets' IDs.
var queueSteps = []queueStep{
	// python-socketio before 5.14: pickles.
	toBoth(`manager.emit('update', {'price': 3, 'on': True, 'none': None})`, `42["update",{"price":3,"on":true,"none":null}]`),
	toBoth(`manager.emit('several', (1, 'two', [3]))`, `42["several",1,"two",[3]]`),
	toBoth(`manager.emit('list', [1, 2])`, `42["list",[1,2]]`),
	toBoth(`manager.emit('nothing', None)`, `42["nothing"]`),
	toBoth(`manager.emit('text', 'Zoë')`, `42["text","Zoë"]`),
	toBoth(`manager.emit('file', {'data': b'\x00\xff', 'more': [b'x']})`,
		`452-["file",{"data":{"_placeholder":true,"num":0},"more":[{"_placeholder":true,"num":1}]}]`, "\x00\xff", "x"),
	toBoth(`manager.emit('bytes', b'only')`, `451-["bytes",{"_placeholder":true,"num":0}]`, "only"),
	{do: `manager.emit('update', 1, namespace='/chat')`, c: all(`42/chat,["update",1]`)},
	{do: `manager.emit('to', 1, room=A)`, a: all(`42["to",1]`)},
	{do: `manager.emit('to', 2, room=C, namespace='/chat')`, c: all(`42/chat,["to",2]`)},
	{do: `manager.emit('skip', 1, skip_sid=A)`, b: all(`42["skip",1]`)},
	{do: `manager.emit('skip', 2, skip_sid=[A, B])`},

	toBoth(`asyncio.run(async_emit('async', 1))`, `42["async",1]`),

	// Rooms. These methods are in python-socketio since 5.10.
	{do: `manager._publish({'method': 'enter_room', 'sid': A, 'room': 'red', 'namespace': '/'})`},
	{do: `manager._publish({'method': 'enter_room', 'sid': A, 'room': 'blue', 'namespace': '/'})`},
	{do: `manager._publish({'method': 'enter_room', 'sid': B, 'room': 'blue', 'namespace': '/'})`},
	{do: `manager._publish({'method': 'enter_room', 'sid': C, 'room': 'red', 'namespace': '/chat'})`},
	{do: `manager.emit('red', 1, room='red')`, a: all(`42["red",1]`)},
	{do: `manager.emit('red', 2, room='red', namespace='/chat')`, c: all(`42/chat,["red",2]`)},
	toBoth(`manager.emit('colours', 1, room=['red', 'blue'])`, `42["colours",1]`), // once
	{do: `manager.emit('blue', 1, room='blue', skip_sid=B)`, a: all(`42["blue",1]`)},
	{do: `manager._publish({'method': 'leave_room', 'sid': A, 'room': 'blue', 'namespace': '/'})`},
	{do: `manager.emit('blue', 2, room='blue')`, b: all(`42["blue",2]`)},
	{do: `manager.close_room('blue')`},
	{do: `manager.emit('blue', 3, room='blue')`},
	{do: `manager.emit('nobody', 1, room='nobody')`},

	// Flask-SocketIO, with an app and without.
	toBoth(`writer.emit('update', {'price': 3})`, `42["update",{"price":3}]`),
	toBoth(`writer.emit('update', ({'price': 3}, 4))`, `42["update",{"price":3},4]`),
	toBoth(`writer.send('hello')`, `42["message","hello"]`),
	toBoth(`writer.send({'a': 1}, json=True)`, `42["json",{"a":1}]`),
	{do: `writer.emit('update', 'x', to='red')`, a: all(`42["update","x"]`)},
	{do: `writer.emit('update', 'x', to='red', namespace='/chat')`, c: all(`42/chat,["update","x"]`)},
	toBoth(`socketio.emit('update', 'app')`, `42["update","app"]`),
	{do: `socketio.emit('update', 'app', room=B)`, b: all(`42["update","app"]`)},
	{do: `socketio.emit('ask', 1, to=A, callback=print)`, a: all(`42["ask",1]`)}, // it never gets an answer

	// kombu.
	toBoth(`kombu.emit('update', {'price': 3})`, `42["update",{"price":3}]`),
	{do: `kombu.emit('file', b'\x00', room='red')`, a: all(`451-["file",{"_placeholder":true,"num":0}]`, "\x00")},

	// What is published by versions that Debian does not have yet, as they write it: 5.14.0, 5.14.2, and 5.15.1.
	toBoth(`redis.publish('socketio', '{"method": "emit", "event": "update", "data": {"price": 3}, "namespace": "/", "room": null, "skip_sid": null, "callback": null, "host_id": "c6757b"}')`,
		`42["update",{"price": 3}]`),
	toBoth(`redis.publish('socketio', '{"method": "emit", "event": "list", "data": [1, 2], "namespace": "/", "room": null, "skip_sid": null, "callback": null, "host_id": "c6757b"}')`,
		`42["list",[1, 2]]`),
	toBoth(`redis.publish('socketio', '{"method": "emit", "event": "update", "data": {"price": 3}, "binary": false, "namespace": "/", "room": null, "skip_sid": null, "callback": null, "host_id": "c6757b"}')`,
		`42["update",{"price": 3}]`),
	toBoth(`redis.publish('flask-socketio', '{"method": "emit", "event": "update", "data": [{"price": 3}], "binary": false, "namespace": "/", "room": null, "skip_sid": null, "callback": null, "host_id": "c6757b"}')`,
		`42["update",{"price": 3}]`),
	toBoth(`redis.publish('flask-socketio', '{"method": "emit", "event": "several", "data": [1, "two"], "binary": false, "namespace": "/", "room": null, "skip_sid": null, "callback": null, "host_id": "c6757b"}')`,
		`42["several",1, "two"]`),
	toBoth(`redis.publish('socketio', '{"method": "emit", "event": "nothing", "data": [null], "binary": false, "namespace": "/", "room": null, "skip_sid": null, "callback": null, "host_id": "c6757b"}')`,
		`42["nothing"]`),
	toBoth(`redis.publish('socketio', '{"method": "emit", "event": "file", "data": [[{"data": {"_placeholder": true, "num": 0}}], "AP8="], "binary": true, "namespace": "/", "room": null, "skip_sid": null, "callback": null, "host_id": "c6757b"}')`,
		`451-["file",{"data": {"_placeholder": true, "num": 0}}]`, "\x00\xff"),
	{do: `redis.publish('socketio', '{"method": "emit", "event": "to", "data": [1], "binary": false, "namespace": "/chat", "room": "red", "skip_sid": null, "callback": null, "host_id": "c6757b"}')`,
		c: all(`42/chat,["to",1]`)},

	// Plain messages, of any client of Redis.
	toBoth(`redis.publish('prices:tea', '103.20')`, `42["message","103.20"]`),
	toBoth(`redis.publish('prices:tea', b'\xff')`, `451-["message",{"_placeholder":true,"num":0}]`, "\xff"),
	{do: `redis.publish('prices:coffee', '103.20')`},
	{do: `redis.publish('default', '103.20')`},

	// What is refused reaches nobody, and is no error to the backend.
	{do: `manager.emit('when', datetime.datetime(2025, 1, 2))`},
	{do: `manager.emit('connect', 1)`},
	{do: `manager.emit('set', {1})`},
	{do: `redis.publish('socketio', 'no JSON')`},
	{do: `manager.emit('unknown', 1, namespace='/unknown')`},
	toBoth(`manager.emit('last', 1)`, `42["last",1]`),
}

// TestQueuePrograms: what real programs publish reaches the clients that it is for, and nobody else, in order: through a Caddy that
// speaks the protocol of Redis itself, and through a Redis that Caddy subscribes to.
func TestQueuePrograms(t *testing.T) {
	t.Run("listen", func(t *testing.T) {
		queue := caddytest.FreeAddr(t)
		// With what an address can have: a password, and the number of a database.
		testQueue(t, "redis listen "+queue, "redis://:secret@"+queue+"/3", "password secret")
	})
	t.Run("connect", func(t *testing.T) {
		if testing.Short() {
			t.Skip("it does the same")
		}
		url := "redis://" + redistest.Start(t).Addr()
		testQueue(t, "redis connect "+url, url)
	})
}

func testQueue(t *testing.T, option, url string, more ...string) {
	block := strings.Join(append(more, "publish prices:*"), "\n")
	s := caddytest.Start(t, "broadcast {\n"+option+" {\n"+block+"\n}\n}\n---\n"+`broadcast /socket.io/* default prices:tea {
		socketio {
			namespaces /chat
		}
	}`)
	if strings.Contains(option, "connect") {
		s.WaitLog("subscribed to Redis") // it keeps nothing for those who come later
	}
	a, sidA := dialNamespace(s, "/")
	b, sidB := dialNamespace(s, "/")
	c, sidC := dialNamespace(s, "/chat")
	backend := startBackend(t, url, "A="+sidA, "B="+sidB, "C="+sidC)
	for _, step := range queueSteps {
		if value := backend.do(step.do); strings.Contains(value, "Error") {
			t.Errorf("%s: %s", step.do, value)
		}
		s.Expect(a, step.a...)
		s.Expect(b, step.b...)
		s.Expect(c, step.c...)
	}
	s.WaitLog("datetime.datetime")

	// A disconnected client is told so, and the others stay.
	backend.do(`socketio.server.disconnect(B)`)
	s.Expect(b, "41")
	backend.do(`app.app_context().push() or flask_socketio.disconnect(C, '/chat')`)
	s.Expect(c, "41/chat,")
	backend.do(`manager.emit('last', 2)`)
	s.Expect(a, `42["last",2]`)
}
