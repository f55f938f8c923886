//go:build linux

package main

import (
	"bufio"
	"fmt"
	"net"
	"strconv"
	"sync"
)

// redisPublisher publishes with the Redis protocol. It does not wait for answers: that is what makes it fast. A goroutine reads
// them.
type redisPublisher struct {
	c       net.Conn
	answers sync.WaitGroup
	failed  error // once answers are over
	buf     []byte
	atOnce  int // how many messages are published with one write
	n       int // of those in buf
}

// newRedisPublisher connects.
func newRedisPublisher(addr string, atOnce int) (*redisPublisher, error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	p := &redisPublisher{c: c, atOnce: atOnce}
	p.answers.Go(func() {
		for r := bufio.NewScanner(c); r.Scan(); {
			if answer := r.Text(); answer[0] != ':' {
				p.failed = fmt.Errorf("PUBLISH: %s", answer)
			}
		}
	})
	return p, nil
}

// publish sends a PUBLISH, or keeps it until there are as many as are sent at once. Its channel is named as the route's are.
func (p *redisPublisher) publish(room int, data []byte) error {
	channel := strconv.Itoa(room)
	p.buf = fmt.Appendf(p.buf, "*3\r\n$7\r\nPUBLISH\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n", len(channel), channel, len(data), data)
	if p.n++; p.n < p.atOnce {
		return nil
	}
	return p.flush()
}

func (p *redisPublisher) flush() error {
	_, err := p.c.Write(p.buf)
	p.buf, p.n = p.buf[:0], 0
	return err
}

// close waits for the last answers.
func (p *redisPublisher) close() error {
	if err := p.flush(); err != nil {
		return err
	}
	p.c.(*net.TCPConn).CloseWrite()
	p.answers.Wait()
	p.c.Close()
	return p.failed
}
