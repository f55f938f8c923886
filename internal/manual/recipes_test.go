package manual

// The recipes need proxies, logins and more than one Caddy.
var _ = describe("docs/recipes.md", description{testedIn: "internal/recipes"})
