package v1

import (
	"encoding/json"
	"net/http/httptest"
	"testing"
	"unicode/utf8"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/protocol"
)

// postFrame posts a frame and returns the response.
func postFrame(t *testing.T, e *protocol.Endpoint, r *protocol.Request, frame string, reject func() bool) []byte {
	t.Helper()
	w := httptest.NewRecorder()
	if err := (Protocol{}).Post(w, e, r, []byte(frame), reject); err != nil {
		t.Fatal(err)
	}
	return w.Body.Bytes()
}

// TestPostInvalid: what is posted and cannot be read by everybody is not published, and the answer is JSON nevertheless.
func TestPostInvalid(t *testing.T) {
	h := hub.New(hub.Config{})
	defer h.Close(hub.ReasonRestart, "", 0, 0)
	e := &protocol.Endpoint{Hub: h, MaxMessage: 1000}
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
		answer := postFrame(t, e, &protocol.Request{Publish: []string{"a"}}, frame, func() bool { return false })
		var errs []struct {
			Error struct{ Code, Message string }
		}
		if err := json.Unmarshal(answer, &errs); err != nil || !utf8.Valid(answer) || len(errs) != 1 || errs[0].Error.Code != codeInvalid {
			t.Errorf("%q: %q, %v", frame, answer, err)
		}
	}
	if n := h.Stats().Seq; n != 0 {
		t.Errorf("%d are published", n)
	}
}

// TestPostedEmptyArraysAreRequests: a posted frame without requests counts as one.
func TestPostedEmptyArraysAreRequests(t *testing.T) {
	h := hub.New(hub.Config{})
	defer h.Close(hub.ReasonRestart, "", 0, 0)
	e := &protocol.Endpoint{Hub: h, MaxMessage: 1000}
	for _, frame := range []string{"[]", " [ ] ", "[1"} {
		n := 0
		answer := postFrame(t, e, new(protocol.Request), frame, func() bool { n++; return true })
		if want := `[{"error":{"code":"rate","message":"too many requests"}}]`; string(answer) != want || n != 1 {
			t.Errorf("%s: %s after %d", frame, answer, n)
		}
	}
	if n := h.Stats().Rejected[hub.LimitRate.String()]; n != 3 {
		t.Errorf("%d rejected", n)
	}
}
