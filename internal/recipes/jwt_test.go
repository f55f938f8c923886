package recipes

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/caddy-broadcast/caddy-broadcast/internal/authtest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/chromium"
)

// newToken returns the query with a JWT of ann, signed with the key "secret".
func newToken(t *testing.T, until time.Time) string {
	for _, a := range authtest.Accesses(t) {
		if a.Name == "a JWT in the query" {
			query, _ := a.Grant(until)
			return query.Encode()
		}
	}
	t.Fatal("authtest has no JWT")
	return ""
}

// expectTokens: a token lets its user in, as long as it is valid.
func (s *site) expectTokens(t *testing.T) {
	t.Helper()
	c := s.mustVisit("127.0.0.1", "wss://example.com/ws?"+newToken(t, time.Now().Add(time.Hour)))
	s.Publish("channel=user:ann", "for ann")
	s.Expect(c, "for ann")
	s.Send(c, "by ann")
	s.Expect(c, "by ann")
	s.expect("curl -d 'by a POST' 'https://example.com/ws?"+newToken(t, time.Now().Add(time.Hour))+"'", `{"id":"`)
	for name, query := range map[string]string{"an expired token": newToken(t, time.Now().Add(-time.Minute)), "a forged token": newToken(t, time.Now().Add(time.Hour)) + "x"} {
		if _, resp, err := s.visit("127.0.0.1", "wss://example.com/ws?"+query); err == nil || resp == nil || resp.StatusCode != 401 {
			t.Errorf("%s: %v, %v", name, resp, err)
		}
	}
	// On a busy machine a short-lived token may end before it is used.
	for life := 2 * time.Second; ; life *= 2 {
		if c, resp, err := s.visit("127.0.0.1", "wss://example.com/ws?"+newToken(t, time.Now().Add(life))); err == nil {
			s.ExpectClose(c, 4401)
			return
		} else if life > time.Minute {
			t.Fatal(resp, err)
		}
	}
}

func testJWT(r *recipe) {
	python := caddytest.Python(r, "python3-flask python3-jwt", "flask", "jwt")
	s := newSite(r)
	app := s.startFlask(r, python, r.get("python", 0), "JWT_KEY=secret")
	access := filepath.Join(s.dir, "access.log")
	caddytest.Run(r, s.localize(r.get("caddyfile", 0, "localhost:5000", app, "\tlog {\n", "\tlog {\n\t\toutput file "+access+"\n")))
	s.expect(r.get("sh", 0), " 401")
	stream := s.follow(r.get("sh", 1))
	stream.wait("retry:")
	s.Publish("channel=user:ann", "for ann")
	stream.wait("data: for ann")
	s.expectTokens(r.T)
	log, err := os.ReadFile(access)
	if err != nil || !strings.Contains(string(log), "/ws?token=REDACTED") || regexp.MustCompile(`token=[^R]`).Match(log) {
		r.Errorf("%v: the access log has\n%s", err, log)
	}

	client, err := os.ReadFile("../../client/broadcast.js")
	if err != nil {
		r.Fatal(err)
	}
	s.write("app/static/broadcast.js", string(client))
	s.write("app/static/page.html", `<!doctype html><script type="module">`+r.get("js", 0, `"/broadcast.js"`, `"/static/broadcast.js"`)+`
		globalThis.hub = hub
		globalThis.got = []
		hub.on("*", data => got.push(data))
	</script>`)
	ctx := chromium.Open(r, chromedp.Flag("ignore-certificate-errors", true), chromedp.Flag("host-resolver-rules", "MAP example.com:443 "+s.https))
	poll := func(expression string) {
		r.Helper()
		err := chromedp.Do(ctx, chromedp.Poll[chromedp.Void](expression, chromedp.WithPollingInterval(20*time.Millisecond), chromedp.WithPollingTimeout(20*time.Second)))
		if err != nil {
			r.Fatalf("%s: %v", expression, err)
		}
	}
	if err := chromedp.Do(ctx, chromedp.Navigate("https://example.com/static/page.html")); err != nil {
		r.Fatal(err)
	}
	poll(`globalThis.hub?.state == "open"`)
	s.Publish("channel=user:ann", "for the page")
	poll(`got.includes("for the page")`)
	poll(`hub.onexpire().then(address => address.startsWith("/ws?token=ey"))`)
}

func testJWTPlugin(r *recipe) {
	plugin := regexp.MustCompile(`(?s)jwtauth \{.*?\n\t\t\}`)
	config := r.get("caddyfile", 0)
	if !plugin.MatchString(config) {
		r.Fatal("the page no longer has jwtauth")
	}
	s := serve(r, plugin.ReplaceAllString(config, "test_jwt"))
	s.expectTokens(r.T)
	if _, resp, err := s.visit("127.0.0.1", "wss://example.com/ws"); err == nil || resp == nil || resp.StatusCode != 401 {
		r.Errorf("without a token: %v, %v", resp, err)
	}
}
