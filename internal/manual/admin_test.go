package manual

import (
	"encoding/json"
	"strings"
	"time"
)

// The page's client c12 is one of two that ann has.
var _ = describe("docs/admin.md", description{
	site: "broadcast /ws news {\n\tuser {query.user}\n}",
	prepare: func(s *site) []string {
		s.Dial("/ws?user=ann", nil)
		s.Dial("/ws?user=ann", nil)
		_, list := s.Do("GET", s.Admin+"/broadcast/connections?user=ann", "")
		var connections []struct{ ID string }
		if err := json.Unmarshal([]byte(list), &connections); err != nil || len(connections) != 2 {
			s.T.Fatal(list, err)
		}
		return []string{`"c12"`, `"` + connections[0].ID + `"`}
	},
	prints: map[string]string{
		"curl localhost:2019/broadcast":              `"connections":2`,
		"curl 'localhost:2019/broadcast/connections": `(?s)"user":"ann".*"user":"ann"`,
	},
})

// The page's room has Ann, who has a name, Bob, and somebody without a user.
var _ = describe("docs/presence.md", description{
	site: "broadcast /room/* room:{path.1} {\n\tuser {query.user}\n\tpresence\n\tmember {query.member}\n}",
	prepare: func(s *site) []string {
		for _, query := range []string{`?user=ann&member={"name":"Ann"}`, "?user=bob", ""} {
			s.Dial("/room/7"+strings.ReplaceAll(query, `"`, "%22"), nil)
		}
		// A change may be a second old when others see it.
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			_, channel := s.Do("GET", s.Admin+"/broadcast/channels/room:7", "")
			if strings.Contains(channel, `"count":3`) {
				return nil
			}
			if time.Now().After(deadline) {
				s.T.Fatal(channel)
			}
		}
	},
})
