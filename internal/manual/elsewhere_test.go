package manual

// Pages with servers and apps that only their own tests start.
var (
	_ = describe("docs/recipes.md", description{testedIn: "internal/recipes"})
	_ = describe("docs/publishers.md", description{testedIn: "internal/publishers"})
	_ = describe("docs/vite.md", description{testedIn: "internal/publishers"})
)

// The version of the test is that of a checkout.
var _ = describe("docs/versions.md", description{
	prints: map[string]string{"caddy broadcast version": `(?m)^caddy-broadcast +\S+[^$]*^go +go1\.[^$]*^brokers +nats, redis$`},
})

// The page's site is the test's, and a minute of idleness is left out.
var _ = describe("docs/doctor.md", description{
	prepare: func(s *site) []string {
		return []string{"caddy broadcast doctor https://example.com/ws", "caddy broadcast doctor --idle 0 http://" + s.Addr + "/ws"}
	},
})
