package resp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// What is published comes in order, whole, with the answers that the Publisher gives.
func TestPublish(t *testing.T) {
	r := newRecorder()
	r.n = 3
	_, addr := serve(t, Config{Publisher: r})
	p := dial(t, addr)
	long := strings.Repeat("x", maxBulk)
	var send, want strings.Builder
	var published []publication
	for i := range 500 {
		payload := fmt.Sprintf("%d\r\n\x00\xff", i)
		if i == 250 {
			payload = long
		}
		send.WriteString(array("PUBLISH", "room", payload))
		want.WriteString(":3\r\n")
		published = append(published, publication{"room", payload})
	}
	p.send(send.String())
	p.expect(want.String())
	got := r.wait(t, 500)
	for i := range published {
		if got[i] != published[i] {
			t.Fatalf("publication %d is %.50q, want %.50q", i, got[i], published[i])
		}
	}
}

// countedConn counts what is written at once.
type countedListener struct {
	net.Listener
	writes chan int
}

func (l countedListener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	return countedConn{nc, l.writes}, err
}

type countedConn struct {
	net.Conn
	writes chan int
}

func (c countedConn) Write(b []byte) (int, error) {
	c.writes <- len(b)
	return c.Conn.Write(b)
}

// The answers to what one read brings are written at once.
func TestOneWrite(t *testing.T) {
	s, _ := serve(t, Config{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	writes := make(chan int, 1000)
	go s.Serve(countedListener{l, writes})
	p := dial(t, l.Addr().String())
	p.send(strings.Repeat(array("PUBLISH", "a", "b"), 100)) // 2,700 bytes, one segment of loopback
	p.expect(strings.Repeat(":0\r\n", 100))
	if n := <-writes; n != 400 || len(writes) > 0 {
		t.Errorf("the first write had %d of 400 bytes, and %d followed", n, len(writes))
	}
}

// Subscribers get what is published, in the form of their version of the protocol, and are counted.
func TestSubscribe(t *testing.T) {
	r := newRecorder()
	r.n = 10
	s, addr := serve(t, Config{Publisher: r})
	two, three := dial(t, addr), dial(t, addr)
	two.send("SUBSCRIBE socketio\r\n")
	two.expect("*3\r\n$9\r\nsubscribe\r\n$8\r\nsocketio\r\n:1\r\n")
	three.send("HELLO 3\r\nSUBSCRIBE socketio\r\nPSUBSCRIBE socket*\r\nPING\r\n")
	three.expect("%7\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$5\r\n7.0.0\r\n$5\r\nproto\r\n:3\r\n$2\r\nid\r\n:2\r\n" +
		"$4\r\nmode\r\n$10\r\nstandalone\r\n$4\r\nrole\r\n$6\r\nmaster\r\n$7\r\nmodules\r\n*0\r\n" +
		">3\r\n$9\r\nsubscribe\r\n$8\r\nsocketio\r\n:1\r\n>3\r\n$10\r\npsubscribe\r\n$7\r\nsocket*\r\n:2\r\n+PONG\r\n")
	if got := s.Stats(); got.Connections != 2 || got.Subscriptions != 3 {
		t.Errorf("Stats are %+v", got)
	}
	p := dial(t, addr)
	p.send("PUBLISH socketio x\r\nPUBLISH socket y\r\nSPUBLISH socketio z\r\nPUBLISH other z\r\n")
	p.expect(":13\r\n:11\r\n:10\r\n:10\r\n")
	two.expect("*3\r\n$7\r\nmessage\r\n$8\r\nsocketio\r\n$1\r\nx\r\n")
	three.expect(">3\r\n$7\r\nmessage\r\n$8\r\nsocketio\r\n$1\r\nx\r\n>4\r\n$8\r\npmessage\r\n$7\r\nsocket*\r\n$8\r\nsocketio\r\n$1\r\nx\r\n" +
		">4\r\n$8\r\npmessage\r\n$7\r\nsocket*\r\n$6\r\nsocket\r\n$1\r\ny\r\n")
	// With RESP3 a subscriber can publish, also to itself.
	three.send("PUBLISH socketio w\r\n")
	three.expect(">3\r\n$7\r\nmessage\r\n$8\r\nsocketio\r\n$1\r\nw\r\n>4\r\n$8\r\npmessage\r\n$7\r\nsocket*\r\n$8\r\nsocketio\r\n$1\r\nw\r\n:13\r\n")
	two.Close()
	three.Close()
}

// A subscriber that does not read is cut off, and delays nobody.
func TestSlowSubscriber(t *testing.T) {
	s, addr := serve(t, Config{})
	slow, p := dial(t, addr), dial(t, addr)
	slow.send("SUBSCRIBE a\r\n")
	slow.expect("*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n")
	command := array("PUBLISH", "a", strings.Repeat("x", 500_000))
	for sent := 0; s.Stats().Subscriptions > 0; sent++ {
		p.send(command)
		if got := make([]byte, 4); sent == 100 {
			t.Fatal("50 MB wait for a subscriber")
		} else if _, err := io.ReadFull(p, got); err != nil {
			t.Fatal(err)
		}
	}
}

// A message that is longer than what may wait is for subscribers too.
func TestLongMessage(t *testing.T) {
	_, addr := serve(t, Config{})
	subscriber, p := dial(t, addr), dial(t, addr)
	subscriber.send("SUBSCRIBE a\r\n")
	subscriber.expect("*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n")
	long := strings.Repeat("x", maxBulk)
	p.send(array("PUBLISH", "a", long))
	p.expect(":1\r\n")
	subscriber.expect(fmt.Sprintf("*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$%d\r\n%s\r\n", maxBulk, long))
}

// Who guesses passwords is disconnected.
func TestWrongLogins(t *testing.T) {
	core, logs := observer.New(zap.WarnLevel)
	_, addr := serve(t, Config{Password: "secret", Log: zap.New(core)})
	p := dial(t, addr)
	p.send(strings.Repeat("AUTH x\r\n", maxWrongLogins), "AUTH secret\r\nPING\r\n")
	if got := p.rest(); got != strings.Repeat("-"+wrongPass+"\r\n", maxWrongLogins) {
		t.Errorf("got %q", got)
	}
	if logs.Len() != 1 {
		t.Errorf("%v is logged", logs.All())
	}
}

// Subscriptions are bounded.
func TestManySubscriptions(t *testing.T) {
	s, addr := serve(t, Config{})
	p := dial(t, addr)
	names := []string{"SUBSCRIBE"}
	for i := range maxChannels - 1 {
		names = append(names, fmt.Sprint(i))
	}
	const tooMany = "-ERR too many subscriptions, or a name that is too long\r\n"
	p.send(array(names...), "SUBSCRIBE a b\r\n", array("SUBSCRIBE", strings.Repeat("x", maxName+1)), "QUIT\r\n")
	got := p.rest()
	if strings.Count(got, "subscribe\r\n") != maxChannels || !strings.HasSuffix(got, ":1024\r\n"+tooMany+tooMany+"+OK\r\n") {
		t.Errorf("got %d confirmations and …%q", strings.Count(got, "subscribe\r\n"), got[max(len(got)-200, 0):])
	}
	q, other := dial(t, addr), dial(t, addr)
	names = []string{"PSUBSCRIBE"}
	for i := range maxPatterns {
		names = append(names, fmt.Sprint(i, "*"))
	}
	q.send(array(names...), "PING\r\n")
	for i, name := range names[1:] {
		q.expect(fmt.Sprintf("*3\r\n$10\r\npsubscribe\r\n$%d\r\n%s\r\n:%d\r\n", len(name), name, i+1))
	}
	other.send("PSUBSCRIBE 1* x*\r\n") // one that is there already costs nothing more
	other.expect("*3\r\n$10\r\npsubscribe\r\n$2\r\n1*\r\n:1\r\n" + tooMany)
	if n := s.Stats().Subscriptions; n != maxPatterns+1 {
		t.Errorf("%d subscriptions", n)
	}
}

// A browser that is made to send HTTP to the port is disconnected before the commands in its body are run, and that is logged.
func TestHTTP(t *testing.T) {
	for _, request := range []string{
		"POST / HTTP/1.1\r\nHost: x\r\n\r\nPUBLISH a b\r\n",
		"GET /?x HTTP/1.1\r\nHost: x\r\n\r\n",
		"OPTIONS / HTTP/1.1\r\n\r\nPUBLISH a b\r\n",
		"PUBLISH a HTTP/1.1\r\n",
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"post x\r\nPUBLISH a b\r\n",
		"x\r\nHost: localhost\r\nPUBLISH a b\r\n",
		array("POST", "x") + "PUBLISH a b\r\n",
	} {
		t.Run(request, func(t *testing.T) {
			core, logs := observer.New(zap.WarnLevel)
			r := newRecorder()
			_, addr := serve(t, Config{Publisher: r, Log: zap.New(core)})
			p := dial(t, addr)
			p.send(request)
			if got := p.rest(); got != "" {
				t.Errorf("it got %q", got)
			}
			if n := logs.FilterMessageSnippet("HTTP").Len(); n != 1 {
				t.Errorf("%d lines are logged", n)
			}
			if len(r.got) > 0 {
				t.Errorf("%q was published", r.got)
			}
		})
	}
}

// After an error in the protocol, the client gets the answers so far and the error, also if it goes on sending.
func TestProtocolError(t *testing.T) {
	_, addr := serve(t, Config{})
	p := dial(t, addr)
	p.send("PING\r\n*1\r\n$99999999\r\n", strings.Repeat("x", 1<<20))
	if got := p.rest(); got != "+PONG\r\n-ERR Protocol error: invalid bulk length\r\n" {
		t.Errorf("got %q", got)
	}
}

// There are no more connections than may be.
func TestMaxConns(t *testing.T) {
	s, addr := serve(t, Config{})
	conns := make([]*peer, maxConns)
	for i := range conns {
		conns[i] = dial(t, addr)
	}
	p := dial(t, addr)
	if got := p.rest(); got != "-ERR max number of clients reached\r\n" {
		t.Errorf("got %q", got)
	}
	if got := s.Stats(); got.Connections != maxConns || got.Rejected != 1 {
		t.Errorf("Stats are %+v", got)
	}
	for _, c := range conns {
		c.Close()
	}
}

// A stranger cannot stay: its reads have a deadline, which logging in ends.
func TestLoginDeadline(t *testing.T) {
	client, server := net.Pipe()
	d := &deadlines{Conn: server}
	s := New(Config{Publisher: newRecorder(), Password: "secret", Log: zap.NewNop()})
	s.add(d)
	begun := d.get()
	if left := time.Until(begun); left <= 0 || left > loginTimeout {
		t.Errorf("a stranger has %v", left)
	}
	p := &peer{client, t}
	p.send("RESET\r\n")
	p.expect("+RESET\r\n")
	if !d.get().Equal(begun) {
		t.Error("RESET gives a stranger more time")
	}
	p.send("AUTH wrong\r\n")
	p.expect("-" + wrongPass + "\r\n")
	if d.get().IsZero() {
		t.Error("a wrong password ends the deadline")
	}
	p.send("AUTH secret\r\n")
	p.expect(replyOK)
	if !d.get().IsZero() {
		t.Error("who has logged in still has a deadline")
	}
	client.Close()
	if err := s.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

// A stranger cannot stay by not reading its answers, and who had to log in when it came need not when the password is gone.
func TestStrangers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{Publisher: newRecorder(), Password: "secret", Log: zap.NewNop()})
		mute, server := net.Pipe()
		s.add(server)
		waits, server := net.Pipe()
		s.add(server)
		io.WriteString(mute, "PING\r\n")
		synctest.Wait()
		s.Configure(Config{Publisher: newRecorder(), Log: zap.NewNop()})
		go io.WriteString(waits, "PING\r\n")
		answer := make([]byte, len(replyPong))
		if _, err := io.ReadFull(waits, answer); err != nil || string(answer) != replyPong {
			t.Errorf("got %q, %v", answer, err)
		}
		time.Sleep(2 * loginTimeout)
		if n := s.Stats().Connections; n != 1 {
			t.Errorf("%d connections are left, want the one that is logged in", n)
		}
		waits.Close()
		mute.Close()
		if err := s.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

type deadlines struct {
	net.Conn
	mu   sync.Mutex
	last time.Time
}

func (d *deadlines) SetReadDeadline(t time.Time) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.last = t
	return d.Conn.SetReadDeadline(t)
}

func (d *deadlines) get() time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.last
}

