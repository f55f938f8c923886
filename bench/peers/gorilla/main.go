// The hub that most Go servers copy, from gorilla/websocket's chat example: a goroutine that owns a map of clients, and
// for each client a channel and two goroutines. Each message is a frame, as for the other peers. With "join", everything in a
// client's channel becomes one frame of lines, as in the example itself, which suits a chat and little else.
package main

import (
	"io"
	"log"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

var join = len(os.Args) > 2 && os.Args[2] == "join"

// hub is the example's, one for each room. A client whose channel is full is disconnected, as there, which is why this peer
// loses messages in scenario burst.
type hub struct {
	clients              map[*client]bool
	broadcast            chan []byte
	register, unregister chan *client
}

// client is the example's.
type client struct {
	hub  *hub
	conn *websocket.Conn
	send chan []byte
}

func newHub() *hub {
	h := &hub{make(map[*client]bool), make(chan []byte), make(chan *client), make(chan *client)}
	go h.run()
	return h
}

// run owns the map, so it needs no lock, and all messages of a room pass through one goroutine.
func (h *hub) run() {
	for {
		select {
		case c := <-h.register:
			h.clients[c] = true
		case c := <-h.unregister:
			if h.clients[c] {
				delete(h.clients, c)
				close(c.send)
			}
		case m := <-h.broadcast:
			for c := range h.clients {
				select {
				case c.send <- m:
				default:
					close(c.send)
					delete(h.clients, c)
				}
			}
		}
	}
}

// readPump has the example's deadlines and pongs. Only the limit of a message is larger than its 512 bytes, so that no
// scenario meets it.
func (c *client) readPump() {
	defer func() {
		c.hub.unregister <- c
		c.conn.Close()
	}()
	c.conn.SetReadLimit(1 << 20)
	c.conn.SetReadDeadline(time.Now().Add(time.Minute))
	c.conn.SetPongHandler(func(string) error { c.conn.SetReadDeadline(time.Now().Add(time.Minute)); return nil })
	for {
		_, m, err := c.conn.ReadMessage()
		if err != nil {
			return
		}
		c.hub.broadcast <- m
	}
}

// writePump makes one system call for each frame, which without join is one for each message.
func (c *client) writePump() {
	ticker := time.NewTicker(54 * time.Second)
	defer func() {
		ticker.Stop()
		c.conn.Close()
	}()
	for {
		select {
		case m, ok := <-c.send:
			c.conn.SetWriteDeadline(time.Now().Add(10 * time.Second))
			if !ok {
				c.conn.WriteMessage(websocket.CloseMessage, nil)
				return
			}
			w, err := c.conn.NextWriter(websocket.TextMessage)
			if err != nil {
				return
			}
			w.Write(m)
			if join {
				for range len(c.send) {
					w.Write([]byte{'\n'})
					w.Write(<-c.send)
				}
			}
			if w.Close() != nil {
				return
			}
		case <-ticker.C:
			c.conn.SetWriteDeadline(time.Now().Add(10 * time.Second))
			if c.conn.WriteMessage(websocket.PingMessage, nil) != nil {
				return
			}
		}
	}
}

func main() {
	var mu sync.Mutex
	hubs := make(map[string]*hub)
	room := func(name string) *hub {
		mu.Lock()
		defer mu.Unlock()
		h := hubs[name]
		if h == nil {
			h = newHub()
			hubs[name] = h
		}
		return h
	}
	upgrader := websocket.Upgrader{ReadBufferSize: 1024, WriteBufferSize: 1024}
	http.HandleFunc("POST /", func(w http.ResponseWriter, r *http.Request) {
		if data, err := io.ReadAll(r.Body); err == nil {
			room(r.URL.Path).broadcast <- data
		}
	})
	http.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) {
		conn, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		// 256 is the example's length of the channel.
		c := &client{room(r.URL.Path), conn, make(chan []byte, 256)}
		c.hub.register <- c
		go c.writePump()
		go c.readPump()
	})
	if len(os.Args) > 5 { // an address for TLS, a certificate, and its key
		go func() { log.Fatal(http.ListenAndServeTLS(os.Args[3], os.Args[4], os.Args[5], nil)) }()
	}
	log.Fatal(http.ListenAndServe(os.Args[1], nil))
}
