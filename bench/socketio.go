//go:build linux

package main

import (
	"bytes"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// inNamespace begins the answer to a client of Socket.IO that has connected to the main namespace.
const inNamespace = `40{"sid"`

// socketIO speaks as much of Engine.IO 4 and Socket.IO 5 as the bench needs. The server's pings are set to minutes apart,
// since these clients do not answer them.
func socketIO(s *server) {
	s.path = func(i int) string { return "/socket.io/?EIO=4&transport=websocket&room=" + strconv.Itoa(i) }
	s.hello = "40"
	s.wrap = func(data string) string { return `42["say","` + data + `"]` }
}

// startOursSocketIO starts our server for clients of Socket.IO. Messages are published as for the others, so that only the
// clients differ.
func startOursSocketIO(dir string, port int) (*server, error) {
	s, err := startOurs(dir, port)
	if err == nil {
		socketIO(s)
	}
	return s, err
}

// startNodeSocketIO starts the server of npm.
func startNodeSocketIO(dir string, port int) (*server, error) {
	s, err := startNode("socketio.js")(dir, port)
	if err == nil {
		socketIO(s)
	}
	return s, err
}

// pollingPath is where a client that polls begins. With its session's ID it is where it goes on.
func pollingPath(room int) string {
	return "/socket.io/?EIO=4&transport=polling&room=" + strconv.Itoa(room)
}

// poll is a client that polls. It asks for more as soon as it has an answer, on the same connection: browsers use a second
// one only for what they send, and these clients send nothing any more.
type poll struct {
	request []byte
	head    []byte // of an answer that has come in part
	missing int    // of the answer's body
}

// beginPolling connects a client of Socket.IO by polling, and asks for its first message.
func beginPolling(c io.ReadWriter, t target, r *reader) error {
	path := t.path(r.room)
	answer, err := exchange(c, "GET", t.addr, path, "")
	if err != nil {
		return err
	}
	_, rest, ok := strings.Cut(answer, `"sid":"`)
	sid, _, ok2 := strings.Cut(rest, `"`)
	if !ok || !ok2 {
		return fmt.Errorf("no session: %.300q", answer)
	}
	path += "&sid=" + sid
	if _, err = exchange(c, "POST", t.addr, path, t.hello); err != nil {
		return err
	}
	if answer, err = exchange(c, "GET", t.addr, path, ""); err != nil || !strings.Contains(answer, inNamespace) {
		return fmt.Errorf("not connected: %w after %.300q", err, answer)
	}
	r.poll = &poll{request: request("GET", t.addr, path, "")}
	_, err = c.Write(r.poll.request)
	return err
}

func request(method, addr, path, body string) []byte {
	head := fmt.Appendf(nil, "%s %s HTTP/1.1\r\nHost: %s\r\n", method, path, addr)
	if method == "POST" {
		head = fmt.Appendf(head, "Content-Type: text/plain;charset=UTF-8\r\nContent-Length: %d\r\n", len(body))
	}
	return append(append(head, "\r\n"...), body...)
}

// exchange sends a request, and returns the body of the answer.
func exchange(c io.ReadWriter, method, addr, path, body string) (string, error) {
	if _, err := c.Write(request(method, addr, path, body)); err != nil {
		return "", err
	}
	var p poll
	var answer []byte
	for buf := make([]byte, 4096); ; {
		n, err := c.Read(buf)
		if err != nil {
			return "", fmt.Errorf("%s: %w after %.300q", method, err, answer)
		}
		answer = append(answer, buf[:n]...)
		switch complete, ok := p.add(buf[:n]); {
		case !ok:
			return "", fmt.Errorf("%s: %.300q", method, answer)
		case complete:
			_, after, _ := bytes.Cut(answer, []byte("\r\n\r\n"))
			return string(after), nil
		}
	}
}

// take takes a part of an answer, and asks for the next one if it is complete. It reports false if it makes no sense.
func (p *poll) take(c io.Writer, part []byte) bool {
	complete, ok := p.add(part)
	if !ok || !complete {
		return ok
	}
	// It fits in the socket's buffer, which is empty: the server has answered all before it.
	n, err := c.Write(p.request)
	return err == nil && n == len(p.request)
}

// add takes a part of an answer. It reports whether that completes it, and false if it is none that was expected. There is
// never more than one, because the next is not asked for before.
func (p *poll) add(part []byte) (complete, ok bool) {
	if p.missing == 0 {
		p.head = append(p.head, part...)
		head, body, whole := bytes.Cut(p.head, []byte("\r\n\r\n"))
		if !whole {
			return false, len(p.head) < 4096
		}
		length, ok := contentLength(head)
		if !ok || !bytes.HasPrefix(head, []byte("HTTP/1.1 200 ")) {
			return false, false
		}
		p.head, p.missing, part = p.head[:0], length, body
	}
	p.missing -= len(part)
	return p.missing == 0, p.missing >= 0
}

// contentLength returns the length of an answer's body. All of these servers give one.
func contentLength(head []byte) (n int, ok bool) {
	for line := range bytes.Lines(head) {
		name, value, _ := bytes.Cut(line, []byte(":"))
		if bytes.EqualFold(name, []byte("Content-Length")) {
			n, err := strconv.Atoi(string(bytes.TrimSpace(value)))
			return n, err == nil && n > 0
		}
	}
	return 0, false
}