// A unix socket is served as well, and a user of another name may log in.
func TestUnix(t *testing.T) {
	s, _ := serve(t, Config{User: "app", Password: "secret"})
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	go s.Serve(l)
	nc, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	p := &peer{nc, t}
	p.send("AUTH app wrong\r\nAUTH app secret\r\nPING\r\nQUIT\r\n")
	if got := p.rest(); got != "-"+wrongPass+"\r\n+OK\r\n+PONG\r\n+OK\r\n" {
		t.Errorf("got %q", got)
	}
}

// Shutdown answers what has been read, also what is held back, and then closes.
func TestShutdown(t *testing.T) {
	held := make(chan Held, 1)
	s, addr := serve(t, Config{Publisher: holding(held)})
	idle, p := dial(t, addr), dial(t, addr)
	idle.send("SUBSCRIBE a\r\n")
	idle.expect("*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n")
	p.send("PUBLISH b x\r\nPING\r\n")
	h := <-held
	done := make(chan error, 1)
	go func() { done <- s.Shutdown(context.Background()) }()
	if got := idle.rest(); got != "" {
		t.Errorf("a subscriber got %q", got)
	}
	h.Answer(5)
	if got := p.rest(); got != ":5\r\n+PONG\r\n" {
		t.Errorf("a publisher got %q", got)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if nc, err := net.Dial("tcp", addr); err == nil {
		nc.Close()
		t.Error("it still accepts connections")
	}
}

// Shutdown waits no longer than it may: not for an answer that never comes, nor for a client that does not read.
func TestShutdownLate(t *testing.T) {
	held := make(chan Held, 1)
	s, addr := serve(t, Config{Publisher: holding(held)})
	p := dial(t, addr)
	p.send("PUBLISH b x\r\n")
	h := <-held
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Shutdown: %v", err)
	}
	if got := p.rest(); got != "" {
		t.Errorf("got %q", got)
	}
	h.Answer(1) // nobody is there
}

