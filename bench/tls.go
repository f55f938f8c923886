//go:build linux

package main

import (
	"crypto/tls"
	"io"
	"sync"
	"time"
)

// dialTLS connects the readers over TLS. Each has a goroutine, because crypto/tls can only be read with blocking calls. That
// costs the generator more, but not the server. It shares the cores with the server, so compare latencies over TLS with each
// other only.
func (f *fleet) dialTLS(t target) error {
	// With a session cache, as browsers have one: from the second connection on a ticket makes the handshake shorter.
	config := &tls.Config{InsecureSkipVerify: true, ServerName: "localhost", ClientSessionCache: tls.NewLRUClientSessionCache(1)}
	// Few at a time, because handshakes cost both sides CPU time, and the times to connect are measured.
	slots := make(chan struct{}, 8)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var failed error
	for _, r := range f.readers {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			begin := time.Now()
			c, err := tls.Dial("tcp", t.addr, config)
			if err == nil {
				err = handshake(c, t, r)
			}
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed = err
				return
			}
			f.noteConnect(len(f.conns), time.Since(begin))
			f.conns = append(f.conns, c)
			f.reading.Go(func() { f.readEach(c, r) })
		})
	}
	wg.Wait()
	return failed
}

// readEach reads for one reader until its connection ends.
func (f *fleet) readEach(c io.Reader, r *reader) {
	buf := make([]byte, 16<<10)
	for {
		n, err := c.Read(buf)
		if n > 0 {
			f.latency.mu.Lock()
			delivered := r.scan(buf[:n], time.Now().UnixNano(), &f.latency)
			f.latency.mu.Unlock()
			f.note(delivered)
		}
		if err != nil {
			if !f.closing.Load() {
				f.closed.Add(1)
			}
			return
		}
	}
}
