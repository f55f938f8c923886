package option

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// options has one of each kind.
type options struct {
	Word       string
	Words      []string
	Flag       bool
	OnOff      *bool
	Int        int
	Bits       int
	Wait, Stay caddy.Duration
	Size       int64
}

func parse(block string) (o options, err error) {
	d := caddyfile.NewTestDispenser(block)
	d.Next()
	err = Block(d, map[string]Parser{
		"word":  Word(&o.Word),
		"words": Words(&o.Words),
		"flag":  Flag(&o.Flag),
		"onoff": OnOff(&o.OnOff),
		"int":   Int(&o.Int),
		"bits":  IntBetween(&o.Bits, 1, 128),
		"wait":  DurationOrZero(&o.Wait),
		"stay":  Duration(&o.Stay),
		"size":  Size(&o.Size),
	})
	return o, err
}

func TestBlock(t *testing.T) {
	off := false
	for _, c := range []struct {
		block string
		want  options
	}{
		{"name", options{}},
		{"name {\n}", options{}},
		{"name {\nword \"a b\"\nwords c d\nflag\nonoff off\nint -1\n}",
			options{Word: "a b", Words: []string{"c", "d"}, Flag: true, OnOff: &off, Int: -1}},
		{"name {\nbits 128\nwait 0\nstay 1.5s\nsize 64KiB\n}",
			options{Bits: 128, Stay: caddy.Duration(1500 * time.Millisecond), Size: 64 << 10}},
		{"name {\nstay 1d\nsize 12\n}", options{Stay: caddy.Duration(24 * time.Hour), Size: 12}},
	} {
		t.Run(c.block, func(t *testing.T) {
			if got, err := parse(c.block); err != nil || !reflect.DeepEqual(got, c.want) {
				t.Errorf("got %+v, %v; want %+v", got, err, c.want)
			}
		})
	}
}

// TestBlockErrors: an error says what is wrong, and on which line.
func TestBlockErrors(t *testing.T) {
	for block, want := range map[string]string{
		"name {\nwrod a\n}":         "unrecognized option wrod, at Testfile:2",
		"name {\nint 1\nint 2\n}":   "the option int is given twice, first on line 2, at Testfile:3",
		"name {\nword\n}":           "wrong argument count or unexpected line ending after 'word', at Testfile:2",
		"name {\nword a b\n}":       "wrong argument count",
		"name {\nwords\n}":          "wrong argument count",
		"name {\nflag yes\n}":       "wrong argument count",
		"name {\nonoff yes\n}":      `onoff is "yes", must be on or off, at Testfile:2`,
		"name {\nint many\n}":       `int is "many", must be a whole number, at Testfile:2`,
		"name {\nbits 0\n}":         "bits is 0, must be 1 to 128, at Testfile:2",
		"name {\nbits 129\n}":       "bits is 129, must be 1 to 128, at Testfile:2",
		"name {\nwait soon\n}":      `wait is "soon", must be a duration such as 10s`,
		"name {\nstay 0\n}":         "stay must be greater than 0, at Testfile:2",
		"name {\nsize big\n}":       `size: "big" is not a valid size (for example 64KiB)`,
		"name {\nsize 0\n}":         "size must be greater than 0, at Testfile:2",
		"name {\nsize 15.9EiB\n}":   "size: 15.9EiB is too large, at Testfile:2",
		"name {\nword a {\nb\n}\n}": "", // what it says is Caddy's
	} {
		t.Run(block, func(t *testing.T) {
			if _, err := parse(block); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %s", err, want)
			}
		})
	}
}

func TestAt(t *testing.T) {
	token := caddyfile.Token{File: "Caddyfile", Line: 7, Text: "name"}
	if err := At(token, nil); err != nil {
		t.Error(err)
	}
	_, wrong := ParseInt("int", "many")
	want := `name: int is "many", must be a whole number, at Caddyfile:7`
	if err := At(token, wrong); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