// brokenListener fails as a process without files does, and then as one that is broken.
type brokenListener struct {
	net.Listener
	errs []error
}

func (l *brokenListener) Accept() (net.Conn, error) {
	err := l.errs[0]
	l.errs = l.errs[1:]
	return nil, err
}

func TestAcceptErrors(t *testing.T) {
	s, _ := serve(t, Config{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	files := &net.OpError{Op: "accept", Err: syscall.EMFILE}
	broken := errors.New("broken")
	if err := s.Serve(&brokenListener{l, []error{files, files, broken}}); err != broken {
		t.Errorf("Serve returns %v", err)
	}
	if err := s.Serve(&brokenListener{l, []error{files, net.ErrClosed}}); err != nil {
		t.Errorf("Serve returns %v for a closed listener", err)
	}
}

// A client that has sent all, and has said so, still gets its answers.
func TestHalfClosed(t *testing.T) {
	held := make(chan Held, 1)
	_, addr := serve(t, Config{Publisher: holding(held)})
	p := dial(t, addr)
	p.send("PUBLISH a b\r\nPING\r\n")
	p.Conn.(*net.TCPConn).CloseWrite()
	(<-held).Answer(1)
	if got := p.rest(); got != ":1\r\n+PONG\r\n" {
		t.Errorf("got %q", got)
	}
}

// A configuration counts for connections that are there already; who is logged in stays so.
func TestConfigure(t *testing.T) {
	first, second := newRecorder(), newRecorder()
	s, addr := serve(t, Config{Publisher: first})
	p := dial(t, addr)
	p.send("PUBLISH a 1\r\n")
	p.expect(":0\r\n")
	s.Configure(Config{Publisher: second, Password: "secret", Log: zap.NewNop()})
	p.send("PUBLISH a 2\r\n")
	p.expect(":0\r\n")
	if got := second.wait(t, 1); len(first.got) != 1 || got[0].payload != "2" {
		t.Errorf("the first got %q, the second %q", first.got, got)
	}
	q := dial(t, addr)
	q.send("PING\r\nQUIT\r\n")
	if got := q.rest(); got != "-NOAUTH Authentication required.\r\n+OK\r\n" {
		t.Errorf("a new client got %q", got)
	}
}

// calls is a Publisher that notes how many publications each call has.
type calls struct{ sizes []int }

func (r *calls) Publish(c *Conn, ps []Publication) {
	r.sizes = append(r.sizes, len(ps))
	for i := range ps {
		c.Answer(i)
	}
}
func (*calls) TooLong(string, int, int) {}

// What one read brings is given to the Publisher at once, up to the next other command, and so is a transaction.
func TestBatches(t *testing.T) {
	for _, row := range []struct {
		send, want string
		sizes      []int
	}{
		{"PUBLISH a 1\r\nSPUBLISH a 2\r\npublish a 3\r\n", ":0\r\n:1\r\n:2\r\n", []int{3}},
		{"PUBLISH a 1\r\nPING\r\nPUBLISH a 2\r\nPUBLISH a\r\n", ":0\r\n+PONG\r\n:0\r\n-ERR wrong number of arguments for 'publish' command\r\n", []int{1, 1}},
		{"MULTI\r\nPUBLISH a 1\r\nPUBLISH a 2\r\nEXEC\r\n", "+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n:0\r\n:1\r\n", []int{2}},
		{"PUBLISH a 1\r\n*x\r\n", ":0\r\n-ERR Protocol error: invalid multibulk length\r\n", []int{1}},
		{strings.Repeat("PUBLISH a 1\r\n", maxBatch+2), "", []int{maxBatch, 2}},
	} {
		r := new(calls)
		c := newConn(New(Config{Publisher: r, Log: zap.NewNop()}), nil, 1, true)
		c.async = true // so that answers are kept
		c.in, c.w = []byte(row.send), len(row.send)
		c.run()
		if got := string(c.ready) + string(c.replies); row.want != "" && got != row.want || !slices.Equal(r.sizes, row.sizes) {
			t.Errorf("%.60q: %v %q", row.send, r.sizes, got)
		}
	}
}
