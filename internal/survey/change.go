package survey

import (
	"context"
	"slices"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/nodes"
)

// Changed is the result of a change of subscriptions.
type Changed struct {
	hub.Changed
	Nodes   int      // that have carried it out
	Missing []string // those that have not
	Shared  bool     // there may be others
}

// Change subscribes or unsubscribes the connection with an ID, or those of a user, on all nodes. It waits for the nodes that answer.
// The log keeps the request for the others. If the log cannot be reached, nothing has changed.
func (s *Survey) Change(ctx context.Context, x hub.Change) (v Changed, err error) {
	if err := x.Check(); err != nil {
		return v, &InvalidError{err}
	}
	if !s.hub.Shared() {
		v.Changed, err = s.hub.Change(x)
		v.Nodes, v.Missing = 1, []string{}
		return v, err
	}
	concerned := s.cluster.Known()
	if x.Connection != "" {
		of, id, _ := hub.ParseConnID(x.Connection)
		if of == "" { // as clients were told before this process had a broker
			of = s.self()
			x.Connection = of + "." + id.String()
		}
		concerned = slices.DeleteFunc(concerned, func(n nodes.Node) bool { return n.Text() != of })
		v.Missing = []string{of} // unless it answers
	}
	k := hub.NewChangeRequest(x)
	if err := s.hub.PublishKick(k); err != nil {
		return Changed{}, err
	}
	v.Shared = true
	if len(concerned) == 0 { // it has ended, or cannot be heard at the moment
		return v, nil
	}
	answers, missing := ask(ctx, s, kindChanged, question{Request: k.Request}, concerned, s.changed)
	v.Nodes, v.Missing = len(answers), labels(missing)
	for _, a := range answers {
		v.Done += a.of.Done
		v.Failed += a.of.Failed
	}
	return v, nil
}

// InvalidError is the error of a change that says nothing that could be done.
type InvalidError struct{ Err error }

func (e *InvalidError) Error() string { return e.Err.Error() }
func (e *InvalidError) Unwrap() error { return e.Err }

// changed returns what this node has done for a request, when it has come.
func (s *Survey) changed(q question) (hub.Changed, bool) {
	ctx, cancel := context.WithTimeout(context.Background(), kickedTime)
	defer cancel()
	return s.hub.Changed(ctx, q.Request)
}
