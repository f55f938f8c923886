package survey

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
)

// churn has connections of a user come and go on all nodes until stop is called: some more with each step, because a list that
// grows faster than it is read has no end.
func churn(t *testing.T, all []*member, user string, channel func(i int) string) (step, stop func()) {
	t.Helper()
	done, steps := make(chan struct{}), make(chan struct{})
	var running sync.WaitGroup
	for _, m := range all {
		running.Go(func() {
			var conns []*hub.Conn
			for i := 0; ; i++ {
				select {
				case <-done:
					return
				case <-steps:
				}
				c, _, err := m.hub.Connect(hub.Subscriber{User: user, Channels: []string{channel(i)}}, &options)
				if err != nil {
					t.Error(err)
					return
				}
				c.Start(sink{}, nil)
				if conns = append(conns, c); len(conns) > 20 {
					m.hub.Kick(hub.Filter{ID: hubID(conns[i%20].ID())}, hub.ReasonPolicy, "")
					conns = slices.Delete(conns, i%20, i%20+1)
				}
			}
		})
	}
	step = func() {
		for range 3 * len(all) {
			select {
			case steps <- struct{}{}:
			case <-done:
			}
		}
	}
	return step, sync.OnceFunc(func() { close(done); running.Wait() })
}

func hubID(s string) hub.ConnID { _, id, _ := hub.ParseConnID(s); return id }

// TestPagesDuringChurn: while others come and go, pages have each connection and each channel that stays exactly once.
func TestPagesDuringChurn(t *testing.T) {
	_, all := start(t, 3)
	var ids, names []string
	step, stop := churn(t, all, "other", func(i int) string { return fmt.Sprintf("c:%02d", i%50) })
	defer stop()
	for i := range 40 {
		m := all[i%3]
		names = append(names, fmt.Sprintf("c:%02d+", i))
		ids = append(ids, m.connect(t, 1, "stays", names[i])...)
	}
	for round := range 5 {
		got, channels := make(map[string]int), make(map[string]int)
		for page, after, more := 0, "", true; more; page++ {
			step()
			p, err := all[page%3].Connections(t.Context(), "", hub.Filter{}, after, 15+7*round)
			if err != nil || len(p.Missing) > 0 {
				t.Fatal(p.Missing, err)
			}
			for _, c := range p.Entries {
				got[c.ID]++
			}
			if more = p.More && len(p.Entries) > 0; more {
				after = p.Entries[len(p.Entries)-1].ID
			} else if p.More {
				t.Error("a page without entries is not the last one")
			}
		}
		for page, after, more := 0, "", true; more; page++ {
			step()
			p, err := all[page%3].Channels(t.Context(), "", "c:", after, 1+7*round)
			if err != nil || len(p.Missing) > 0 {
				t.Fatal(p.Missing, err)
			}
			for _, c := range p.Entries {
				channels[c.Channel]++
			}
			if more = p.More && len(p.Entries) > 0; more {
				after = p.Entries[len(p.Entries)-1].Channel
			} else if p.More {
				t.Error("a page without entries is not the last one")
			}
		}
		for i, id := range ids {
			if got[id] != 1 || channels[names[i]] != 1 {
				t.Errorf("%s came %d times, and %s %d times", id, got[id], names[i], channels[names[i]])
			}
		}
		for id, n := range got {
			if n != 1 {
				t.Errorf("%s came %d times", id, n)
			}
		}
	}
}

// TestKickDuringChurn: what a user has when the kick is asked for is closed on every node when it is answered.
func TestKickDuringChurn(t *testing.T) {
	_, all := start(t, 3)
	step, stop := churn(t, all, "ann", func(int) string { return "x" })
	defer stop()
	for round := range 50 {
		var before []string
		for i, m := range all {
			before = append(before, m.connect(t, 1+i, "ann", "x")...)
		}
		step()
		v, err := all[round%3].Kick(t.Context(), "", "ann", 0)
		if err != nil || v.Nodes != 3 || v.Closed < len(before) {
			t.Fatalf("%+v, %v", v, err)
		}
		for _, m := range all {
			for _, c := range m.hub.Connections(hub.Filter{User: "ann"}, 1000) {
				if slices.Contains(before, m.hub.ShowID(c.ID)) {
					t.Errorf("%s is still there", m.hub.ShowID(c.ID))
				}
			}
		}
	}
}
