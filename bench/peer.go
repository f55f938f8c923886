//go:build linux

package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// peer is a kind of server to measure. It gets the settings that the loads need, such as more open files, and otherwise has
// its defaults.
type peer struct {
	name  string
	about string
	start func(dir string, port int) (*server, error)
	// A peer without it needs only Go.
	lacks   func() string // returns what is not installed
	rooms   bool          // can separate audiences
	sockets bool          // accepts messages on its sockets
	tls     bool
	polling bool // speaks Socket.IO by long polling
	// Our own variants are measured where they differ, so that a whole run stays short.
	only []string // its scenarios; nil for all
}

func (p peer) ours() bool { return p.name == ours || strings.HasPrefix(p.name, "ours: ") }

// server is a running peer. It runs in a process of its own, whose CPU time and memory can therefore be told from the
// generator's.
type server struct {
	target
	publish func(room int) string // path to POST to
	// Makes what a socket of the peer publishes from a payload.
	wrap    func(data string) string
	cmd     *exec.Cmd
	tlsAddr string
	admin   string    // address of Caddy's admin API
	redis   string    // address to publish to with the Redis protocol, if not by POST
	atOnce  int       // how many of such messages are published with one write; 0 means one
	others  []*server // whose use counts as this one's: the other nodes of a cluster
	settle  func()    // makes the server release garbage before its memory is read
	// Only read after an error: the process goes on writing to it.
	out *bytes.Buffer
}

// same returns a path that is the same for each room.
func same(path string) func(int) string { return func(int) string { return path } }

// plain is the wrap of peers whose messages are bare text.
func plain(data string) string { return data }

// The first is the reference of most goals. Our variants follow it, then the floor, then the others by what they are written
// in.
var peers = []peer{
	{
		name:  "caddy-broadcast",
		about: "this module in a whole Caddy, published to by POST on the route",
		rooms: true, sockets: true, tls: true,
		start: startOurs,
	},
	{
		name:  oursStream,
		about: "the same, to event streams",
		only:  []string{"paced", "burst", "idle"},
		start: func(dir string, port int) (*server, error) {
			s, err := startOurs(dir, port)
			if err == nil {
				s.stream = true
			}
			return s, err
		},
	},
	{
		name:  oursV1,
		about: "the same, to WebSockets that speak broadcast.v1",
		only:  []string{"paced", "burst", "idle"},
		start: func(dir string, port int) (*server, error) {
			s, err := startOurs(dir, port)
			if err == nil {
				s.subprotocol = "broadcast.v1"
			}
			return s, err
		},
	},
	{
		name:  oursSocketIO,
		about: "the same, to clients of Socket.IO",
		only:  []string{"paced", "burst", "rooms", "polling", "polling-burst", "idle", "idle-polling"},
		rooms: true, polling: true,
		start: startOursSocketIO,
	},
	{
		name:  oursRedis,
		about: "the same, published to with the Redis protocol, each message when it is due",
		only:  []string{"rooms"},
		rooms: true,
		start: startOursRedis(1),
	},
	{
		name:  oursPipeline10,
		about: "the same, with pipelines of 10 messages",
		only:  []string{"rooms"},
		rooms: true,
		start: startOursRedis(10),
	},
	{
		name:  oursPipeline100,
		about: "the same, with pipelines of 100 messages",
		only:  []string{"rooms"},
		rooms: true,
		start: startOursRedis(100),
	},
	{
		name:  oursH2,
		about: "the same, 20 WebSockets in each of 50 HTTP/2 connections",
		tls:   true, only: []string{"tls"},
		start: startTunnels(2),
	},
	{
		name:  oursH3,
		about: "the same, in HTTP/3",
		tls:   true, only: []string{"tls"},
		start: startTunnels(3),
	},
	{
		name:  oursH1,
		about: "the same, with `protocols h1`",
		only:  []string{"paced", "idle"},
		start: startListener("protocols h1"),
	},
	{
		name:  oursProxied,
		about: "the same, with the listener wrapper `proxy_protocol`",
		tls:   true, only: []string{"paced", "idle", "tls", "idle-tls"},
		start: startListener("listener_wrappers {\nproxy_protocol {\nallow 127.0.0.0/8 ::1/128\n}\ntls\n}"),
	},
	{
		name:  "floor",
		about: "ready-made bytes, written with write(2) to each socket in a bare loop: what the kernel asks",
		start: startGo("floor"),
	},
	{
		// It is the fair comparison: each message is a frame, as for all others. The example as it stands merges messages, so
		// it is a peer of its own.
		name:  "gorilla hub",
		about: "the hub of gorilla/websocket's chat example, a goroutine and a channel a client; a message is a frame",
		rooms: true, sockets: true, tls: true,
		start: startGorilla,
	},
	{
		name:  "gorilla chat",
		about: "the same as it stands in the example: messages that wait become one frame, of lines",
		rooms: true, sockets: true,
		start: startGo("gorilla", "join"),
	},
	{
		name:  "nchan",
		about: "nginx with nchan, a worker a core, buffering nothing",
		rooms: true, sockets: true, tls: true,
		lacks: missing("nginx (apt-get install nginx libnginx-mod-nchan)", "/usr/sbin/nginx", nchanModule),
		start: startNchan,
	},
	{
		name:  "uWebSockets",
		about: "in Bun, whose server it is, with its topics; one thread",
		rooms: true, sockets: true, tls: true,
		lacks: missingBun,
		start: startBun,
	},
	{
		name:  "ws",
		about: "Node's ws: for (c of clients) c.send(m)",
		rooms: true, sockets: true,
		lacks: missingNode,
		start: startNode("ws.js"),
	},
	{
		name:  "Socket.IO",
		about: "io.emit() on WebSockets, or to clients that poll",
		rooms: true, sockets: true, polling: true,
		lacks: missingNode,
		start: startNodeSocketIO,
	},
	{
		name:  "Flask-SocketIO",
		about: "emit(broadcast=True), gevent",
		rooms: true, sockets: true, polling: true,
		lacks: missingFlask,
		start: startFlask,
	},
}

