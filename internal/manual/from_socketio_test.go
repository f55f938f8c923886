package manual

import "strings"

var _ = describe("docs/from-socketio.md", description{
	global: "broadcast {\n\tredis listen QUEUE {\n\t\tpublish prices:*\n\t}\n}",
	site:   "broadcast /ws prices:tea",
	prepare: func(s *site) []string {
		s.Dial("/ws", nil)
		_, port, _ := strings.Cut(s.queue, ":")
		return []string{"redis-cli ", "redis-cli -p " + port + " "}
	},
	prints: map[string]string{"redis-cli publish": "^1\n$"}, // to one subscriber
})
