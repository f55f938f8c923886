package brokerlog

import (
	"fmt"
	"slices"
	"testing"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
)

// calls is a Sink that notes its calls.
type calls []string

func (c *calls) Epoch(string, uint64) {}
func (c *calls) Broken(error)         {}
func (c *calls) Lost([]string)        {}
func (c *calls) Repaired()            {}
func (c *calls) Advance(w uint64)     { *c = append(*c, fmt.Sprint("w", w)) }
func (c *calls) Entries(run []broker.Entry) {
	*c = append(*c, fmt.Sprintf("%d to %d", run[0].Seq, run[len(run)-1].Seq))
}

// W is told where it is not the position of the last entry, and everything is told once.
func TestRun(t *testing.T) {
	var c calls
	r := NewRun(&c)
	add := func(from, to uint64) {
		for seq := from; seq <= to; seq++ {
			r.Advance(seq)
			r.Add(broker.Entry{Seq: seq})
		}
	}
	r.Flush()
	add(1, 2)
	r.Flush()
	r.Advance(3)
	r.Flush()
	add(4, 4)
	r.Advance(5)
	r.Flush()
	add(6, 6+maxRun)
	r.Flush()
	r.Flush()
	r.Advance(400)
	missed := make([]broker.Entry, maxRun+1)
	for i := range missed {
		missed[i].Seq = uint64(500 + i)
	}
	r.Missed(missed, 900)
	r.Missed(nil, 901)
	r.Flush()
	want := calls{"1 to 2", "w3", "4 to 4", "w5", "6 to 261", "262 to 262", "500 to 755", "756 to 756", "w900", "w901"}
	if !slices.Equal(c, want) {
		t.Errorf("%q, want %q", c, want)
	}
}
