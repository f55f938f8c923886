//go:build linux

// Command conflate measures what a page with a table of 500 rows gets over a slow network, with and without conflation. It needs
// to be root, and the commands ip and tc, because the network is a pair of virtual interfaces with a limited rate.
//
//	go run ./bench/conflate
package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"
	"golang.org/x/sys/unix"
)

const (
	rows      = 500
	perSecond = 1000
	space     = "bcconflate" // the client's network namespace
	serverIP  = "10.77.0.1"
	admin     = "127.0.0.1:20191"
)

// cases are the routes of the server, each with its options, and the client's network.
var cases = []struct{ name, path, rate string }{
	{"no conflation", "close", "256kbit"},
	{"`slow conflate`", "conflate", "256kbit"},
	{"`slow conflate`, `deliver_every 250ms`", "both", "256kbit"},
	{"no conflation", "close", ""},
	{"`slow conflate`", "conflate", ""},
	{"`deliver_every 250ms`", "every", ""},
}

const caddyfile = `{
	admin ` + admin + `
	persist_config off
	auto_https off
}
http://` + serverIP + `:20190 {
	broadcast /close table
	broadcast /conflate table {
		slow conflate
	}
	broadcast /every table {
		deliver_every 250ms
	}
	broadcast /both table {
		slow conflate
		deliver_every 250ms
	}
}
`

func main() {
	seconds := flag.Int("seconds", 20, "duration of each measurement")
	flag.Parse()
	if err := bench(time.Duration(*seconds) * time.Second); err != nil {
		fmt.Fprintln(os.Stderr, "conflate:", err)
		os.Exit(1)
	}
}

func bench(d time.Duration) error {
	dir, err := os.MkdirTemp("", "conflate")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	defer command("ip netns del " + space)
	for _, line := range []string{
		"ip netns add " + space,
		"ip link add bcserver type veth peer name bcclient netns " + space,
		"ip addr add " + serverIP + "/24 dev bcserver",
		"ip link set bcserver up",
		"ip -n " + space + " addr add 10.77.0.2/24 dev bcclient",
		"ip -n " + space + " link set bcclient up",
	} {
		if err := command(line); err != nil {
			return err
		}
	}
	file, binary := filepath.Join(dir, "Caddyfile"), filepath.Join(dir, "caddy")
	if err := os.WriteFile(file, []byte(caddyfile), 0o600); err != nil {
		return err
	}
	if err := command("go build -o " + binary + " ./cmd/caddy"); err != nil {
		return err
	}
	// A Caddy that an interrupted run has left would take its place, whatever it was built from.
	free, err := net.Listen("tcp", admin)
	if err != nil {
		return err
	}
	free.Close()
	caddy := exec.Command(binary, "run", "--config", file)
	if err := caddy.Start(); err != nil {
		return err
	}
	defer caddy.Wait()
	defer caddy.Process.Kill()
	fmt.Printf("| client | network | kB/s | frames/s | messages/s | stale p50 | stale p99 | closed |\n| --- | --- | --- | --- | --- | --- | --- | --- |\n")
	for _, c := range cases {
		if err := measure(c.name, c.path, c.rate, d); err != nil {
			return err
		}
	}
	return nil
}

func command(line string) error {
	words := strings.Fields(line)
	if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", line, err, out)
	}
	return nil
}

// table is what was published, and what the client shows.
type table struct {
	mu        sync.Mutex
	published [rows][]time.Time // those that the client does not show yet, oldest first
	stale     []time.Duration
	bytes     int
	frames    int
	messages  int
	closed    string
}

