// Package recipes does what docs/recipes.md says: it runs each configuration, program and command of that page, as printed but
// for addresses and paths, and expects what the page promises.
package recipes

import (
	"os"
	"regexp"
	"runtime"
	"strings"
	"testing"

	_ "github.com/caddy-broadcast/caddy-broadcast"
	_ "github.com/caddy-broadcast/caddy-broadcast/brokers/nats"
	_ "github.com/caddy-broadcast/caddy-broadcast/brokers/redis"
	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
)

func TestMain(m *testing.M) { os.Exit(caddytest.Main(m)) }

// recipe is a section of the page.
type recipe struct {
	*testing.T
	title  string
	blocks []*block
}

// block is what one code block has.
type block struct {
	language, text string
	used           bool // by the test, or the page says that it is not tested
}

var codeBlock = regexp.MustCompile("(?ms)^```([a-z]+)\n(.*?)^```\n")

// recipes returns the sections of the page that have code.
func recipes(t *testing.T) (all []*recipe) {
	t.Helper()
	page, err := os.ReadFile("../../docs/recipes.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, section := range strings.Split(string(page), "\n## ")[1:] {
		title, body, _ := strings.Cut(section, "\n")
		r := &recipe{title: title}
		for _, at := range codeBlock.FindAllStringSubmatchIndex(body, -1) {
			before := strings.Split(strings.TrimRight(body[:at[0]], "\n"), "\n\n")
			r.blocks = append(r.blocks, &block{
				language: body[at[2]:at[3]],
				text:     body[at[4]:at[5]],
				used:     regexp.MustCompile(`\*[Nn]ot tested[:,]\*`).MatchString(before[len(before)-1]),
			})
		}
		all = append(all, r)
	}
	return all
}

// get returns the nth block of a language, with the old of each pair of old and new replaced. The block must have it.
func (r *recipe) get(language string, n int, pairs ...string) string {
	r.Helper()
	for _, b := range r.blocks {
		if b.language != language {
			continue
		}
		if n--; n >= 0 {
			continue
		}
		b.used = true
		for i := 0; i < len(pairs); i += 2 {
			if !strings.Contains(b.text, pairs[i]) {
				r.Fatalf("the page no longer has %q in\n%s", pairs[i], b.text)
			}
		}
		return strings.NewReplacer(pairs...).Replace(b.text)
	}
	r.Fatalf("the page has too few blocks of %s", language)
	return ""
}

// TestRecipes runs the test of each recipe. Each has one, and uses all that its recipe has.
func TestRecipes(t *testing.T) {
	if testing.Short() {
		t.Skip("it runs other programs, to which neither the race detector nor a second run adds anything")
	}
	if runtime.GOOS != "linux" {
		t.Skip("its clients have addresses of 127.0.0.0/8, all of which only Linux has")
	}
	tests := map[string]func(*recipe){
		"Check a route":        testCheck,
		"A single-page app":    testSinglePageApp,
		"A systemd service":    testSystemd,
		"Behind nginx":         testNginx,
		"Behind another Caddy": testAnotherCaddy,
		"Behind a load balancer with the PROXY protocol": testProxyProtocol,
		"Behind a load balancer that chooses by room":    testByRoom,
		"A channel for each user":                        testUserChannels,
		"Logout":                                         testLogout,
		"JWTs":                                           testJWT,
		"JWTs with a plugin":                             testJWTPlugin,
		"Several sites on one hub":                       testSeveralSites,
		"Staging next to production":                     testStaging,
		"A private inspector":                            testPrivateInspector,
	}
	all := recipes(t)
	for _, r := range all {
		t.Run(r.title, func(t *testing.T) {
			r.T = t
			test := tests[r.title]
			if test == nil {
				t.Fatal("the recipe has no test")
			}
			test(r)
			for _, b := range r.blocks {
				if !b.used {
					t.Errorf("not tested, and the page does not say so:\n%s", b.text)
				}
			}
		})
	}
	if len(all) != len(tests) {
		t.Errorf("%d recipes and %d tests", len(all), len(tests))
	}
}

// section calls f with another recipe of the page, whose configuration this one uses too.
func section[T any](r *recipe, title string, f func(*recipe) T) T {
	r.Helper()
	for _, other := range recipes(r.T) {
		if other.title == title {
			other.T = r.T
			return f(other)
		}
	}
	panic("the page has no recipe " + title)
}

// Run runs a part of the test as a subtest.
func (r *recipe) Run(name string, part func()) {
	r.Helper()
	t := r.T
	defer func() { r.T = t }()
	t.Run(name, func(t *testing.T) {
		r.T = t
		part()
	})
}
