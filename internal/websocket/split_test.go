package websocket

import (
	"encoding/json"
	"strings"
	"testing"
)

// TestSplit takes frames apart, and finds what is no list of requests.
func TestSplit(t *testing.T) {
	for frame, want := range map[string]string{
		``:                 `.`,
		` {"a":[1,2]} `:    ` {"a":[1,2]} .`,
		`[]`:               ``,
		" [ ] \r\n\t":      ``,
		`[{"a":1}]`:        `{"a":1}.`,
		`[1 , "]", [[]] ]`: `1.".]".[[]].`,
		`[null]`:           `null.`,
		`[`:                `error`,
		`[1`:               `error`,
		`[1,`:              `error`,
		`[1,]`:             `error`,
		`[,1]`:             `error`,
		`[1 2]`:            `error`,
		`[1}`:              `error`,
		`[1]]`:             `error`,
		`[1],`:             `error`,
		`[1][2]`:           `error`,
		`[] 1`:             `error`,
		`["`:               `error`,
		`[1` + strings.Repeat(",1", maxRequests-1) + `]`: strings.Repeat("1.", maxRequests),
		`[1` + strings.Repeat(",1", maxRequests) + `]`:   `error`,
	} {
		list, err := split([]byte(frame))
		got := ""
		for _, raw := range list {
			got += string(raw) + "."
		}
		if err != nil {
			got = "error"
		}
		if want = strings.ReplaceAll(want, `".]"`, `"]"`); got != want {
			t.Errorf("%.40q: got %.40q, want %.40q, %v", frame, got, want, err)
		}
		if valid := json.Valid([]byte(frame)); valid != (err == nil) && strings.HasPrefix(frame, "[") && len(frame) < 100 {
			t.Errorf("%.40q: %v", frame, err)
		}
	}
}

// TestSplitMuch: a frame of very many requests is refused before they take much more than it.
func TestSplitMuch(t *testing.T) {
	frame := []byte("[1" + strings.Repeat(",1", 64<<10) + "]")
	if n := testing.AllocsPerRun(1, func() { split(frame) }); n > 10*maxRequests {
		t.Errorf("%v allocations", n)
	}
}
