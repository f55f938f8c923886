package integration

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/redistest"
)

// closed reports whether the server has closed the connection.
func (c *redisClient) closed() bool {
	_, err := c.in.ReadByte()
	return err != nil
}

// redisListen returns a configuration with redis listen at an address, and these options of it.
func redisListen(address, options string) string {
	return "broadcast {\nredis listen " + address + " {\n" + options + "\n}\n}\n---\n" + redisSite
}

func reload(s *caddytest.Server, config string) {
	s.T.Helper()
	if err := s.Load(config); err != nil {
		s.T.Fatal(err)
	}
}

// TestRedisReload: a listener that stays is not closed by a reload, and new options apply to its connections. A configuration that
// is rejected changes nothing.
func TestRedisReload(t *testing.T) {
	address := caddytest.FreeAddr(t)
	s := caddytest.Start(t, redisListen(address, "publish news"))
	page, _ := dialNamespace(s, "/")
	b := dialRedis(t, address)
	b.emit(":1", "x", "1", "")
	reload(s, redisListen(address, "password secret\npublish default"))
	b.expect(":1", "PUBLISH", "default", "y") // with the new option, and still logged in
	s.Expect(page, `42["x",1]`, `42["message","y"]`)
	stranger := dialRedis(t, address)
	stranger.expect("-NOAUTH Authentication required.", "PUBLISH", "default", "x")
	stranger.expect("+OK", "AUTH", "secret")
	stranger.expect(":1", "PUBLISH", "default", "z")
	s.Expect(page, `42["message","z"]`)
	b.expect(":0", "PUBLISH", "news", "x")

	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	if err := s.Load(redisListen(address, "publish news") + "\nbroadcast /b {\nmax_message 1GiB\n}"); err == nil {
		t.Error("it is accepted")
	}
	if err := s.Load(redisListen(busy.Addr().String(), "")); err == nil || !strings.Contains(err.Error(), "redis listen: listen tcp "+busy.Addr().String()) {
		t.Error(err)
	}
	b.expect(":1", "PUBLISH", "default", "1")
	s.Expect(page, `42["message","1"]`)
	if err := s.Load(strings.Replace(redisListen(address, ""), "---", "}\n---", 1)); err == nil {
		t.Error("it is accepted")
	}
}

// TestRedisMove: a listener that goes is closed with its connections.
func TestRedisMove(t *testing.T) {
	address, next := caddytest.FreeAddr(t), caddytest.FreeAddr(t)
	socket := filepath.Join(t.TempDir(), "s")
	s := caddytest.Start(t, redisListen(address, ""))
	page, _ := dialNamespace(s, "/")
	b := dialRedis(t, address)
	b.emit(":1", "x", "1", "")
	s.Expect(page, `42["x",1]`)
	reload(s, redisListen(next, ""))
	if !b.closed() {
		t.Error("a connection of the old address goes on")
	}
	b = dialRedis(t, next)
	b.emit(":1", "x", "2", "")
	s.Expect(page, `42["x",2]`)
	reload(s, redisListen("unix/"+socket+"|0600", ""))
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o600 {
		t.Error(info, err)
	}
	b = dialRedis(t, socket)
	reload(s, redisListen("unix/"+socket+"|0600", "main news"))
	b.emit(":0", "x", "3", "")
	reload(s, redisSite)
	if !b.closed() {
		t.Error("it goes on without the option")
	}
	if _, err := net.Dial("unix", socket); err == nil {
		t.Error("it still listens")
	}
	s.Publish("", "end")
	s.Expect(page, `42["message","end"]`)
}

