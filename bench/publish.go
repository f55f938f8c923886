//go:build linux

package main

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// poster publishes by POST over a keep-alive connection, at little cost to the generator.
type poster struct {
	c net.Conn
	r *bufio.Reader
}

func newPoster(addr string) (*poster, error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	return &poster{c, bufio.NewReader(c)}, nil
}

func (p *poster) publish(addr, path string, data []byte) error {
	p.c.SetDeadline(time.Now().Add(20 * time.Second))
	b := make([]byte, 0, 256+len(data))
	b = append(b, "POST "+path+" HTTP/1.1\r\nHost: "+addr+"\r\nContent-Type: text/plain\r\nContent-Length: "...)
	b = strconv.AppendInt(b, int64(len(data)), 10)
	b = append(append(b, "\r\n\r\n"...), data...)
	if _, err := p.c.Write(b); err != nil {
		return err
	}
	resp, err := http.ReadResponse(p.r, nil)
	if err != nil {
		return err
	}
	io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("publish: %s", resp.Status)
	}
	return nil
}

// load describes how messages are published.
type load struct {
	size    int
	rooms   int
	rate    int // messages per second; 0 is as many as the window allows
	window  int // maximum number of messages published but not yet delivered to everyone; 0 is no limit
	posters int
	sockets int // how many of the readers' sockets publish, instead of POSTs
}

// drive publishes for a time, and returns what the readers of each room should have got and the number of messages.
func (f *fleet) drive(s *server, l load, d time.Duration) (expected []tally, messages int64, err error) {
	var mu sync.Mutex
	expected = make([]tally, l.rooms)
	perRoom := int64(0)
	for _, r := range f.readers {
		if !r.stopped {
			perRoom++
		}
	}
	perRoom /= int64(l.rooms)

	var published atomic.Int64
	var failed atomic.Value
	number := uint32(0)
	next := func() (room int, data []byte) {
		mu.Lock()
		defer mu.Unlock()
		number++
		room = rand.IntN(l.rooms)
		expected[room].add(number)
		published.Add(1)
		return room, payload(l.size, number)
	}
	start := f.delivered.Load()
	tokens := make(chan struct{})
	go func() {
		defer close(tokens)
		begin := time.Now()
		for i := 0; failed.Load() == nil; i++ {
			if l.rate > 0 {
				time.Sleep(time.Until(begin.Add(time.Duration(i) * time.Second / time.Duration(l.rate))))
			}
			if time.Since(begin) >= d {
				return
			}
			if l.window > 0 && !f.wait(start+(int64(i)-int64(l.window)+1)*perRoom, 20*time.Second) {
				failed.Store(fmt.Errorf("nothing is delivered any more"))
				return
			}
			tokens <- struct{}{}
		}
	}()
	var wg sync.WaitGroup
	for i := range max(l.posters, l.sockets) {
		wg.Go(func() {
			publish := func(room int, data []byte) error {
				p := clientFrame([]byte(s.wrap(string(data))))
				for fd := f.readers[i].fd; len(p) > 0; {
					n, err := unix.Write(fd, p)
					if err == unix.EAGAIN {
						time.Sleep(time.Millisecond)
						continue
					}
					if err != nil {
						return err
					}
					p = p[n:]
				}
				return nil
			}
			if l.sockets == 0 {
				p, err := newPoster(s.addr)
				if err != nil {
					failed.Store(err)
					return
				}
				defer p.c.Close()
				publish = func(room int, data []byte) error { return p.publish(s.addr, s.publish(room), data) }
			}
			for range tokens {
				if err := publish(next()); err != nil {
					failed.Store(err)
				}
			}
		})
	}
	wg.Wait()
	if e := failed.Load(); e != nil {
		err = e.(error)
	}
	return expected, published.Load(), err
}