// startListener starts our server with options of its listeners.
func startListener(options string) func(string, int) (*server, error) {
	return func(dir string, port int) (*server, error) {
		return startCaddy(dir, port, "servers {\n"+options+"\n}")
	}
}

// startTunnels starts our server for WebSockets over a version of HTTP.
func startTunnels(version int) func(string, int) (*server, error) {
	return func(dir string, port int) (*server, error) {
		os.Setenv("GODEBUG", "http2xconnect=1") // for the server, which inherits it: Go has no other way to set it yet (golang/go#71128, golang/go#53208)
		s, err := startOurs(dir, port)
		if err == nil {
			s.tunnel = version
		}
		return s, err
	}
}

// run starts a command and waits until its port accepts connections. A connection is a better sign than output, which each
// peer words differently. 20 s are for Caddy on a machine that is busy.
func run(s *server, dir string, name string, args ...string) (*server, error) {
	s.cmd = exec.Command(name, args...)
	s.cmd.Dir = dir
	// A group of its own, so that stop ends its children too, such as nginx's workers. It also ends when the bench
	// does.
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	s.out = new(bytes.Buffer)
	s.cmd.Stdout, s.cmd.Stderr = s.out, s.out
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		c, err := net.Dial("tcp", s.addr)
		if err == nil {
			c.Close()
			return s, nil
		}
		if time.Now().After(deadline) {
			s.stop()
			return nil, fmt.Errorf("it does not answer: %.500s", s.out)
		}
	}
}

// again starts the process again that was stopped, as it was started. What the one before has used is not counted any more.
func (s *server) again() error {
	_, err := run(s, s.cmd.Dir, s.cmd.Path, s.cmd.Args[1:]...)
	return err
}

// stop kills the process and its group, and waits for the first.
func (s *server) stop() {
	s.kill()
	s.cmd.Wait()
}

// kill does not wait. A clean exit would close thousands of connections, and take part of the next measurement's time.
func (s *server) kill() { syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL) }

func address(port int) string { return "127.0.0.1:" + strconv.Itoa(port) }

