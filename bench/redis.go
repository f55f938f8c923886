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
}

// newRedisPublisher connects.
func newRedisPublisher(addr string) (*redisPublisher, error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	p := &redisPublisher{c: c}
	p.answers.Go(func() {
		for r := bufio.NewScanner(c); r.Scan(); {
			if answer := r.Text(); answer[0] != ':' {
				p.failed = fmt.Errorf("PUBLISH: %s", answer)
			}
		}
	})
	return p, nil
}

// publish sends one PUBLISH. Its channel is named as the route's are.
func (p *redisPublisher) publish(room int, data []byte) error {
	channel := strconv.Itoa(room)
	p.buf = fmt.Appendf(p.buf[:0], "*3\r\n$7\r\nPUBLISH\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n", len(channel), channel, len(data), data)
	_, err := p.c.Write(p.buf)
	return err
}

// close waits for the last answers.
func (p *redisPublisher) close() error {
	p.c.(*net.TCPConn).CloseWrite()
	p.answers.Wait()
	p.c.Close()
	return p.failed
}