// TestRedisAddressInUse: an address on which another program listens is refused, also if that is a Caddy, whose listeners set
// SO_REUSEPORT, and the other program goes on. A reload may name the own address in another way.
func TestRedisAddressInUse(t *testing.T) {
	listen := func(address string) string {
		return "broadcast {\nredis listen " + address + " {\npassword secret\n}\n}\n---\n" + redisSite
	}
	own := caddytest.FreeAddr(t)
	s := caddytest.Start(t, listen(own))
	for _, address := range []string{caddytest.FreeAddr(t), "unix/" + filepath.Join(t.TempDir(), "s")} {
		a, err := caddy.ParseNetworkAddress(address)
		if err != nil {
			t.Fatal(err)
		}
		other, err := a.Listen(t.Context(), 0, net.ListenConfig{})
		if err != nil {
			t.Fatal(err)
		}
		l := other.(net.Listener)
		if err := s.Load(listen(address)); err == nil || !strings.Contains(err.Error(), "redis listen: listen ") ||
			!strings.Contains(err.Error(), "address already in use") {
			t.Errorf("%s: %v", address, err)
		}
		if nc, err := net.Dial(l.Addr().Network(), l.Addr().String()); err != nil {
			t.Errorf("%s: the other program is not reached any more: %v", address, err)
		} else {
			nc.Close()
		}
		l.Close()
		if err := s.Load(listen(address)); err != nil {
			t.Errorf("%s, which is free: %v", address, err)
		}
		if err := s.Load(listen(own)); err != nil {
			t.Error(err)
		}
	}
	_, port, _ := net.SplitHostPort(own)
	if err := s.Load(listen("0.0.0.0:" + port)); err != nil {
		t.Errorf("from one address to another one with its port: %v", err)
	}
	dialRedis(t, own).expect("+OK", "AUTH", "secret")
}

// TestRedisErrors: what is wrong in a configuration is refused, with the place and what to do.
func TestRedisErrors(t *testing.T) {
	t.Setenv("EMPTY", "")
	for config, want := range map[string]string{
		"redis":                                         "unrecognized option redis, at Caddyfile:3",
		"redis serve":                                   "unrecognized option redis",
		"redis listen :6379":                            "redis listen: :6379 can be reached from other machines, where whoever connects may publish anything: set a password",
		"redis listen 0.0.0.0":                          "set a password, or listen on 127.0.0.1 or a unix socket, at Caddyfile:3",
		"redis listen 127.0.0.1:1-2":                    "127.0.0.1:1-2 has more than one port",
		"redis listen udp/127.0.0.1:1":                  "the network is udp, must be tcp or unix",
		"redis listen a b":                              "wrong argument count",
		"redis listen\nredis listen":                    "the option redis listen is given twice, first on line 3, at Caddyfile:4",
		"redis listen {\nuser ann\n}":                   "user takes <name> <password>, at Caddyfile:4",
		"redis listen {\nspeed 1\n}":                    "unrecognized option speed, at Caddyfile:4",
		"redis listen {\nmain /x\n}":                    `main is "/x": the channel of the namespace / cannot begin with a slash`,
		"redis listen {\nmain \"a\nb\"\n}":              "main has a control character",
		"redis listen {\nchannels a a\n}":               `channel "a" is named twice`,
		"redis listen {\nchannels \"\"\n}":              `channel "" is empty`,
		"redis listen {\npublish \"\"\n}":               `publish "" is empty`,
		"redis listen {\npickle yes\n}":                 `pickle is "yes", must be on or off, at Caddyfile:4`,
		"redis listen {\npassword {env.X}\nmain /x\n}":  "with a slash, as other namespaces do, at Caddyfile:3",
		"redis connect":                                 "redis connect takes the URL of a server, such as redis://127.0.0.1:6379, at Caddyfile:3",
		"redis connect localhost:6379":                  "the url must be like redis://user:password@host:6379",
		"redis connect http://secret@host":              "the url must be like redis://user:password@host:6379",
		"redis connect redis://:a@b {\npassword x\n}":   "the url has a login, and so have the options user and password",
		"redis listen\nredis connect redis://localhost": "localhost:6379 is where redis listen listens: only one of the two is needed",
		"redis listen :7000 {\npassword x\n}\nredis connect redis://127.0.0.1:7000": "127.0.0.1:7000 is where redis listen listens",
		"redis listen unix//run/x|0600\nredis connect unix:///run/x":                "/run/x is where redis listen listens",
		"redis connect redis://h\nbroker nats nats://h":                             "redis connect cannot be used with a broker: each node would publish each message again; use redis listen",
		"redis listen {\npassword {env.EMPTY}\n}":                                   "redis listen: password: ",
		"redis connect redis://h {\npassword {env.EMPTY}\n}":                        "redis connect: password: ",
	} {
		t.Run(config, func(t *testing.T) {
			err := caddytest.Load("{\nbroadcast {\n" + config + "\n}\nadmin off\n}\nhttp://127.0.0.1:1 {\nbroadcast /ws\n}")
			if err == nil {
				t.Fatal("it is accepted")
			}
			if !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
				t.Errorf("got %v, want %s", err, want)
			}
		})
	}
}

