package v1

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
)

// TestGrant: a client gets the channels that it may join, each once, and is told of the others, but not of thousands.
func TestGrant(t *testing.T) {
	may := func(name string) bool { return strings.HasPrefix(name, "room:") }
	granted, errs := grant([]string{"a"}, []string{"room:1", "a", "room:1", "b", ""}, may)
	if got := fmt.Sprint(granted); got != "[a room:1]" || bytes.Count(errs, []byte(`"code"`)) != 2 {
		t.Errorf("%s %s", got, errs)
	}
	var many []string
	for i := range hub.MaxJoined + 100 {
		many = append(many, fmt.Sprint("room:", i))
	}
	if granted, errs := grant([]string{"a"}, many, may); len(granted) != 1 || !bytes.Contains(errs, []byte(`"limit"`)) {
		t.Errorf("%d %s", len(granted), errs)
	}
	if granted, errs := grant([]string{"a"}, many[:hub.MaxJoined], may); len(granted) != hub.MaxJoined || bytes.Count(errs, []byte(`"limit"`)) != 1 {
		t.Errorf("%d %s", len(granted), errs)
	}
}
