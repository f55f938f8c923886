package presence

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/nodes"
)

// TestNodesLargest: members with the longest names and data that a client can choose, in whichever characters, reach other nodes as
// they are.
func TestNodesLargest(t *testing.T) {
	name := strings.Repeat(`"<`, 125)
	for what, data := range map[string]string{
		"html":    `{"name":"` + strings.Repeat("<&", 250) + `"}`,
		"control": `"` + strings.Repeat(`\u0001`, 512) + `"`,
	} {
		t.Run(what, func(t *testing.T) {
			withNetwork(t, 2, 1, func(net *network, all []*peer) {
				net.ordered = true
				const n = 190 // less than fill a part by their number
				for i := range n {
					all[0].join("room", fmt.Sprint(name, i), `""`)
				}
				all[1].join("room", "ann", "")
				time.Sleep(time.Minute)
				for i := range n { // as one change, later
					all[0].join("room", fmt.Sprint(name, i), data)
				}
				time.Sleep(time.Minute)
				s, _ := all[1].table.Of("room")
				if s.Count != n+1 {
					t.Errorf("%d members, want %d", s.Count, n+1)
				}
				for _, m := range s.Members {
					if m.User != "ann" && m.Data != data {
						t.Fatalf("%.40s is %.40s", m.User, m.Data)
					}
				}
				for i := range n {
					all[0].leave("room", fmt.Sprint(name, i), 0)
				}
				all[1].leave("room", "ann", 0)
			})
		})
	}
}

// TestNodesMissingPart: for a list of which parts are missing a node asks once.
func TestNodesMissingPart(t *testing.T) {
	r := newRoom("room")
	asked := 0
	for part := range 8 {
		if part != 1 && !r.take(7, &share{Channel: "room", Version: 3, Part: part, More: part < 7, Listed: true}, time.Hour) {
			asked++
		}
	}
	if asked != 1 {
		t.Errorf("it has asked %d times", asked)
	}
}

// TestNodesWhole: nothing that a room tells is too large to be told.
func TestNodesWhole(t *testing.T) {
	r := newRoom("room")
	r.sharing = &sharing{changed: make(map[string]struct{})}
	data := `"` + strings.Repeat(`\u0001`, 512) + `"`
	for i := range listedAgain {
		r.join(fmt.Sprint(strings.Repeat(`"`, 250), i), data, 1)
	}
	users := 0
	for _, s := range r.shareChange(1) {
		if n := len(s.json()); n+2 > nodes.MaxTell || !s.isValid() {
			t.Errorf("part %d has %d bytes", s.Part, n)
		}
		users += len(s.Has)
	}
	if users != listedAgain {
		t.Errorf("%d users", users)
	}
}

// TestListsOfEmptyRooms: rooms that are empty again do not stay in memory for their lists.
func TestListsOfEmptyRooms(t *testing.T) {
	withNetwork(t, 1, 1, func(_ *network, all []*peer) {
		for i := range 20_000 {
			channel := fmt.Sprint("room:", i)
			all[0].join(channel, "ann", "")
			all[0].leave(channel, "ann", 0)
		}
		if n := len(all[0].table.listed); n*roomCost > maxLists {
			t.Errorf("%d rooms are kept", n)
		}
	})
}
