package caddytest

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/brokered"
)

// Totals is what GET /broadcast returns.
type Totals struct {
	Connections, Clients, Channels int
	Messages, Deliveries           uint64
	Seq, Bytes, Writes             uint64
	Backlog                        int64
	Uptime                         float64
	ID, Version                    string
	DeliveredBytes                 uint64 `json:"delivered_bytes"`
	History                        int
	HistoryBytes                   int `json:"history_bytes"`
	Broker                         *brokered.State
	Nodes                          []Node
}

// Node is one of those that share a message broker.
type Node struct {
	ID, Name, Version, Epoch string
	Started                  time.Time
	Connections              int
	Watermark                uint64
	Away                     bool
}

// Totals gets the totals from the admin API.
func (s *Server) Totals() (v Totals) {
	s.T.Helper()
	status, body := s.Do(http.MethodGet, s.Admin+"/broadcast", "")
	d := json.NewDecoder(strings.NewReader(body))
	// So a new member of GET /broadcast has to be added to Totals, and to a test.
	d.DisallowUnknownFields()
	if err := d.Decode(&v); status != 200 || err != nil {
		s.T.Fatalf("GET /broadcast: %d %s %v", status, body, err)
	}
	return v
}

// WaitRunning waits until the configuration of another process runs. Its servers listen a moment before.
func (s *Server) WaitRunning() {
	s.T.Helper()
	// Polled, as only the answer tells.
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		status, body := s.Do(http.MethodGet, s.Admin+"/broadcast", "")
		if status == http.StatusOK {
			return
		}
		if time.Now().After(deadline) {
			s.T.Fatalf("GET /broadcast: %d %s", status, body)
		}
	}
}

// WaitTotals waits until the totals satisfy a condition.
func (s *Server) WaitTotals(done func(Totals) bool) {
	s.T.Helper()
	// It polls, because the totals change without an event that a client could wait for. The limit is far beyond what
	// a slow machine needs.
	deadline := time.Now().Add(20 * time.Second)
	for {
		v := s.Totals()
		if done(v) {
			return
		}
		if time.Now().After(deadline) {
			s.T.Fatalf("it does not come: %+v", v)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// ExpectMetrics waits until Caddy's metrics contain these lines.
func (s *Server) ExpectMetrics(want ...string) {
	s.T.Helper()
	// Polled, as WaitTotals does: a scrape is the only way to see them.
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		_, body := s.Do("GET", s.Admin+"/metrics", "")
		missing := ""
		for _, w := range want {
			// The whole line, so that "1" is not found in "10".
			if !strings.Contains(body, "\ncaddy_broadcast_"+w+"\n") {
				missing = w
			}
		}
		if missing == "" {
			return
		}
		if time.Now().After(deadline) {
			s.T.Fatalf("lacks %s:\n%s", missing, strings.Join(regexp.MustCompile(`(?m)^caddy_broadcast.*$`).FindAllString(body, -1), "\n"))
		}
	}
}

// WaitLog waits until the log contains a text.
func (s *Server) WaitLog(want string) {
	s.T.Helper()
	// Zap writes the file without telling anybody.
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if log, _ := os.ReadFile(s.Log); bytes.Contains(log, []byte(want)) {
			return
		}
		if time.Now().After(deadline) {
			s.T.Fatalf("the log lacks %s", want)
		}
	}
}
