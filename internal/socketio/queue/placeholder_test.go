package queue

import (
	"strings"
	"testing"
)

func TestPlaceholders(t *testing.T) {
	for _, c := range []struct {
		array       string
		attachments int
		want        string
	}{
		{`["x",{"_placeholder":true,"num":0}]`, 1, ""},
		{`["x",{"num":0,"_placeholder":true}]`, 1, ""},
		{`["x",[{"a":{"_placeholder":true,"num":1}},{"_placeholder":true,"num":0}]]`, 2, ""},
		{`["x",{"_placeholder":true,"num":0},{"_placeholder":true,"num":0}]`, 1, ""},
		{`["x", { "_placeholder" : true , "num" : 0 } ]`, 1, ""},
		{`["x",{"\u005fplaceholder":true,"n\u0075m":0}]`, 1, ""},
		{`["x",{"_placeholder":true,"num":5,"num":0}]`, 1, ""},
		{`["x",{"_placeholder":true,"num":0},{"_placeholder":false,"num":5},{"num":7}]`, 1, ""},
		{`["x",{"_placeholder":true,"num":0},{"_placeholder":1,"num":5},{"_placeholder":"true"}]`, 1, ""},
		{`["x",{"_placeholder":true,"num":0},{}]`, 1, ""},
		{`["x",{"_placeholder":true,"num":0},{"_placeholder":true,"_placeholder":false,"num":5}]`, 1, ""},
		{`["x",{"_placeholder":true,"num":1}]`, 1, "does not name"},
		{`["x",{"_placeholder":true,"num":-1}]`, 1, "does not name"},
		{`["x",{"_placeholder":true,"num":-0}]`, 1, "does not name"},
		{`["x",{"_placeholder":true,"num":0.5}]`, 1, "does not name"},
		{`["x",{"_placeholder":true,"num":0e0}]`, 1, "does not name"},
		{`["x",{"_placeholder":true,"num":"0"}]`, 1, "does not name"},
		{`["x",{"_placeholder":true,"num":null}]`, 1, "does not name"},
		{`["x",{"_placeholder":true,"num":99999999999999999999}]`, 1, "does not name"},
		{`["x",{"_placeholder":true}]`, 1, "does not name"},
		{`["x",{"\u005fplaceholder":true,"num":5},{"_placeholder":true,"num":0}]`, 1, "does not name"},
		{`["x",{"_placeholder":false,"_placeholder":true,"num":5},{"_placeholder":true,"num":0}]`, 1, "does not name"},
		{`["x",{"_placeholder":true,"num":0,"num":5},{"_placeholder":true,"num":0}]`, 1, "does not name"},
		{`["x",{"a":[[{"b":{"_placeholder":true,"num":2}}]]},{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]`, 2, "does not name"},
		{`["x"]`, 1, "no placeholder names attachment 0"},
		{`["x",{"_placeholder":true,"num":0}]`, 2, "no placeholder names attachment 1"},
		{`["x"]`, 11, "11 attachments"},
	} {
		err := checkPlaceholders([]byte(c.array), c.attachments)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s with %d: %v", c.array, c.attachments, err)
		}
	}
}
