package examples_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

// TestChatHistory: the conversation is still in the history after an hour of 8 pages that announce their presence.
func TestChatHistory(t *testing.T) {
	e := start(t, "chat")
	stream, err := http.Get(e.admin + "/broadcast/stream")
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Body.Close()
	a := e.open()
	here := firstEvent(t, stream, "here")
	a.wait(`document.getElementById("state").textContent == "open"`)
	a.do(`document.getElementById("text").value = "said long ago"; document.forms[0].requestSubmit()`)
	a.shows("#messages", "said long ago")
	var lines strings.Builder
	for range 8 * 3 * 60 {
		line, _ := json.Marshal(here)
		fmt.Fprintf(&lines, "%s\n", line)
	}
	resp, err := http.Post(e.admin+"/broadcast/publish", "application/x-ndjson", strings.NewReader(lines.String()))
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatal(resp.Status)
	}
	b := e.open()
	b.shows("#messages", "said long ago")
	for _, p := range []page{a, b} { // they see each other, without waiting for the next 20 seconds
		p.wait(`document.querySelectorAll("#people li").length == 2`)
	}
}

// TestChatClocks: a page decides by its own clock who is present, because the others' clocks may be wrong.
func TestChatClocks(t *testing.T) {
	e := start(t, "chat")
	p := e.open()
	p.shows("#state", "open")
	p.wait(`document.querySelectorAll("#people li").length == 1`)
	for _, at := range []string{"0", "9e15"} {
		e.publishJSON("channel=here:lobby&event=here", `{"from":"`+at+`","name":"clock `+at+`","at":`+at+`}`)
		p.shows("#people", "clock "+at)
	}
	p.do(`const now = Date.now; Date.now = () => now() + 60_000`)
	p.wait(`document.querySelectorAll("#people li").length < 2`) // itself, if it has just told
}

// TestLogJSON: JSON messages, such as Caddy's events, are shown too, and do not keep other lines from being shown.
func TestLogJSON(t *testing.T) {
	e := start(t, "log")
	p := e.open()
	p.shows("#state", "open")
	e.publishJSON("channel=log", `{"a":["<b>"]}`)
	e.publish("channel=log", "a line")
	p.shows("#log", "a line")
	p.shows("#log", `{"a":["<b>"]}`)
}

func (e *example) publishJSON(query, data string) {
	e.t.Helper()
	resp, err := http.Post(e.admin+"/broadcast/publish?"+query, "application/json", strings.NewReader(data))
	if err != nil {
		e.t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		e.t.Fatal(resp.Status)
	}
}

type message struct {
	Channel string          `json:"channel"`
	Event   string          `json:"event"`
	Data    json.RawMessage `json:"data"`
}

// firstEvent returns the next message with an event.
func firstEvent(t *testing.T, stream *http.Response, event string) message {
	t.Helper()
	for in := bufio.NewScanner(stream.Body); in.Scan(); {
		data, ok := strings.CutPrefix(in.Text(), "data: ")
		if !ok {
			continue
		}
		var frame []message
		if err := json.Unmarshal([]byte(data), &frame); err != nil {
			t.Fatal(err)
		}
		for _, m := range frame {
			if m.Event == event {
				return m
			}
		}
	}
	t.Fatal("the stream has ended")
	return message{}
}

// TestLogEnd: the log's page stays at the end, whatever the length of the lines and the size of the window, until its
// reader scrolls up; and again from when the reader is back at the end.
func TestLogEnd(t *testing.T) {
	e := start(t, "log", "output broadcast log", "output discard") // it counts lines
	p := e.open()
	p.run(chromedp.EmulateViewport(700, 500))
	p.shows("#state", "open")
	n := 0
	add := func(count int) {
		t.Helper()
		for range count {
			e.publish("channel=log", fmt.Sprintf("line %d %s", n, strings.Repeat("word ", n%7*20)))
			n++
		}
		p.wait(fmt.Sprintf(`document.getElementById("count").textContent == "%d lines"`, n))
	}
	const fromEnd = `(log => log.scrollHeight - log.scrollTop - log.clientHeight)(document.getElementById("log"))`
	atEnd := func() {
		t.Helper()
		p.wait(fromEnd + ` < 2 && document.getElementById("log").scrollTop > 0`)
	}
	for range 5 {
		add(60)
		atEnd()
	}
	p.run(chromedp.EmulateViewport(400, 700))
	atEnd()
	const drawn = `globalThis.drawn = false; requestAnimationFrame(() => requestAnimationFrame(() => globalThis.drawn = true))`
	p.do(drawn)
	p.wait(`globalThis.drawn`) // the page has the scroll events of its own scrolling
	p.do(`document.getElementById("log").scrollTop -= 500`)
	p.wait(fromEnd + ` > 400`)
	p.do(`requestAnimationFrame(() => requestAnimationFrame(() => globalThis.drawn = true))`)
	p.wait(`globalThis.drawn`) // the page has its scroll event
	add(60)
	p.wait(fromEnd + ` > 500`)
	p.do(`document.getElementById("log").scrollTop = 1e9`)
	atEnd()
	p.do(`globalThis.drawn = false; requestAnimationFrame(() => requestAnimationFrame(() => globalThis.drawn = true))`)
	p.wait(`globalThis.drawn`)
	add(1000)
	atEnd()
}
