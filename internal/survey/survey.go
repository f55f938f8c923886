// Package survey is what administrators see of all nodes that share a log, and do on all of them: lists, kicks, and changes of
// subscriptions. It asks each node for its part and joins the answers. Without a message broker, this process is the only node.
package survey

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/nodes"
	"github.com/caddy-broadcast/caddy-broadcast/internal/presence"
)

// Cluster asks the nodes. It is a *nodes.Cluster, except in tests.
type Cluster interface {
	Known() []nodes.Node
	Handle(kind string, answer func(request []byte) []byte)
	Ask(ctx context.Context, kind string, request []byte, of []nodes.Node) (answers []nodes.Answer, missing []nodes.Node)
}

// Survey asks the nodes, and answers for this one. There is one per process.
type Survey struct {
	hub      *hub.Hub
	cluster  Cluster
	presence *presence.Table
}

// The kinds of questions.
const (
	kindChannels    = "channels"
	kindChannel     = "channel"
	kindConnections = "connections"
	kindKicked      = "kicked"
	kindChanged     = "changed"
)

// New returns the survey of a hub, and has the cluster answer its questions.
func New(h *hub.Hub, c Cluster, p *presence.Table) *Survey {
	s := &Survey{h, c, p}
	handle(s, kindChannels, s.channels)
	handle(s, kindChannel, s.channel)
	handle(s, kindConnections, s.connections)
	handle(s, kindKicked, s.kicked)
	handle(s, kindChanged, s.changed)
	return s
}

// question is what a node is asked.
type question struct {
	Prefix  string `json:"prefix,omitempty"`
	Channel string `json:"channel,omitempty"`
	User    string `json:"user,omitempty"`
	Clients bool   `json:"clients,omitempty"`
	After   string `json:"after,omitempty"`
	Limit   int    `json:"limit,omitempty"`
	Bytes   int    `json:"bytes,omitempty"` // what an answer may have; 0: as much as a node sends
	Request string `json:"request,omitempty"`
}

// handle sets what answers one kind of question. A question that cannot be decoded gets an empty answer.
func handle[T any](s *Survey, kind string, answer func(question) (T, bool)) {
	s.cluster.Handle(kind, func(request []byte) []byte {
		var q question
		if json.Unmarshal(request, &q) != nil {
			return nil
		}
		a, ok := answer(q)
		if !ok {
			return nil
		}
		data, err := json.Marshal(a)
		if err != nil {
			return nil
		}
		return data
	})
}

// answersSize is the size of all answers to a question together: half of what nodes.Cluster.Ask takes, so that no node is
// missing only because there are many.
const answersSize = 32 << 20

// answer is what one node has answered.
type answer[T any] struct {
	node nodes.Node
	of   T
}

// ask asks the selected nodes, or only answers itself if it is the only one of them. It returns the nodes that have not
// answered.
func ask[T any](ctx context.Context, s *Survey, kind string, q question, selected []nodes.Node, own func(question) (T, bool)) (answers []answer[T], missing []nodes.Node) {
	if len(selected) == 0 {
		return nil, nil
	}
	if len(selected) == 1 && selected[0].ID == s.hub.Node() {
		a, ok := own(q)
		if !ok {
			return nil, selected
		}
		return []answer[T]{{selected[0], a}}, nil
	}
	q.Bytes = answersSize / len(selected)
	request, err := json.Marshal(q)
	if err != nil {
		return nil, selected
	}
	got, missing := s.cluster.Ask(ctx, kind, request, selected)
	for _, a := range got {
		var of T
		if len(a.Data) > 0 && json.Unmarshal(a.Data, &of) == nil {
			answers = append(answers, answer[T]{a.Node, of})
		} else {
			missing = append(missing, a.Node)
		}
	}
	return answers, missing
}

// self returns this node's number as people see it.
func (s *Survey) self() string { return hub.NodeText(s.hub.Node()) }

// NoNodeError is the error for a name or a number that belongs to no node that is alive or away.
type NoNodeError string

func (e NoNodeError) Error() string {
	return fmt.Sprintf("there is no node %q among those that are alive", string(e))
}

// selected returns the nodes with a name or a number, or all nodes if it is empty.
func (s *Survey) selected(node string) ([]nodes.Node, error) {
	all := s.cluster.Known()
	if !s.hub.Shared() {
		all = slices.DeleteFunc(all, func(n nodes.Node) bool { return n.ID != s.hub.Node() })
	}
	if node == "" {
		return all, nil
	}
	all = slices.DeleteFunc(all, func(n nodes.Node) bool { return n.Name != node && n.Text() != node })
	if len(all) == 0 {
		return nil, NoNodeError(node)
	}
	return all, nil
}

// Label returns what people call a node: its name, or its number if it has none.
func Label(n nodes.Node) string {
	if n.Name != "" {
		return n.Name
	}
	return n.Text()
}

func labels(missing []nodes.Node) []string {
	names := make([]string, len(missing))
	for i, n := range missing {
		names[i] = Label(n)
	}
	slices.Sort(names)
	return names
}
