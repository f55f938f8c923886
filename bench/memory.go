//go:build linux

package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// harmful is how many clients try to make the server hold memory. With 16 KiB each they hold 48 MiB, so that even small
// holdings matter beside a max_memory of 64 MiB. More connections than a small site has, and few enough for all to be
// connected early in a run.
const harmful = 3000

// attack is a way to make a server hold memory. It goes on until done is closed.
type attack struct {
	name, about string
	run         func(a *attackers, done <-chan struct{}) error
}

// Each is about one place where a server keeps what it has not been able to pass on: queues, unfinished messages, history
// that a resuming client still reads, and inboxes.
var attacks = []attack{
	{"quiet", "idle clients: the cost of the connections themselves", (*attackers).quiet},
	{"stuck", "clients that accept no data, while 8 publishers post messages of 16 KiB", (*attackers).stuck},
	{"unfinished", "clients that send all of a message except its last byte", (*attackers).unfinished},
	{"replay", "clients that resume from the first message and accept nothing, while the history moves on", (*attackers).replay},
	{"inboxes", "1,000 WebSockets that publish as fast as they can, to 50 that read", (*attackers).inboxes},
}

// benchMemory prints, for each attack, how far the server's resident memory grew at most, as a multiple of max_memory. The
// reference is the process before any client connected. max_memory counts what waits for clients and not Go's own overhead,
// so the multiple is above 1 in a server that keeps its limit too. quiet shows how much of it the connections are.
func benchMemory(mib int, seconds float64) error {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	fmt.Printf("%d clients, max_memory %d MiB, %g s each\n%-12s %12s %12s %14s %10s\n",
		harmful, mib, seconds, "attack", "peak MiB", "x max_memory", "sent", "refused")
	for i, atk := range attacks {
		// The history is practically unlimited, so that max_memory is what limits it.
		options := fmt.Sprintf("broadcast {\n max_memory %dMiB\n history 100000\n }", mib)
		// A server of its own for each attack: memory that one has made it take is not given back at once.
		s, err := startCaddy(dir, 20500+10*i, options)
		if err != nil {
			return err
		}
		// The server has finished starting then, and its size is the reference.
		time.Sleep(time.Second)
		a := &attackers{server: s}
		idle, peak := s.usage().rss, int64(0)
		done, ended := make(chan struct{}), make(chan error, 1)
		go func() { ended <- atk.run(a, done) }()
		for end := time.Now().Add(time.Duration(seconds * float64(time.Second))); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			// The peak counts, not the end: what kills a process is the largest moment.
			peak = max(peak, s.usage().rss-idle)
		}
		close(done)
		err = <-ended
		if err != nil {
			return fmt.Errorf("%s: %w", atk.name, err)
		}
		a.close()
		s.stop()
		fmt.Printf("%-12s %12.0f %12.2f %14d %10d\n", atk.name, float64(peak)/(1<<20), float64(peak)/float64(mib<<20), a.published.Load(), a.refused.Load())
	}
	return nil
}

// attackers are the clients of one attack.
type attackers struct {
	server             *server
	published, refused atomic.Int64

	mu    sync.Mutex
	conns []net.Conn
}

// close closes the clients. It is called after done, when none of them waits for anything but its socket.
func (a *attackers) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range a.conns {
		c.Close()
	}
}

// dial opens a WebSocket, and returns it with the data that followed the handshake's response in the reader. A response other
// than 101 is counted and is not an error, because the server is supposed to reject clients when its memory is full. The
// connection and the reader are nil then.
func (a *attackers) dial(query, protocol string) (net.Conn, *bufio.Reader, error) {
	c, err := net.Dial("tcp", a.server.addr)
	if err != nil {
		return nil, nil, err
	}
	a.mu.Lock()
	a.conns = append(a.conns, c)
	a.mu.Unlock()
	c.(*net.TCPConn).SetReadBuffer(4 << 10) // otherwise the kernel buffers megabytes for a client that reads nothing
	if protocol != "" {
		protocol = "Sec-WebSocket-Protocol: " + protocol + "\r\n"
	}
	fmt.Fprintf(c, "GET %s%s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n%s\r\n", a.server.path(0), query, a.server.addr, protocol)
	r := bufio.NewReaderSize(c, 1024)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return nil, nil, err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		a.refused.Add(1)
		c.Close()
		return nil, nil, nil
	}
	return c, r, nil
}

