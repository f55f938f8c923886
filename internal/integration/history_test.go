package integration

import (
	"fmt"
	"testing"

	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
)

// TestReplay: a new subscriber gets the last messages, then those that come. The bounds apply to what is kept already.
func TestReplay(t *testing.T) {
	config := func(global string) string {
		return "broadcast {\n" + global + "\n}\n---\nbroadcast /ws/* {path.1} news {\nreplay 3\ngreeting hello\n}\nbroadcast /live news"
	}
	s := caddytest.Start(t, config("history 10 1h\nhistory_bytes 1MiB"))
	for i, channel := range []string{"a", "news", "b", "a", "news", "a"} {
		s.Post(s.Admin+"/broadcast/publish?channel="+channel, "text/plain", fmt.Sprint(channel, i))
	}
	if v := s.Totals(); v.History != 6 || v.HistoryBytes < 6*2 || v.Channels != 0 {
		t.Errorf("kept: %+v", v)
	}
	a, b, live := s.Dial("/ws/a", nil), s.Dial("/ws/b", nil), s.Dial("/live", nil)
	s.Post(s.Admin+"/broadcast/publish?channel=news", "text/plain", "now")
	s.Expect(a, "hello", "a3", "news4", "a5", "now")
	s.Expect(b, "hello", "news1", "b2", "news4", "now")
	s.Expect(live, "now")
	if err := s.Load(config("history 1")); err != nil {
		t.Fatal(err)
	}
	s.Expect(s.Dial("/ws/a", nil), "hello", "a5", "now")
	if err := s.Load(config("")); err != nil {
		t.Fatal(err)
	}
	if v := s.Totals(); v.History != 0 || v.HistoryBytes != 0 {
		t.Errorf("kept, with history off: %+v", v)
	}
}
