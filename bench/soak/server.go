//go:build linux

package main

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Where the server listens. The bench uses lower ports, so that both can run.
const (
	plainAddr  = "127.0.0.1:31290"
	adminAddr  = "127.0.0.1:31291"
	secureAddr = "localhost:31292"
)

// server is a whole Caddy with this module, in a process of its own.
type server struct {
	cmd *exec.Cmd
	out bytes.Buffer
}

// config returns the Caddyfile of a generation. Options of connections alternate, and every fifth generation lacks the route
// /extra, whose connections stay while new ones are rejected. Limits are low, so that the server finds stuck clients within seconds.
func config(generation int) string {
	extra := "broadcast /extra/* {path.1} {\n ping_interval 10s\n }"
	if generation%5 == 4 {
		extra = ""
	}
	return fmt.Sprintf(`{
	admin %s
	persist_config off
	skip_install_trust
	auto_https disable_redirects
	log {
		level ERROR
	}
	broadcast {
		history 20 1m
	}
}
http://%s, https://%s {
	broadcast /ws/* {path.1} {
		join *
		user {query.user}
		presence
		ping_interval %ds
		write_timeout 5s
		max_backlog 512KiB
	}
	broadcast /socket.io/* {query.room} {
		socketio
		ping_interval 10s
		write_timeout 5s
		max_backlog 128KiB
	}
	%s
	respond ok
}`, adminAddr, plainAddr, secureAddr, 10+generation%2, extra)
}

// startServer builds a Caddy and starts it.
func startServer(dir string) (*server, error) {
	bin := filepath.Join(dir, "server") // not caddy, which is the folder of its data
	if out, err := exec.Command("go", "build", "-o", bin, "github.com/caddy-broadcast/caddy-broadcast/cmd/caddy").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building caddy: %w\n%s", err, out)
	}
	file := filepath.Join(dir, "Caddyfile")
	if err := os.WriteFile(file, []byte(config(0)), 0o600); err != nil {
		return nil, err
	}
	s := &server{cmd: exec.Command(bin, "run", "--adapter", "caddyfile", "--config", file)}
	// Go has no other way yet to allow WebSockets over HTTP/2 (golang/go#71128, golang/go#53208).
	s.cmd.Env = append(os.Environ(), "XDG_DATA_HOME="+dir, "XDG_CONFIG_HOME="+dir, "GODEBUG=http2xconnect=1")
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	s.cmd.Stdout, s.cmd.Stderr = &s.out, &s.out
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		// Only over TLS, because that takes longest: Caddy makes its certificate after it has begun to listen.
		c, err := tls.Dial("tcp", secureAddr, insecure)
		if err == nil {
			c.Close()
			return s, nil
		}
		if time.Now().After(end) {
			s.stop()
			return nil, fmt.Errorf("it does not answer: %s", s.out.String())
		}
	}
}

func (s *server) stop() {
	s.cmd.Process.Kill()
	s.cmd.Wait()
}

// load has the server go on with a generation of the configuration.
func (s *server) load(generation int) error {
	_, err := ask(http.MethodPost, "/load", config(generation))
	return err
}

// sample is what the server has at a moment.
type sample struct {
	at          time.Duration
	resident    int64 // bytes
	heap        int64 // bytes that are live: a garbage collection runs before
	goroutines  int64
	descriptors int64
	connections int64 // of the hub
}

func (s sample) String() string {
	return fmt.Sprintf("%6.1f MiB resident, %6.1f MiB live, %5d goroutines, %5d descriptors, %5d connections",
		mib(s.resident), mib(s.heap), s.goroutines, s.descriptors, s.connections)
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }

// sample looks at the server.
func (s *server) sample() (v sample, err error) {
	// With a garbage collection first, so that the heap is what is in use, and no garbage hides a leak.
	if _, err = ask(http.MethodGet, "/debug/pprof/heap?gc=1", ""); err != nil {
		return v, err
	}
	text, err := ask(http.MethodGet, "/metrics", "")
	if err != nil {
		return v, err
	}
	for line := range strings.Lines(text) {
		name, number, _ := strings.Cut(strings.TrimSpace(line), " ")
		n, err := strconv.ParseFloat(number, 64)
		if err != nil {
			continue
		}
		switch {
		case name == "go_goroutines":
			v.goroutines = int64(n)
		case name == "go_memstats_heap_alloc_bytes":
			v.heap = int64(n)
		case strings.HasPrefix(name, "caddy_broadcast_connections"):
			v.connections += int64(n) // one for each transport
		}
	}
	proc := fmt.Sprintf("/proc/%d/", s.cmd.Process.Pid)
	open, err := os.ReadDir(proc + "fd")
	if err != nil {
		return v, err
	}
	v.descriptors = int64(len(open))
	status, err := os.ReadFile(proc + "status")
	if err != nil {
		return v, err
	}
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	var kib int64
	_, err = fmt.Sscan(rest, &kib)
	v.resident = kib << 10
	return v, err
}

// closed says why connections have ended.
func (s *server) closed() (string, error) {
	text, err := ask(http.MethodGet, "/metrics", "")
	if err != nil {
		return "", err
	}
	var reasons []string
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), `caddy_broadcast_closed_total{reason="`); ok {
			reason, n, _ := strings.Cut(rest, `"} `)
			if n != "0" {
				reasons = append(reasons, n+" "+reason)
			}
		}
	}
	return "\nWhy connections ended, as the server counted it: " + strings.Join(reasons, ", ") + ".\n", nil
}

// admin has a new connection for each request, because a reload ends those of the admin API before it.
var admin = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute}

// ask returns what the admin API answers. A connection that waits while a listener closes is reset, so it tries again.
func ask(method, path, body string) (text string, err error) {
	for range 10 {
		if text, err = askOnce(method, path, body); !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, io.EOF) {
			break
		}
	}
	return text, err
}

func askOnce(method, path, body string) (string, error) {
	req, err := http.NewRequest(method, "http://"+adminAddr+path, strings.NewReader(body))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "text/caddyfile")
	resp, err := admin.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %.500s", path, resp.Status, text)
	}
	return string(text), err
}
