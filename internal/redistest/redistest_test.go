package redistest

import (
	"crypto/tls"
	"testing"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/servertest"
)

// What a server keeps when it is killed depends on how it is configured.
func TestKillAndRun(t *testing.T) {
	t.Parallel()
	for _, program := range Programs(t) {
		for config, kept := range map[string]string{AOF: "1", "": "<nil>"} {
			s := StartProgram(t, program, config)
			s.Do("SET", "a", "1")
			s.Kill()
			s.Run()
			s.WaitReady()
			if value := s.Do("GET", "a"); value != kept {
				t.Errorf("%s with %q: %q, want %q", program, config, value, kept)
			}
		}
	}
}

// A replica that lags is promoted without what it has missed.
func TestFailover(t *testing.T) {
	t.Parallel()
	g := StartGroup(t, 1)
	master, replica := g.Servers[0], g.Servers[1]
	master.Do("SET", "a", "1")
	master.Do("WAIT", "1", "0")
	g.Lag(replica)
	master.Do("SET", "a", "2")
	master.Kill()
	replica.Thaw()
	if now := g.WaitMaster(master); now != replica || now.Do("GET", "a") != "1" {
		t.Errorf("%s has %s", now.Addr(), now.Do("GET", "a"))
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	a, port := servertest.NewAuthority(t), caddytest.FreePort(t)
	Start(t, TLS(a, port))
	pair, err := tls.LoadX509KeyPair(a.Cert, a.Key)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := tls.Dial("tcp", "127.0.0.1:"+port, &tls.Config{RootCAs: a.Pool(t), Certificates: []tls.Certificate{pair}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.Write([]byte("PING\r\n"))
	answer := make([]byte, 7)
	if _, err := conn.Read(answer); err != nil || string(answer) != "+PONG\r\n" {
		t.Errorf("%q %v", answer, err)
	}
}
