package packet

import (
	"reflect"
	"slices"
	"strings"
	"testing"
)

// TestRooms: the forms in which pages name rooms.
func TestRooms(t *testing.T) {
	for _, c := range []struct {
		arguments string
		want      []string
	}{
		{`"x"`, []string{"x"}},
		{`"x","y"`, []string{"x"}},
		{`5`, []string{"5"}},
		{`["a", 5 ,"\u0062"]`, []string{"a", "5", "b"}},
		{`{"username":"u","room":"x"}`, []string{"x"}},
		{`{"channel":"c"}`, []string{"c"}},
		{`{"channel":"c","r\u006fom":7}`, []string{"7"}},
		{`{"room":["a","b"]}`, []string{"a", "b"}},
		{``, nil},
		{`""`, nil},
		{`null`, nil},
		{`true`, nil},
		{`[]`, nil},
		{`["a",null]`, nil},
		{`[["a"]]`, nil},
		{`{}`, nil},
		{`{"Room":"x"}`, nil},
		{`{"room":{"room":"x"}}`, nil},
		{`{"a":{"room":"x"}}`, nil},
		{`1e999`, nil},
		{`[` + strings.Repeat(`"a",`, maxRooms) + `"a"]`, slices.Repeat([]string{"a"}, maxRooms+1)},
		{`[` + strings.Repeat(`"a",`, maxRooms) + `"a",null]`, slices.Repeat([]string{"a"}, maxRooms+1)},
	} {
		text := `2["join"]`
		if c.arguments != "" {
			text = `2["join", ` + c.arguments + `]`
		}
		p, err := Parse([]byte(text))
		if err != nil {
			t.Fatalf("%.60s: %v", text, err)
		}
		rooms, ok := p.Rooms()
		if ok != (c.want != nil) || ok && !reflect.DeepEqual(rooms, c.want) {
			t.Errorf("%.60s: %q, %v", text, rooms, ok)
		}
	}
	for _, text := range []string{`0{"room":"x"}`, `31["x","y"]`} {
		p, _ := Parse([]byte(text))
		if rooms, ok := p.Rooms(); ok {
			t.Errorf("%s: %q", text, rooms)
		}
	}
}