// measure has a client show the table for a while.
func measure(name, path, rate string, d time.Duration) error {
	command("tc qdisc del dev bcserver root") // there may be none
	if rate != "" {
		// The queue of a router: at most 400 ms.
		if err := command("tc qdisc add dev bcserver root tbf rate " + rate + " burst 3kb latency 400ms"); err != nil {
			return err
		}
	}
	var t table
	conn, err := dial(path)
	if err != nil {
		return err
	}
	defer conn.Close()
	read := make(chan struct{})
	go func() {
		defer close(read)
		t.read(conn)
	}()
	if err := t.publish(d); err != nil {
		return err
	}
	t.mu.Lock()
	slices.Sort(t.stale)
	s := d.Seconds()
	fmt.Printf("| %s | %s | %.1f | %.0f | %.0f | %s | %s | %s |\n", name, cmp.Or(rate, "unlimited"), float64(t.bytes)/1000/s, float64(t.frames)/s,
		float64(t.messages)/s, t.percentile(50), t.percentile(99), cmp.Or(t.closed, "no"))
	t.mu.Unlock()
	conn.Close()
	<-read
	return nil
}

func (t *table) percentile(p int) time.Duration {
	return t.stale[(len(t.stale)-1)*p/100].Round(time.Millisecond)
}

// dial connects from the client's network.
func dial(path string) (conn *websocket.Conn, err error) {
	d := websocket.Dialer{Subprotocols: []string{"broadcast.v1"}, NetDial: func(network, address string) (net.Conn, error) {
		// The thread is not unlocked, so that it ends with its goroutine and is not used for anything else.
		type result struct {
			conn net.Conn
			err  error
		}
		done := make(chan result)
		go func() {
			runtime.LockOSThread()
			f, err := os.Open("/var/run/netns/" + space)
			if err == nil {
				defer f.Close()
				err = unix.Setns(int(f.Fd()), unix.CLONE_NEWNET)
			}
			if err != nil {
				done <- result{nil, err}
				return
			}
			c, err := net.Dial(network, address)
			done <- result{c, err}
		}()
		r := <-done
		return r.conn, r.err
	}}
	for range 100 { // the server starts
		if conn, _, err = d.Dial("ws://"+serverIP+":20190/"+path, nil); err == nil {
			return conn, nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return nil, err
}

// update is the data of a message.
type update struct {
	Row   int   `json:"row"`
	Price int   `json:"price"`
	At    int64 `json:"at"` // nanoseconds
}

// read shows what comes.
func (t *table) read(conn *websocket.Conn) {
	for {
		_, p, err := conn.ReadMessage()
		t.mu.Lock()
		if err != nil {
			t.closed = "after an error"
			if e, ok := err.(*websocket.CloseError); ok {
				t.closed = fmt.Sprint(e.Code)
			}
			t.mu.Unlock()
			return
		}
		var frame []struct {
			Data *update `json:"data"`
		}
		json.Unmarshal(p, &frame)
		t.frames++
		t.bytes += len(p)
		for _, m := range frame {
			if m.Data == nil {
				continue
			}
			t.messages++
			for all := &t.published[m.Data.Row]; len(*all) > 0 && (*all)[0].UnixNano() <= m.Data.At; {
				*all = (*all)[1:]
			}
		}
		t.mu.Unlock()
	}
}

// publish publishes updates of rows, and looks how stale a row is that the client shows: since when there has been a newer one.
func (t *table) publish(d time.Duration) error {
	const every = 10 * time.Millisecond
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for end := time.Now().Add(d); time.Now().Before(end); <-ticker.C {
		var body bytes.Buffer
		t.mu.Lock()
		now := time.Now()
		for range perSecond / int(time.Second/every) {
			row := rand.IntN(rows)
			fmt.Fprintf(&body, `{"channel":"table","conflate":"row:%d","data":{"row":%d,"price":%d,"at":%d}}`+"\n", row, row, rand.IntN(100_000), now.UnixNano())
			t.published[row] = append(t.published[row], now)
		}
		for range 5 {
			stale := time.Duration(0)
			if all := t.published[rand.IntN(rows)]; len(all) > 0 {
				stale = now.Sub(all[0])
			}
			t.stale = append(t.stale, stale)
		}
		t.mu.Unlock()
		resp, err := http.Post("http://"+admin+"/broadcast/publish", "application/x-ndjson", &body)
		if err != nil {
			return err
		}
		answer, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK {
			return fmt.Errorf("publishing: %s: %s %v", resp.Status, answer, err)
		}
	}
	return nil
}
