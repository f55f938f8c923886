//go:build linux

package main

import (
	"net"
	"time"
)

// delay listens, and passes each connection on to an address, late by a time in each direction. Loopback has no latency, and
// what is asked of a broker one after the other only shows with some. It ends when the listener is closed.
func delay(listen, to string, late time.Duration) (net.Listener, error) {
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return nil, err
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", to)
			if err != nil {
				c.Close()
				continue
			}
			go pass(c, server, late)
			go pass(server, c, late)
		}
	}()
	return l, nil
}

// pass copies from one connection to another, and closes both when one has ended.
func pass(from, to net.Conn, late time.Duration) {
	type piece struct {
		p   []byte
		due time.Time
	}
	pieces := make(chan piece, 1024)
	go func() {
		defer close(pieces)
		for {
			p := make([]byte, 64<<10)
			n, err := from.Read(p)
			if n > 0 {
				pieces <- piece{p[:n:n], time.Now().Add(late)}
			}
			if err != nil {
				return
			}
		}
	}()
	for piece := range pieces {
		time.Sleep(time.Until(piece.due))
		if _, err := to.Write(piece.p); err != nil {
			from.Close() // the reader ends, and with it the pieces
		}
	}
	from.Close()
	to.Close()
}
