package integration

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
)

// TestDestination: a publish names its channel, or nothing is published.
func TestDestination(t *testing.T) {
	s := caddytest.Start(t, `broadcast /ws one two {
			user {query.name}
		}
		broadcast /token {
			query token
		}
		broadcast /room room:{query.channel} other`)
	const text, form, asJSON, ndjson = "text/plain", "application/x-www-form-urlencoded", "application/json", "application/x-ndjson"
	admin, ws := s.Admin+"/broadcast/publish", s.Addr+"/ws"
	for _, c := range []struct {
		url, contentType, body string
		status                 int
		want                   string
	}{
		{admin + "?chanel=two", text, "x", 400, "chanel"},
		{admin + "?channel=", text, "x", 400, "empty channel"},
		{admin, form, "channel=two", 400, "no field data"},
		{admin, asJSON, `{"channel":"two","data":"x"}`, 200, `"channel":"two"`},
		{admin, asJSON, `{"channel":"two"}`, 400, "no data"},
		{admin + "?channel=two", asJSON, `{"channel":"two","data":"x"}`, 400, "both the query and the JSON object"},
		{ws + "?channel=one&keep=false", text, "x", 400, `keep is "false", must be 0 or 1`},
		{ws + "?chanel=two", text, "x", 400, `the query parameter "chanel" is unknown`},
		{ws + "?name=ann", text, "x", 200, "id"},
		{ws + "?token=t", text, "x", 400, "token"},
		{s.Addr + "/token?token=t", text, "x", 200, "id"},
		{ws, asJSON, `{"channel":"two","data":"x"}`, 200, "id"},
		{ws, asJSON, `{"channel":"three","data":"x"}`, 403, `"three" is not a channel`},
		{ws + "?channel=two&channel=one", text, "x", 400, "2 times"},
		{ws + "?protocol=broadcast.v1&channel=two", asJSON, `{"publish":{"data":1},"ref":1}`, 400, "names it in the body"},
		{ws + "?protocol=broadcast.v1&token=t", asJSON, `{"publish":{"data":1},"ref":1}`, 200, "ack"},
		{s.Addr + "/room?channel=7", text, "x", 200, "id"},
		{s.Addr + "/room?channel=other", text, "x", 200, "id"},
		{admin, ndjson, `{"channel":null,"data":"x"}`, 400, "line 1: the channel is null"},
		{admin, ndjson, `{"channel":"","data":"x"}`, 400, "line 1: the channel is empty"},
		{admin, ndjson, `{"data":"x"}`, 200, `"channel":"default"`},
		{admin + "?channel=two", ndjson, `{"data":"x"}`, 400, "each line names its own"},
		{admin + "?chanel=two", ndjson, `{"data":"x"}`, 400, "each line names its own"},
		{ws + "?protocol=broadcast.v1", asJSON, `{"publish":{"data":1,"channel":""},"ref":1}`, 200, `"code":"invalid","message":"the channel is empty`},
		{ws + "?protocol=broadcast.v1", asJSON, `{"publish":{"data":1,"channel":null},"ref":1}`, 200, `"code":"invalid","message":"the channel is null`},
		{admin, form, `{"channel":"two","data":"x"}`, 400, "Content-Type: application/json"},
		{ws, "", ` {"data":{"a":1},"channel":"two","event":"e"}`, 400, "Content-Type: application/json"},
		{admin, form, `{"channel":"two","price":3}`, 200, `"channel":"default"`},
		{admin, text, `{"channel":"two","data":"x"}`, 200, `"channel":"default"`},
		{admin + "?channel=two", form, `{"channel":"one","data":"x"}`, 200, `"channel":"two"`},
	} {
		before := s.Totals().Messages
		status, body := s.Post(c.url, c.contentType, c.body)
		if status != c.status || !strings.Contains(body, c.want) {
			t.Errorf("%s %s: %d %s, not %d %s", c.url, c.body, status, body, c.status, c.want)
		}
		if n := s.Totals().Messages - before; (n == 1) != (c.status == http.StatusOK && !strings.Contains(c.want, "invalid")) {
			t.Errorf("%s %s: %d messages were published", c.url, c.body, n)
		}
	}
}

// TestLinesAndHeaderKey: a key that is not heeded would make a retry publish twice.
func TestLinesAndHeaderKey(t *testing.T) {
	s := caddytest.Start(t, "broadcast /ws")
	r, err := http.NewRequest(http.MethodPost, "http://"+s.Admin+"/broadcast/publish", strings.NewReader(`{"data":"x"}`))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-ndjson")
	r.Header.Set("Idempotency-Key", "k")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusBadRequest || !strings.Contains(string(body), "Idempotency-Key") {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
}