// TestRedisConnect: what backends publish to a real Redis comes, also after it was restarted, and after reloads.
func TestRedisConnect(t *testing.T) {
	const secret = "a/secret:with@letters"
	t.Setenv("QUEUE_SECRET", secret)
	server := redistest.Start(t, "requirepass "+secret)
	server.Password = secret
	config := "broadcast {\nredis connect redis://:{env.QUEUE_SECRET}@" + server.Addr() + "/0 {\nOPTIONS\n}\n}\n---\n" + redisSite
	s := caddytest.Start(t, strings.Replace(config, "OPTIONS", "publish news:*", 1))
	page, _ := dialNamespace(s, "/")
	joinRoom(s, page, "news:1")
	s.ExpectMetrics("redis_up 1")
	emit := func(event string) {
		t.Helper()
		if n := server.Do("PUBLISH", "flask-socketio", `{"method": "emit", "event": "`+event+`", "data": [1], "binary": false}`); n != "1" {
			t.Fatal(n)
		}
		s.Expect(page, `42["`+event+`",1]`)
	}
	emit("a")
	server.Do("PUBLISH", "news:1", "text")
	s.Expect(page, `42["message","text"]`)
	server.Kill()
	s.ExpectMetrics("redis_up 0")
	server.Run()
	s.ExpectMetrics("redis_up 1")
	emit("b")
	if err := s.Load(strings.Replace(config, "OPTIONS", "main news:1\npublish news:*", 1)); err != nil {
		t.Fatal(err)
	}
	emit("c") // by the same connection
	if err := s.Load(redisSite); err != nil {
		t.Fatal(err)
	}
	if n := server.Do("PUBLISH", "flask-socketio", "{}"); n != "0" {
		t.Errorf("%s are still subscribed", n)
	}
}

// TestRedisWithBroker: with a broker, what a backend publishes goes through the log once, and the answers come when it has it.
func TestRedisWithBroker(t *testing.T) {
	server, address := redistest.Start(t), caddytest.FreeAddr(t)
	s := caddytest.Start(t, `
		broadcast {
			broker redis `+server.URL()+`
			redis listen `+address+` {
				publish news
			}
		}
		---
		`+redisSite)
	awaitHealth(s, http.StatusNoContent)
	c, sid := dialNamespace(s, "/")
	joinRoom(s, c, "news")
	b := dialRedis(t, address)
	const n = 500
	var send strings.Builder
	for i := range n {
		send.WriteString(array("PUBLISH", "news", fmt.Sprint(i)))
	}
	go io.WriteString(b.nc, send.String())
	for i := range n {
		if got := b.line(); got != ":1" {
			t.Fatal(got)
		}
		s.Expect(c, fmt.Sprintf(`42["message","%d"]`, i))
	}
	b.emit(":1", "alone", "1", `, "room": "`+sid+`"`)
	b.emit(":2", "rooms", "1", `, "room": ["news", "default"]`)
	const elsewhere = "AAAAAAAAAAAAAAAAAAAA" // it may be a client of another node, or a room
	b.expect(":0", "PUBLISH", "socketio", `{"method": "enter_room", "sid": "`+sid+`", "room": "`+elsewhere+`"}`)
	awaitRoom(s, elsewhere)
	b.emit(":1", "room", "1", `, "room": "`+elsewhere+`"`)
	s.Expect(c, `42["alone",1]`, `42["rooms",1]`, `42["room",1]`)
	s.ExpectMetrics(fmt.Sprintf(`redis_messages_total{result="ok"} %d`, n+4))
}

// awaitRoom waits until a channel has a subscriber: with a broker, commands are carried out when they come from the log.
func awaitRoom(s *caddytest.Server, channel string) {
	s.T.Helper()
	for {
		if _, body := s.Do("GET", s.Admin+"/broadcast/channels", ""); strings.Contains(body, channel) {
			return
		}
	}
}
