package complaints

import (
	"fmt"
	"testing"
	"time"
)

// TestComplaints: what lasts is said once a minute, what is new at once, and never too much.
func TestComplaints(t *testing.T) {
	var c Complaints
	now := time.Unix(1000, 0)
	for _, step := range []struct {
		text  string
		after time.Duration
		want  bool
	}{
		{"a", 0, true}, {"a", 200 * time.Millisecond, false}, {"b", 0, true}, {"a", 0, false}, {"b", 0, false},
		{"a", time.Minute, true}, {"a", 0, false},
	} {
		now = now.Add(step.after)
		if got := c.Fresh(step.text, now); got != step.want {
			t.Errorf("%+v: %v", step, got)
		}
	}
	said := 0
	for i := range 1000 {
		if c.Fresh(fmt.Sprint("channel ", i), now) {
			said++
		}
	}
	if said != most-1 {
		t.Errorf("%d were said", said)
	}
}
