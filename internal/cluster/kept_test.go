package cluster

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"
)

// keptTexts returns what a node says is kept of a channel.
func (n *node) keptTexts(channel, query string) string {
	n.T.Helper()
	status, body := n.Do("GET", n.Admin+"/broadcast/channels/"+channel+"/messages"+query, "")
	var ms []struct{ Data string }
	if err := json.Unmarshal([]byte(body), &ms); status != 200 || err != nil {
		n.T.Fatal(status, body)
	}
	texts := []string{}
	for _, m := range ms {
		texts = append(texts, m.Data)
	}
	return fmt.Sprint(texts)
}

// A node whose rules keep less than the broker has gives its clients and administrators no more than they say. Messages that are not
// kept come back to nobody, though the broker has them.
func testKept(t *testing.T, s *single) {
	const rules = "history few* 2\nhistory none* 0\nhistory brief* 10 1s\n"
	n := startNodes(t, 1, func(int) string { return rules + s.options("", s.server.Addr()) })[0]
	other := s.nodes[0]
	ids := make(map[string][]string)
	for i := range 4 {
		for _, channel := range []string{"few", "none", "brief", "plain", "silent"} {
			if i > 0 {
				other.Publish("keep=0&channel="+channel, "not kept") // from the second on
			}
			if channel != "silent" || i == 0 {
				ids[channel] = append(ids[channel], other.Publish("channel="+channel, fmt.Sprint(i)))
			}
		}
	}
	for channel, c := range map[string]struct {
		resumes []bool // after each message
		kept    string
	}{
		"few":    {[]bool{false, true, true, true}, "[2 3]"},
		"none":   {[]bool{false, false, false, true}, "[]"},
		"plain":  {[]bool{true, true, true, true}, "[0 1 2 3]"},
		"silent": {[]bool{true}, "[0]"},
	} {
		if got := n.keptTexts(channel, ""); got != c.kept {
			t.Errorf("of %s is kept %s, not %s", channel, got, c.kept)
		}
		for i, resumes := range c.resumes {
			client := open(t, n, v1, ids[channel][i], channel)
			if !resumes {
				client.expectGap(t, channel)
				continue
			}
			var want []string
			for j := i + 1; j < len(ids[channel]); j++ {
				want = append(want, fmt.Sprint(j))
			}
			other.Publish("keep=0&channel="+channel, "now")
			client.expect(t, append(want, "now")...)
		}
	}
	for deadline := time.Now().Add(patience); n.keptTexts("brief", "") != "[]"; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("they do not grow old")
		}
	}
	open(t, n, v1, ids["brief"][0], "brief").expectGap(t, "brief")
	if got := other.keptTexts("plain", "?last&limit=2"); got != "[2 3]" {
		t.Errorf("the last two are %s", got)
	}
}
