package hub

import (
	"fmt"
	"testing"
)

// TestTraceBounds: what is known of names is bounded. What is forgotten makes known where it ended, so that nobody is taken for one
// to whom nothing has happened.
func TestTraceBounds(t *testing.T) {
	h := New(Config{History: 10})
	defer closeHub(h)
	c := newFakeCluster()
	c.join(t, h)
	held := h.held.Load()
	h.mu.Lock()
	s := h.log
	x := s.tracesLocked()
	join := func(seq uint64, name, on string) {
		s.traceLocked(seq, &NameCommand{Do: DoJoin, Name: name, On: on, Channel: "room", seq: seq}, "")
	}
	seq := uint64(10)
	for i := range maxTraces + 100 {
		seq++
		s.traceLocked(seq, nil, fmt.Sprint("n", i))
	}
	forgotten := maxTraces + 100 - len(x.names)
	if x.from != 10+uint64(forgotten) || forgotten < 100 || x.recent.Len() != len(x.names) || x.size > maxTraceBytes {
		t.Errorf("it is known from %d on, of %d names", x.from, len(x.names))
	}
	for range maxTraceCommands + 1 {
		seq++
		join(seq, "often", "")
	}
	if _, ended := x.commandsOf("often", 0); !ended {
		t.Error("more commands are kept for a name than should be")
	}
	first := seq + 1
	for range maxOnCommands + 5 {
		seq++
		join(seq, "", "a")
	}
	if x.from != first+4 || len(x.on) != maxOnCommands {
		t.Errorf("it is known from %d on, not %d, with %d commands", x.from, first+4, len(x.on))
	}
	big := string(make([]byte, 200))
	for i := range maxTraces {
		seq++
		join(seq, fmt.Sprint(big, i%(maxTraces/4)), "")
	}
	if x.size > maxTraceBytes || x.from <= first+4 {
		t.Errorf("%d bytes, known from %d", x.size, x.from)
	}
	if n := h.held.Load() - held; n != int64(x.size) {
		t.Errorf("%d bytes are held for %d", n, x.size)
	}
	s.dropTracesLocked()
	h.mu.Unlock()
	if n := h.held.Load(); n != held {
		t.Errorf("%d bytes are held, and were %d before", n, held)
	}
}

// TestForgetUnused: a name whose time is up stays if a connection has gone on with it at that moment.
func TestForgetUnused(t *testing.T) {
	h := New(Config{History: 10})
	defer closeHub(h)
	c := connect(t, h, options(), "a")
	enter(t, c, Entrance{Name: "ann", Keep: true})
	if h.ForgetUnused("ann"); h.Named("ann") != c.conn {
		t.Error("it is forgotten though a connection has it")
	}
	if h.Forget("ann"); h.Named("ann") != nil {
		t.Error("it is not forgotten")
	}
}