// post publishes until done is closed. It uses net/http's client, unlike the load of the scenarios, because nothing here
// depends on what the generator costs.
func (a *attackers) post(publishers, size int, done <-chan struct{}) {
	var all sync.WaitGroup
	body := strings.Repeat("x", size)
	for range publishers {
		all.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				resp, err := http.Post("http://"+a.server.addr+a.server.publish(0), "text/plain", strings.NewReader(body))
				// A server that is out of memory may break connections. The attack goes on.
				if err != nil {
					continue
				}
				io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if resp.StatusCode == http.StatusOK {
					a.published.Add(1)
				} else {
					a.refused.Add(1)
				}
			}
		})
	}
	all.Wait()
}

// quiet only connects. Its figure is a part of those of the others.
func (a *attackers) quiet(done <-chan struct{}) error {
	for range harmful {
		if _, _, err := a.dial("", ""); err != nil {
			return err
		}
	}
	<-done
	return nil
}

// stuck never reads, and sets no deadline: the server has to find out by itself.
func (a *attackers) stuck(done <-chan struct{}) error {
	for range harmful {
		if _, _, err := a.dial("", ""); err != nil {
			return err
		}
	}
	a.post(8, 16<<10, done)
	return nil
}

// frame returns a masked text frame whose mask is zero.
func frame(p []byte) []byte {
	f := binary.BigEndian.AppendUint16([]byte{0x81, 0x80 | 126}, uint16(len(p)))
	if len(p) > 0xffff { // a shorter length would be a protocol error (RFC 6455, section 5.2)
		f = binary.BigEndian.AppendUint64([]byte{0x81, 0x80 | 127}, uint64(len(p)))
	}
	return append(append(f, 0, 0, 0, 0), p...)
}

// unfinished makes the server hold parts of messages. Where it refuses to read on, the deadline ends the write, and what is
// sent counts.
func (a *attackers) unfinished(done <-chan struct{}) error {
	f := frame(bytes.Repeat([]byte(" "), 132<<10)) // the longest frame that broadcast.v1 allows
	for range harmful {
		c, _, err := a.dial("", "broadcast.v1")
		if err != nil {
			return err
		}
		if c != nil {
			c.SetWriteDeadline(time.Now().Add(time.Second)) // the server may stop reading
			c.Write(f[:len(f)-1])
		}
	}
	<-done
	return nil
}

// replay makes the server hold messages that have left the history, for clients that are still to get them. It publishes for
// two seconds first, so that there is a history to resume in.
func (a *attackers) replay(done <-chan struct{}) error {
	full := make(chan struct{})
	time.AfterFunc(2*time.Second, func() { close(full) })
	a.post(8, 16<<10, full)
	// One more, whose response tells the epoch, which a position needs.
	resp, err := http.Post("http://"+a.server.addr+a.server.publish(0), "text/plain", strings.NewReader("x"))
	if err != nil {
		return err
	}
	p, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil {
		return err
	}
	_, id, _ := strings.Cut(string(p), `{"id":"`)
	epoch, _, _ := strings.Cut(id, "-")
	go a.post(8, 16<<10, done)
	for i := range harmful {
		// A client can resume only if history has everything since, so each one starts about 60 messages back.
		if _, _, err := a.dial(fmt.Sprintf("?last_id=%s-%d", epoch, max(0, int(a.published.Load())-60-i%4)), "broadcast.v1"); err != nil {
			return err
		}
	}
	<-done
	return nil
}

// inboxes publishes from many sockets at once. What they send must wait somewhere: in the kernel if the server stops reading,
// which is right, or in the server.
func (a *attackers) inboxes(done <-chan struct{}) error {
	for range 50 {
		_, r, err := a.dial("", "")
		if err != nil {
			return err
		}
		if r != nil {
			go io.Copy(io.Discard, r)
		}
	}
	f := frame(bytes.Repeat([]byte("x"), 32<<10))
	var publishers []net.Conn
	for range 1000 {
		c, r, err := a.dial("", "")
		if err != nil {
			return err
		}
		if c != nil {
			go io.Copy(io.Discard, r)
			publishers = append(publishers, c)
		}
	}
	for _, c := range publishers { // only when all are connected, because publishers would delay the handshakes of the others
		go func() {
			for range 10_000 {
				if _, err := c.Write(f); err != nil {
					return
				}
				a.published.Add(1)
			}
		}()
	}
	<-done
	return nil
}
