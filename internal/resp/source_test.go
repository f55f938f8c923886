package resp

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddy-broadcast/caddy-broadcast/internal/redistest"
)

// run starts a Source that ends with the test. Each connection is told to connected, and each message to messages.
func run(t *testing.T, s *Source) (connected chan struct{}, messages chan publication, logs *observer.ObservedLogs) {
	t.Helper()
	connected, messages = make(chan struct{}, 10), make(chan publication, 10)
	core, logs := observer.New(zapcore.InfoLevel)
	s.Log = zap.New(core)
	s.Connected = func(up bool) {
		if up {
			connected <- struct{}{}
		}
	}
	s.Message = func(channel string, payload []byte) { messages <- publication{channel, string(payload)} }
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Run(ctx)
	}()
	t.Cleanup(func() { cancel(); <-done })
	return connected, messages, logs
}

func receive[T any](t *testing.T, c chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		t.Fatal("nothing came")
	}
	return v
}

// What is published on a real Redis comes, also after the server was restarted, and people are told of that once.
func TestSource(t *testing.T) {
	s := redistest.Start(t)
	connected, messages, logs := run(t, &Source{Address: s.Addr(), Channels: []string{"socketio", "flask-socketio"}, Patterns: []string{"socket.io#*", "/*.socketio"}})
	receive(t, connected)
	expect := func(channel, payload string) {
		t.Helper()
		if n := s.Do("PUBLISH", channel, payload); n != "1" {
			t.Fatalf("PUBLISH reached %s subscribers", n)
		}
		if got := receive(t, messages); got != (publication{channel, payload}) {
			t.Errorf("got %q", got)
		}
	}
	expect("socketio", "a\x00\xff\r\n")
	expect("flask-socketio", "")
	expect("socket.io#/#room#", "b")
	expect("/0.socketio", strings.Repeat("x", 1<<20))
	s.Kill()
	s.Run()
	receive(t, connected)
	expect("socketio", "c")
	if n := logs.FilterLevelExact(zapcore.WarnLevel).Len(); n != 1 {
		t.Errorf("%d warnings: %v", n, logs.All())
	}
}

// A Source logs in, by the unix socket too, and says what is wrong if it may not.
func TestSourceLogin(t *testing.T) {
	s := redistest.Start(t, "requirepass secret", "user reader on >pw &socketio +subscribe", "user none on >pw resetchannels -@all")
	s.Password = "secret"
	login := func(user, password string) func() (string, string) {
		return func() (string, string) { return user, password }
	}
	for _, row := range []*Source{
		{Address: s.Addr(), Login: login("", "secret")},
		{Address: s.Socket, Login: login("reader", "pw")},
	} {
		row.Channels = []string{"socketio"}
		connected, messages, _ := run(t, row)
		receive(t, connected)
		s.Do("PUBLISH", "socketio", "x")
		receive(t, messages)
	}
	for _, row := range []struct {
		login func() (string, string)
		want  string
	}{
		{nil, "NOAUTH"},
		{login("", "wrong"), "WRONGPASS"},
		{login("none", "pw"), "NOPERM"},
	} {
		source := &Source{Address: s.Addr(), Login: row.login, Channels: []string{"socketio"}}
		err := source.session(t.Context(), func() { t.Errorf("%s: it is connected", row.want) })
		if err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("the error is %v, want %s", err, row.want)
		}
	}
}

// A Source ends at once, also if what takes the messages blocks, as a full hub does, and passes on nothing more.
func TestSourceEndsWhileBlocked(t *testing.T) {
	server := redistest.Start(t)
	taken, let := make(chan struct{}, 10), make(chan struct{})
	connected := make(chan struct{}, 1)
	s := &Source{
		Address: server.Addr(), Channels: []string{"socketio"}, Log: zap.NewNop(),
		Connected: func(up bool) {
			if up {
				connected <- struct{}{}
			}
		},
		Message: func(string, []byte) {
			taken <- struct{}{}
			<-let
		},
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Run(ctx)
	}()
	receive(t, connected)
	for range 3 {
		server.Do("PUBLISH", "socketio", "x")
	}
	receive(t, taken)
	cancel()
	select {
	case <-done:
	case <-time.After(patience):
		t.Error("it does not end")
	}
	close(let)
	<-done
	if len(taken) > 0 {
		t.Error("it passes messages on after its end")
	}
}

// A Source ends at once, also if its Redis takes the connection and says nothing.
func TestSourceEndsWhileUnanswered(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s := &Source{Address: l.Addr().String(), Channels: []string{"socketio"}, Log: zap.NewNop()}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Run(ctx)
	}()
	nc, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if _, err := nc.Read(make([]byte, 1)); err != nil { // it has begun to log in
		t.Fatal(err)
	}
	cancel()
	select {
	case <-done:
	case <-time.After(answerTimeout / 2):
		t.Error("it waits for an answer")
	}
}
