package accept

import (
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"
)

// conn is a connection that nothing is done with but telling it from others.
type conn struct {
	net.Conn
	number int
}

// TestGate: while as many are being set up as may be, the next one waits until one of them leaves.
func TestGate(t *testing.T) {
	for _, state := range []http.ConnState{http.StateActive, http.StateClosed} {
		t.Run(state.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGate(2, time.Hour)
				a, b, c := &conn{number: 1}, &conn{number: 2}, &conn{number: 3}
				g.ConnState(a, http.StateNew)
				g.ConnState(b, http.StateNew)
				entered := false
				go func() { g.ConnState(c, http.StateNew); entered = true }()
				synctest.Wait()
				if entered {
					t.Fatal("a third connection is in")
				}
				g.ConnState(b, state)
				g.ConnState(b, http.StateIdle) // later states say nothing new
				synctest.Wait()
				if !entered || len(g.settling) != 2 {
					t.Fatalf("entered: %t, %d are being set up", entered, len(g.settling))
				}
			})
		})
	}
}

// TestSilent: clients that send nothing keep others out for a moment only, however many they are.
func TestSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most, patience = 10, 20 * time.Millisecond
		g := newGate(most, patience)
		begin := time.Now()
		for i := range 10 * most {
			g.ConnState(&conn{number: i}, http.StateNew)
			if len(g.settling) > most {
				t.Fatalf("%d are being set up", len(g.settling))
			}
		}
		if took := time.Since(begin); took != 9*patience {
			t.Errorf("they were let in after %v", took)
		}
		time.Sleep(patience)
		g.ConnState(&conn{number: -1}, http.StateNew)
		if len(g.order) != 1 {
			t.Errorf("%d connections are remembered", len(g.order))
		}
	})
}

// TestRemembered: a connection that has been set up is forgotten, also if an older one is silent.
func TestRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(10, time.Second)
		g.ConnState(new(conn), http.StateNew)
		for i := range 5000 {
			c := &conn{number: i}
			g.ConnState(c, http.StateNew)
			g.ConnState(c, http.StateActive)
			time.Sleep(time.Millisecond)
		}
		if len(g.settling) != 0 || len(g.order) > 1 {
			t.Errorf("%d connections are remembered, %d counted", len(g.order), len(g.settling))
		}
	})
}

// TestServer: a server with more silent connections than its gate lets in at once still responds.
func TestServer(t *testing.T) {
	g := newGate(2, time.Millisecond)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) }))
	s.Config.ConnState = g.ConnState
	s.StartTLS()
	defer s.Close()
	for range 20 {
		c, err := net.Dial("tcp", s.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	resp, err := s.Client().Get(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusTeapot {
		t.Errorf("the response is %s", resp.Status)
	}
}
