//go:build linux

package main

import (
	"bytes"
	"encoding/xml"
	"io"
	"testing"
	"time"

	_ "github.com/caddy-broadcast/caddy-broadcast"
	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
)

// growing returns samples in which a figure of each kind grows by a share of its first value until the end.
func growing(share float64) (samples []sample) {
	const n = 100
	for i := range n {
		at := func(v float64) int64 { return int64(v * (1 + share*float64(i)/n)) }
		samples = append(samples, sample{
			at: time.Duration(i+1) * time.Minute, resident: at(1 << 30), heap: at(1 << 29), goroutines: at(1000), descriptors: at(1000),
		})
	}
	return samples
}

func TestJudge(t *testing.T) {
	for _, c := range []struct {
		name  string
		share float64
		flat  bool
	}{
		{"flat", 0, true},
		{"noise", 0.1, true},
		{"a leak", 0.5, false},
		{"less", -0.5, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			samples := growing(c.share)
			v := judge(samples, samples[0], samples[0])
			if len(v) != len(figures) {
				t.Fatalf("%d figures", len(v))
			}
			for _, r := range v {
				if r.flat != c.flat {
					t.Errorf("%s from %.0f to %.0f is flat: %t", r.name, r.second, r.last, r.flat)
				}
			}
			if (v.err() == nil) != c.flat {
				t.Errorf("the error is %v", v.err())
			}
		})
	}
}

// TestGivenBack: what is still there when the clients have left is a leak too.
func TestGivenBack(t *testing.T) {
	samples := growing(0)
	after := samples[0]
	after.goroutines += slackGoroutines + 1
	if judge(samples, samples[0], after).err() == nil {
		t.Error("goroutines that were left are no error")
	}
}

func TestPlot(t *testing.T) {
	for _, samples := range [][]sample{nil, growing(1)[:1], growing(1)} {
		d := xml.NewDecoder(bytes.NewReader(plot(samples)))
		for {
			if _, err := d.Token(); err == io.EOF {
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestConfig(t *testing.T) {
	for generation := range 5 {
		if _, err := caddytest.Adapt(config(generation)); err != nil {
			t.Errorf("generation %d: %v", generation, err)
		}
	}
}