// build compiles a Go program of this module, once. A binary and not "go run", whose process would be the parent of the
// server's and hold memory of its own.
func build(dir, pkg string) (string, error) {
	bin := filepath.Join(dir, strings.ReplaceAll(pkg, "/", "_"))
	if _, err := os.Stat(bin); err == nil {
		return bin, nil
	}
	out, err := exec.Command("go", "build", "-o", bin, "github.com/caddy-broadcast/caddy-broadcast/"+pkg).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("building %s: %w\n%s", pkg, err, out)
	}
	return bin, nil
}

// startOurs starts this module as most people would run it, without global options.
func startOurs(dir string, port int) (*server, error) { return startCaddy(dir, port, "") }

// startOursRedis starts this module with a listener for the Redis protocol.
func startOursRedis(atOnce int) func(string, int) (*server, error) {
	return func(dir string, port int) (*server, error) {
		listen := address(port + 3)
		s, err := startCaddy(dir, port, fmt.Sprintf("broadcast {\n redis listen %s {\n publish *\n }\n }", listen))
		if err == nil {
			s.redis, s.atOnce = listen, atOnce
		}
		return s, err
	}
}

// startCaddy starts this module, with global options of its own. It is a whole Caddy and not a bare server, so the figures
// contain Caddy's routing. The log is at level ERROR, so that nothing is written during a measurement. One site has both
// addresses, so the scenarios with TLS use the same route and hub.
func startCaddy(dir string, port int, options string) (*server, error) {
	bin, err := build(dir, "cmd/caddy")
	if err != nil {
		return nil, err
	}
	// Each server gets ten ports of its own (see bench), because those of the one before may not be free again at once.
	admin, secure := address(port+1), port+2
	config := fmt.Sprintf(`{
	admin %s
	persist_config off
	skip_install_trust
	auto_https disable_redirects
	log {
		level ERROR
	}
	%s
}
http://%s, https://localhost:%d {
	broadcast /ws/* {path.1} {
		join *
	}
	broadcast /socket.io/* {query.room} {
		socketio
		ping_interval 5m
	}
	respond ok
}`, admin, options, address(port), secure)
	// Each has a file of its own, so that one of several can be started again.
	file := filepath.Join(dir, fmt.Sprint("Caddyfile", port))
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, err
	}
	room := func(i int) string { return "/ws/" + strconv.Itoa(i) }
	s := &server{target: target{addr: address(port), path: room}, publish: room, wrap: plain, admin: admin, tlsAddr: "localhost:" + strconv.Itoa(secure)}
	s.settle = func() { // Caddy's admin API serves Go's profiles, and this one runs a garbage collection first
		// Three times, because memory that one collection frees by finalizers goes with the next one. Then the scavenger
		// of the runtime needs a moment to return it.
		for range 3 {
			exec.Command("curl", "-s", "-o", "/dev/null", "http://"+admin+"/debug/pprof/heap?gc=1").Run()
			time.Sleep(500 * time.Millisecond)
		}
		time.Sleep(3 * time.Second)
	}
	// Caddy keeps a CA and its storage there. Nothing of the user's is touched, and each run begins with the same.
	os.Setenv("XDG_DATA_HOME", dir)
	os.Setenv("XDG_CONFIG_HOME", dir)
	return run(s, dir, bin, "run", "--adapter", "caddyfile", "--config", file)
}

// startGo starts one of the Go programs in bench/peers. They are compiled from this module, so they use the same Go and the
// same gorilla/websocket as we do.
func startGo(name string, args ...string) func(string, int) (*server, error) {
	return func(dir string, port int) (*server, error) {
		bin, err := build(dir, "bench/peers/"+name)
		if err != nil {
			return nil, err
		}
		room := func(i int) string { return "/" + strconv.Itoa(i) }
		s := &server{target: target{addr: address(port), path: room}, publish: room, wrap: plain}
		return run(s, dir, bin, append([]string{address(port)}, args...)...)
	}
}

// missing returns a function for peer.lacks that looks for files. what is how to install them.
func missing(what string, files ...string) func() string {
	return func() string {
		for _, f := range files {
			if _, err := os.Stat(f); err != nil {
				return what
			}
		}
		return ""
	}
}

// nodeDir is where npm puts the packages of the Node peers.
func nodeDir() string {
	out, err := exec.Command("go", "list", "-f", "{{.Dir}}", "github.com/caddy-broadcast/caddy-broadcast/bench").Output()
	if err != nil {
		return ""
	}
	return filepath.Join(strings.TrimSpace(string(out)), "peers", "node")
}

