package survey

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/nodes"
)

// Kicked is the result of a kick.
type Kicked struct {
	Closed  int      `json:"closed"`
	Nodes   int      `json:"nodes"`   // that have carried it out
	Missing []string `json:"missing"` // those that have not
	Shared  bool     `json:"-"`       // there may be others
}

// UnsharedError is the error of a kick that could not be put in the log, so that at most this node has carried it out.
type UnsharedError struct {
	Kicked Kicked
	Err    error
}

func (e *UnsharedError) Error() string {
	text := fmt.Sprintf("only this node was asked, and has closed %d", e.Kicked.Closed)
	if e.Kicked.Nodes == 0 {
		text = "no other node was asked"
	}
	if len(e.Kicked.Missing) > 0 {
		text += "; missing: " + strings.Join(e.Kicked.Missing, ", ")
	}
	return text + ": " + e.Err.Error()
}
func (e *UnsharedError) Unwrap() error { return e.Err }

// Kick closes the connection with an ID, or those of a user, on all nodes. Clients are told the code, if it is not 0. It waits for
// the nodes that answer. The log keeps the request for the others.
func (s *Survey) Kick(ctx context.Context, connection, user string, code uint16) (Kicked, error) {
	if code != 0 && (code < hub.MinKickCode || code > hub.MaxKickCode) {
		return Kicked{}, fmt.Errorf("the code is %d, must be %d to %d", code, hub.MinKickCode, hub.MaxKickCode)
	}
	f := hub.Filter{User: user}
	of := ""
	if connection != "" {
		var err error
		if of, f.ID, err = hub.ParseConnID(connection); err != nil {
			return Kicked{}, err
		}
		if of == "" { // as clients were told before this process had a broker
			of = s.self()
			connection = of + "." + connection
		}
	}
	if !s.hub.Shared() {
		return s.kickHere(of, f, code, nil), nil
	}
	concerned := s.cluster.Known()
	if of != "" {
		concerned = slices.DeleteFunc(concerned, func(n nodes.Node) bool { return n.Text() != of })
	}
	if user != "" && hub.CheckName("", user) != nil {
		// No client has such a name. The nodes would neither carry out such a request nor answer it.
		return Kicked{Nodes: len(concerned), Missing: []string{}, Shared: true}, nil
	}
	k := hub.NewKickRequest(connection, user)
	k.Code = code
	if err := s.hub.PublishKick(k); err != nil {
		return Kicked{}, &UnsharedError{s.kickHere(of, f, code, concerned), err}
	}
	if len(concerned) == 0 { // it has ended, or cannot be heard at the moment
		return Kicked{Missing: []string{of}, Shared: true}, nil
	}
	answers, missing := ask(ctx, s, kindKicked, question{Request: k.Request}, concerned, s.kicked)
	v := Kicked{Nodes: len(answers), Missing: labels(missing), Shared: true}
	for _, a := range answers {
		v.Closed += a.of
	}
	return v, nil
}

// kickHere closes what is on this node.
func (s *Survey) kickHere(of string, f hub.Filter, code uint16, concerned []nodes.Node) Kicked {
	var v Kicked
	if of == "" || of == s.self() {
		v.Closed, v.Nodes = s.hub.KickCode(f, code), 1
	}
	v.Missing = labels(slices.DeleteFunc(concerned, func(n nodes.Node) bool { return n.ID == s.hub.Node() }))
	return v
}

// kickedTime is how long a node waits until a request has come from the log. The answer has to arrive within the second that
// Ask waits.
const kickedTime = 800 * time.Millisecond

// kicked returns how many connections this node has closed for a request, when it has come.
func (s *Survey) kicked(q question) (int, bool) {
	ctx, cancel := context.WithTimeout(context.Background(), kickedTime)
	defer cancel()
	return s.hub.Kicked(ctx, q.Request)
}
