package main

import (
	"errors"
	"os"
	"testing"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/chromium"
)

// TestMeasure: the measurement is meaningful, whatever the speed of the machine.
func TestMeasure(t *testing.T) {
	b, err := newBench()
	if errors.Is(err, chromium.ErrNone) && os.Getenv("CI") == "" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer b.close()
	naive, err := b.measure(run{false, 200, 1}, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	ours, err := b.measure(run{true, 200, 1}, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(row{run{false, 200, 1}, naive}, row{run{true, 200, 1}, ours})
	if naive.missing+ours.missing > 0 {
		t.Errorf("rows are wrong at the end: %d, and once per frame %d", naive.missing, ours.missing)
	}
	// A busy machine leaves out frames and layouts, but even then there are more layouts than frames.
	if naive.layouts < min(naive.messages/2, naive.frames*3/2) || naive.presses == 0 {
		t.Errorf("each message: %+v", naive)
	}
	if ours.layouts > ours.frames+10 || ours.presses == 0 || ours.messages == 0 {
		t.Errorf("once per frame: %+v", ours)
	}
}
