package websocket

import (
	"encoding/json"
	"fmt"
	"testing"
	"unicode/utf8"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/rates"
)

// TestPostInvalid: what is posted and cannot be read by everybody is not published, and the answer is JSON nevertheless.
func TestPostInvalid(t *testing.T) {
	h := hub.New(hub.Options{})
	defer h.Close(hub.ReasonRestart, "", 0, 0)
	route := &Route{Hub: h, MaxMessage: 1000}
	for _, frame := range []string{
		"{\"publish\":{\"data\":{\"a\":\"\xff\xfe\"}},\"ref\":1}",
		"{\"publish\":{\"data\":\"\xff\"},\"ref\":1}",
		"{\"publish\":{\"data\":1,\"event\":\"\xff\"},\"ref\":1}",
		"{\"publish\":{\"data\":1},\"ref\":\"\xff\"}",
		`{"publish":{"data":"\ud800"},"ref":1}`,
		`{"publish":{"data":{"a":"\udc00"}},"ref":1}`,
		`{"publish":{"data":1,"event":"\ud800"},"ref":1}`,
		`{"publish":{"data":1},"ref":"\ud800"}`,
		`{"publish":{"data":1,"event":"a\nb"},"ref":1}`,
		`{"publish":{"data":1,"key":"a\nb"},"ref":1}`,
		`{"publish":{"data":1e400},"ref":1}`,
		"\xff", "[", "",
	} {
		answer := route.Post([]byte(frame), Client{Publish: []string{"a"}}, func() bool { return false })
		var errs []struct {
			Error struct{ Code, Message string }
		}
		if err := json.Unmarshal(answer, &errs); err != nil || !utf8.Valid(answer) || len(errs) != 1 || errs[0].Error.Code != errInvalid {
			t.Errorf("%q: %q, %v", frame, answer, err)
		}
	}
	if n := h.Stats().Seq; n != 0 {
		t.Errorf("%d are published", n)
	}
}

// TestEmptyArraysAreRequests: a frame without requests counts as one.
func TestEmptyArraysAreRequests(t *testing.T) {
	addr, h := serve(t, func(r *Route) { r.Rate = rates.Limit{PerSecond: 1. / 3600, Burst: 1} })
	p := open(t, addr, "Sec-WebSocket-Protocol: broadcast.v1\r\n")
	p.frame() // the hello
	for range 1 + maxRefused + 1 {
		p.Write(mask(0x81, "[]"))
	}
	for range maxRefused {
		p.expect(0x81, `[{"error":{"code":"rate","message":"too many requests"}}]`)
	}
	if first, payload := p.frame(); first != 0x88 || string(payload[:2]) != closeWith(codePolicy) {
		t.Errorf("%x %q", first, payload)
	}
	route := &Route{Hub: h, MaxMessage: 1000}
	for _, frame := range []string{"[]", " [ ] ", "[1"} {
		n := 0
		answer := route.Post([]byte(frame), Client{}, func() bool { n++; return true })
		if want := `[{"error":{"code":"rate","message":"too many requests"}}]`; string(answer) != want || n != 1 {
			t.Errorf("%s: %s after %d", frame, answer, n)
		}
	}
	if got := fmt.Sprint(h.Stats().Rejected[hub.LimitRate.String()]); got != fmt.Sprint(maxRefused+1+3) {
		t.Errorf("%s refused", got)
	}
}