// missingNode installs the packages if there is a Node, in the versions that the lock file pins.
func missingNode() string {
	if _, err := exec.LookPath("node"); err != nil {
		return "node"
	}
	if _, err := os.Stat(filepath.Join(nodeDir(), "node_modules", "ws")); err == nil {
		return ""
	}
	return installPackages(nodeDir())
}

// installPackages installs what a folder's lock file pins. It returns why that did not work, or "".
func installPackages(dir string) string {
	cmd := exec.Command("npm", "install", "--no-audit", "--no-fund")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Sprintf("its npm packages: %v %.200s", err, out)
	}
	return ""
}

// startNode starts a script of bench/peers/node.
func startNode(script string) func(string, int) (*server, error) {
	return func(dir string, port int) (*server, error) {
		s := &server{
			target:  target{addr: address(port), path: func(i int) string { return "/?room=" + strconv.Itoa(i) }},
			publish: func(i int) string { return "/publish?room=" + strconv.Itoa(i) },
			wrap:    plain,
		}
		return run(s, nodeDir(), "node", script, strconv.Itoa(port))
	}
}

// debianPython is the interpreter that Debian's packages are installed for.
const debianPython = "/usr/bin/python3"

// missingFlask asks Python itself, because the packages may come from elsewhere than Debian.
func missingFlask() string {
	if exec.Command(debianPython, "-c", "import flask_socketio, gevent, geventwebsocket").Run() != nil {
		return "apt-get install python3-flask-socketio python3-gevent python3-gevent-websocket"
	}
	return ""
}

// startFlask starts the peer with gevent, which Flask-SocketIO's documentation names for production. It is one process, as it
// has to be without a message queue.
func startFlask(dir string, port int) (*server, error) {
	s := &server{
		target:  target{addr: address(port)},
		publish: func(i int) string { return "/publish?room=" + strconv.Itoa(i) },
	}
	socketIO(s)
	return run(s, filepath.Join(nodeDir(), "..", "flask"), debianPython, "app.py", strconv.Itoa(port))
}

// usage is what a server and its child processes have used. Both are read from /proc when asked, so a process that has ended
// in between is missing in it. No peer has such.
type usage struct {
	cpu time.Duration
	rss int64 // bytes
}

// The resident pages contain those that are shared with other processes, such as libraries. In memory per connection that
// cancels out, because it is a difference.
func (s *server) usage() (u usage) {
	// The processes below it count too: nginx works in its children.
	for _, pid := range family(s.cmd.Process.Pid) {
		u.cpu += cpu(pid)
		statm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
		if f := strings.Fields(string(statm)); len(f) > 1 {
			pages, _ := strconv.ParseInt(f[1], 10, 64)
			u.rss += pages * int64(os.Getpagesize())
		}
	}
	for _, other := range s.others {
		more := other.usage()
		u.cpu += more.cpu
		u.rss += more.rss
	}
	return u
}

// cpu adds up the nanoseconds of a process's threads. /proc/PID/stat would be simpler, but counts in hundredths of a second.
// The first field is the time on a core (kernel: Documentation/scheduler/sched-stats.rst). A thread that has ended is not in
// it any more, but neither Go nor nginx ends threads under a steady load.
func cpu(pid int) (sum time.Duration) {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	for _, t := range tasks {
		p, _ := os.ReadFile(t)
		if f := strings.Fields(string(p)); len(f) > 0 {
			ns, _ := strconv.ParseInt(f[0], 10, 64)
			sum += time.Duration(ns)
		}
	}
	return sum
}

// family returns the IDs of a process and its children. It asks each thread, because children belong to the thread that
// started them. The file needs a kernel with CONFIG_PROC_CHILDREN, which is usual.
func family(pid int) []int {
	pids := []int{pid}
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, t := range tasks {
		p, _ := os.ReadFile(t)
		for f := range strings.FieldsSeq(string(p)) {
			if child, err := strconv.Atoi(f); err == nil {
				pids = append(pids, family(child)...)
			}
		}
	}
	return pids
}
