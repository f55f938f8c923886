package recipes

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/coder/websocket"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
)

// startFlask starts an app of the page, and returns its address.
func (s *site) startFlask(r *recipe, python, app string, env ...string) (addr string) {
	r.Helper()
	addr = caddytest.FreeAddr(r)
	app += "\n\napp.run(port=int(os.environ[\"PORT\"]))\n"
	caddytest.StartApp(r.T, python, s.write("app/app.py", app), port(addr), env...)
	return addr
}

// startLogin starts the site "A channel for each user", with more views of the app.
func startLogin(r, users *recipe, more string) *site {
	r.Helper()
	python := caddytest.Python(r, "python3-flask", "flask")
	s := newSite(r)
	app := s.startFlask(r, python, users.get("python", 0)+"\n\n"+strings.Replace(more, "http://localhost:2019", "http://"+s.Admin, 1), "SECRET_KEY=secret")
	caddytest.Run(r, s.localize(users.get("caddyfile", 0, "localhost:5000", app)))
	return s
}

// post sends a form and returns the status and the cookie that is set.
func (s *site) post(url string, form url.Values, cookie string) (int, string) {
	s.T.Helper()
	req, err := http.NewRequest(http.MethodPost, url, strings.NewReader(form.Encode()))
	if err != nil {
		s.T.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Cookie", cookie)
	resp, err := s.client("127.0.0.1").Do(req)
	if err != nil {
		s.T.Fatal(err)
	}
	readAll(s.T, resp)
	cookie, _, _ = strings.Cut(resp.Header.Get("Set-Cookie"), ";")
	return resp.StatusCode, cookie
}

// login logs a user in, and returns the cookie.
func (s *site) login(user string) (cookie string) {
	s.T.Helper()
	status, cookie := s.post("https://example.com/login", url.Values{"user": {user}}, "")
	if status != 200 || cookie == "" {
		s.T.Fatal(status)
	}
	return cookie
}

func testUserChannels(r *recipe) {
	s := startLogin(r, r, "")
	s.expect(r.get("sh", 0), " 401", "log in first")
	stream := s.follow(r.get("sh", 1))
	stream.wait("retry:")
	s.expect(r.get("sh", 2), `"subscribers":1`)
	stream.wait("data: your order has shipped")

	// A client cannot choose its user.
	ann, ben := s.mustVisit("127.0.0.1", "wss://example.com/ws", "Cookie", s.login("ann"), "X-User", "ben"), s.mustVisit("127.0.0.1", "wss://example.com/ws", "Cookie", s.login("ben"))
	s.Publish("channel=user:ben", "for ben")
	s.Publish("channel=news", "for all")
	s.Expect(ann, "for all")
	s.Expect(ben, "for ben", "for all")
	if _, resp, err := s.visit("127.0.0.1", "wss://example.com/ws", "X-User", "ann"); err == nil || resp == nil || resp.StatusCode != 401 {
		r.Errorf("without a session: %v, %v", resp, err)
	}
	s.Send(ann, "by a page")
	s.ExpectClose(ann, websocket.StatusPolicyViolation)
}

func testLogout(r *recipe) {
	view := r.get("python", 0)
	s := section(r, "A channel for each user", func(users *recipe) *site { return startLogin(r, users, view) })
	here, elsewhere := s.login("ann"), s.login("ann")
	visit := func(cookie string) *websocket.Conn {
		return s.mustVisit("127.0.0.1", "wss://example.com/ws", "Cookie", cookie)
	}
	a, b, ben := visit(here), visit(elsewhere), visit(s.login("ben"))
	status, here := s.post("https://example.com/logout", nil, here)
	if status != 204 {
		r.Fatal(status)
	}
	s.ExpectClose(a, websocket.StatusPolicyViolation)
	s.ExpectClose(b, websocket.StatusPolicyViolation)
	if _, resp, err := s.visit("127.0.0.1", "wss://example.com/ws", "Cookie", here); err == nil || resp == nil || resp.StatusCode != 401 {
		r.Errorf("after the logout: %v, %v", resp, err)
	}
	b = visit(elsewhere)
	s.expect(r.get("sh", 0), "closed 1")
	s.ExpectClose(b, 4403)
	if out := s.run(r.get("sh", 1)); strings.Contains(out, "websocket") || !strings.Contains(out, "REMOTE") {
		r.Error(out)
	}
	if status, _ := s.post("https://example.com/logout", nil, elsewhere); status != 204 {
		r.Errorf("without a connection: %d", status)
	}
	s.Publish("channel=user:ben", "still there")
	s.Expect(ben, "still there")
}
