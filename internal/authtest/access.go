// Package authtest has sites that grant access for a time, for tests of what happens when it ends.
package authtest

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/caddyauth"
)

// jwtAuth authenticates by a token in the query, as the JWT modules for Caddy do: the claims become {http.auth.user.*}.
type jwtAuth struct{}

func init() {
	caddy.RegisterModule(jwtAuth{})
	httpcaddyfile.RegisterHandlerDirective("test_jwt", func(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
		raw := json.RawMessage("{}")
		return caddyauth.Authentication{ProvidersRaw: caddy.ModuleMap{"test_jwt": raw}}, nil
	})
	httpcaddyfile.RegisterDirectiveOrder("test_jwt", httpcaddyfile.After, "basic_auth")
}

func (jwtAuth) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.authentication.providers.test_jwt", New: func() caddy.Module { return new(jwtAuth) }}
}

func (jwtAuth) Authenticate(_ http.ResponseWriter, r *http.Request) (caddyauth.User, bool, error) {
	sub, exp, ok := verifyJWT(r.URL.Query().Get("token"))
	return caddyauth.User{ID: sub, Metadata: map[string]string{"exp": fmt.Sprint(exp)}}, ok, nil // as a float, with an exponent
}

var jwtKey = []byte("secret")

func signJWT(part string) string {
	mac := hmac.New(sha256.New, jwtKey)
	mac.Write([]byte(part))
	return part + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

func newJWT(sub string, exp time.Time) string {
	encode := base64.RawURLEncoding.EncodeToString
	return signJWT(encode([]byte(`{"alg":"HS256"}`)) + "." + encode(fmt.Appendf(nil, `{"sub":%q,"exp":%d}`, sub, exp.Unix())))
}

// verifyJWT does not look at the time: here that is the option's.
func verifyJWT(token string) (sub string, exp float64, ok bool) {
	i := strings.LastIndexByte(token, '.')
	if i < 0 || signJWT(token[:i]) != token {
		return "", 0, false
	}
	claims, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	var v struct {
		Sub string
		Exp float64
	}
	ok = err == nil && json.Unmarshal(claims, &v) == nil
	return v.Sub, v.Exp, ok
}

// Access is one way in which a site grants access for a time.
type Access struct {
	Name string
	Site string // the directives: a route /ws on the channel news

	// Grant returns what a client sends to have access until then.
	Grant func(until time.Time) (query url.Values, header http.Header)
}

// Accesses returns the ways. The backend of two of them knows sessions by their cookies and tokens by their signatures.
func Accesses(t *testing.T) []Access {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, err := r.Cookie("session"); err == nil { // the session's end is its ID here
			w.Header().Set("X-Session-Expires", c.Value)
			return
		}
		u, _ := url.Parse(r.Header.Get("X-Forwarded-Uri"))
		sub, exp, ok := verifyJWT(u.Query().Get("token"))
		if !ok {
			http.Error(w, "log in first", http.StatusUnauthorized)
			return
		}
		w.Header().Set("X-User", sub)
		w.Header().Set("X-Session-Expires", time.Unix(int64(exp), 0).Format(time.RFC3339))
	}))
	t.Cleanup(backend.Close)
	forwardAuth := "forward_auth /ws " + backend.Listener.Addr().String() + ` {
			uri /auth
			copy_headers X-User X-Session-Expires
			header_up -Upgrade
			header_up -Connection
		}
		broadcast /ws news {
			user {header.X-User}
			expires {header.X-Session-Expires}
		}`
	jwt := func(until time.Time) (url.Values, http.Header) {
		return url.Values{"token": {newJWT("ann", until)}}, nil
	}
	return []Access{
		{"a session cookie", forwardAuth, func(until time.Time) (url.Values, http.Header) {
			return nil, http.Header{"Cookie": {"session=" + strconv.FormatInt(until.Unix(), 10)}}
		}},
		{"a JWT in the query", "test_jwt /ws\nbroadcast /ws news {\nuser {http.auth.user.id}\nexpires {http.auth.user.exp}\n}", jwt},
		{"a JWT by forward_auth", forwardAuth, jwt},
	}
}
