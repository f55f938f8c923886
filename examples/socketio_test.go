package examples_test

import (
	"net/http"
	"net/url"
	"testing"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
)

// TestSocketIO: what the app emits reaches the pages: everything, and what is for a room if they are in it.
func TestSocketIO(t *testing.T) {
	python := caddytest.Python(t, "python3-flask-socketio python3-redis", "flask_socketio", "redis")
	port, queue := caddytest.FreePort(t), "127.0.0.1:"+caddytest.FreePort(t)
	e := start(t, "socketio", "localhost:5000", "127.0.0.1:"+port, "127.0.0.1:6380", queue)
	caddytest.StartApp(t, python, "socketio/app.py", port, "QUEUE=redis://"+queue, "PAUSE=0.1")
	a, b := e.open(), e.open()
	for _, p := range []page{a, b} {
		p.shows("#log", "response: Connected")
		p.shows("#log", "update: ")
		p.shows("#transport", "websocket")
	}
	submit := func(p page, form string) {
		p.t.Helper()
		p.do(`document.getElementById("` + form + `").requestSubmit()`)
	}
	a.do(`socket.emit("join", {room: "five"}, ack => { globalThis.joined = ack.id })`)
	a.wait(`globalThis.joined`)
	b.do(`socket.emit("join", {room: "six"}, ack => { globalThis.refused = ack.error.code })`)
	b.wait(`globalThis.refused == "forbidden"`)
	say := func(text string) {
		t.Helper()
		resp, err := http.PostForm(e.site+"/say/five", url.Values{"data": {text}})
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusNoContent {
			t.Fatal(resp.Status)
		}
	}
	say("first")
	a.shows("#log", "response: first")
	a.shows("#log", "in the room five")
	submit(b, "join")
	b.do(`document.querySelector("#broadcast input").value = "hello"`)
	submit(b, "broadcast") // it comes after the join
	for _, p := range []page{a, b} {
		p.shows("#log", "chat: hello")
	}
	say("second")
	for _, p := range []page{a, b} {
		p.shows("#log", "response: second")
	}
	b.wait(`!document.getElementById("log").textContent.includes("first")`)

	// A page that loses its connection gets what it has missed, in its rooms too.
	a.do(`globalThis.counts = []
		socket.on("update", m => { if (!m.room) counts.push(m.count) })
		socket.io.engine.close()`)
	say("third")
	a.shows("#log", "response: third")
	a.wait(`socket.recovered && counts.length > 2 && counts.every((n, i) => n == counts[0] + i)`)
}
