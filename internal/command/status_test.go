package command

import (
	"strings"
	"testing"
)

// TestPrintStatus: the time since the start is not passed off as one since something was heard.
func TestPrintStatus(t *testing.T) {
	for body, want := range map[string]string{
		`{"uptime":3.9,"broker":{"node":"a","up":false,"heard":false,"lag_seconds":3.9,"problem":"no route"}}`:            "node a: broker down, never heard\nproblem: no route\n",
		`{"uptime":3.9,"broker":{"node":"a","up":true,"heard":true,"lag_seconds":0.4,"server":"nats://n1","problem":""}}`: "node a: broker up at nats://n1, last heard 400ms ago\n",
		`{"broker":{"node":"a","up":true,"heard":true,"lag_seconds":0.4},"nodes":[
			{"id":"k3x9f2","name":"a","connections":3,"version":"v1","epoch":"X","started":"2026-01-01T00:00:00Z"},
			{"id":"0000aa","name":"b","connections":4,"version":"v2","epoch":"Y","started":"2026-01-01T00:00:00Z"}]}`: "7 connections on 2 nodes\nproblem: the nodes have different epochs: if that lasts, they do not share one log\n",
	} {
		var out strings.Builder
		if err := printStatus(&out, []byte(body)); err != nil || !strings.HasSuffix(out.String(), want) {
			t.Errorf("%v, %q, want %q", err, out.String(), want)
		}
	}
}
