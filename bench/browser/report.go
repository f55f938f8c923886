package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-broadcast/caddy-broadcast/bench/docs"
)

// row is one line of the table. They are kept in the order of the runs, so that the two ways to update are next to each
// other.
type row struct {
	run
	figures
}

// name is how the report calls the way to update.
func (r run) name() string {
	if r.ours {
		return "once per frame"
	}
	return "each message"
}

// String describes a run for the terminal, while the others go on.
func (r row) String() string {
	return fmt.Sprintf("%-12s %5d/s %gx: %5.0f layouts/s %4.0f ms/s %3.0f frames/s, late %.0f (%.0f) ms, press %.0f (%.0f) ms, %d missing",
		r.name(), r.rate, r.throttle, r.layouts, r.busy, r.frames, r.lateHalf, r.lateMost, r.pressHalf, r.pressMost, r.missing)
}

// write replaces the figures in dir/browser.md, and writes the plot next to it.
func (b *bench) write(dir string, table []row, seconds float64) error {
	if err := docs.Write(filepath.Join(dir, "browser.md"), "go run ./bench/browser", b.report(table, seconds)); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "browser.svg"), []byte(plot(table)), 0o666)
}

// report returns the part of browser.md between its marks. Each row is of a single run, so the last digits are noise.
func (b *bench) report(table []row, seconds float64) string {
	var out strings.Builder
	version, _ := caddy.Version()
	// caddy.Version looks for Caddy in the build information of the program, which some builds lack.
	if version == "unknown" {
		version = caddyVersion()
	}
	fmt.Fprintf(&out, "Measured on %s: %s, headless, Caddy %s, %s, %d cores; runs of %g s.\n\n![Layouts and main-thread time](browser.svg)\n\n",
		time.Now().Format("2006-01-02"), b.version(), version, runtime.Version(), runtime.NumCPU(), seconds)
	out.WriteString("| messages/s | processor | update | layouts/s | main thread, ms/s | frames/s | lag ms, p50 / p95 | press ms, p50 / p98 | stale rows after 20 s |\n")
	out.WriteString("| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n")
	for _, r := range table {
		speed := "unthrottled"
		if r.throttle > 1 {
			speed = fmt.Sprintf("%gx slower", r.throttle)
		}
		fmt.Fprintf(&out, "| %d | %s | %s | %.0f | %.0f | %.0f | %.1f / %.1f | %.0f / %.0f | %d |\n", r.rate, speed, r.name(), r.layouts, r.busy, r.frames,
			r.lateHalf, r.lateMost, r.pressHalf, r.pressMost, r.missing)
	}
	out.WriteString("\n| goal, at 500 messages/s | at most | reached | |\n| --- | --- | --- | --- |\n")
	for _, g := range goals(table) {
		fmt.Fprintf(&out, "| %s | %g | %.2f | %s |\n", g.what, g.most, g.reached, docs.Met(g.reached, g.most))
	}
	return out.String()
}

// caddyVersion asks Go for the version that go.mod has.
func caddyVersion() string {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Version}}", "github.com/caddyserver/caddy/v2").Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}

// goal is an upper limit for a figure of ours.
type goal struct {
	what          string
	most, reached float64
}

// goals returns the goals if the rate was measured that they are for. 62 layouts are one in each of 60 frames, and two more.
// 100 ms is what people take for at once.
func goals(table []row) (list []goal) {
	find := func(ours bool, throttle float64) *figures {
		for i, r := range table {
			if r.run == (run{ours, 500, throttle}) {
				return &table[i].figures
			}
		}
		return nil
	}
	ours, naive, slow := find(true, 1), find(false, 1), find(true, 4)
	if ours == nil || naive == nil || slow == nil {
		return nil
	}
	return []goal{
		{"layouts/s", 62, ours.layouts},
		{"main thread, relative to each message", .35, ours.busy / naive.busy},
		{"press, p98, ms", 100, ours.pressMost},
		{"press, p98, ms, 4x slower", 100, slow.pressMost},
		{"lag, p95, ms", 60, ours.lateMost},
	}
}

// plot draws layouts and main-thread time by rate, without throttling. Throttled runs are in the table only.
func plot(table []row) string {
	const width, height, bar, left, top = 760, 260, 22, 40, 50
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="system-ui, sans-serif" font-size="12">`, width, height)
	b.WriteString(`<style>text{fill:#57606a}.a{fill:#c9ced6}.b{fill:#1f6feb}.t{font-size:13px;font-weight:600}@media(prefers-color-scheme:dark){text{fill:#9aa4af}.a{fill:#4a525c}.b{fill:#6ea8ff}}</style>`)
	panels := []struct {
		title string
		value func(figures) float64
	}{
		{"layouts/s", func(f figures) float64 { return f.layouts }},
		{"main thread, ms/s", func(f figures) float64 { return f.busy }},
	}
	for i, p := range panels {
		x0 := left + i*width/2
		fmt.Fprintf(&b, `<text class="t" x="%d" y="24">%s</text>`, x0, p.title)
		most := 1.0
		for _, r := range table {
			if r.throttle == 1 {
				most = max(most, p.value(r.figures))
			}
		}
		x := x0
		for _, r := range table {
			if r.throttle != 1 {
				continue
			}
			v := p.value(r.figures)
			h := v / most * (height - top - 50)
			y := float64(height-40) - h
			class := "a"
			if r.ours {
				class = "b"
			}
			fmt.Fprintf(&b, `<rect class="%s" x="%d" y="%.1f" width="%d" height="%.1f" rx="2"/>`, class, x, y, 2*bar-4, h)
			fmt.Fprintf(&b, `<text x="%d" y="%.1f" text-anchor="middle">%.0f</text>`, x+bar-2, y-5, v)
			if r.ours {
				fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="middle">%d/s</text>`, x-2, height-22, r.rate)
				x += bar
			}
			x += 2 * bar
		}
	}
	fmt.Fprintf(&b, `<rect class="a" x="%d" y="%d" width="10" height="10"/><text x="%d" y="%d">each message</text>`, left, height-12, left+16, height-3)
	fmt.Fprintf(&b, `<rect class="b" x="%d" y="%d" width="10" height="10"/><text x="%d" y="%d">once per frame (hub.frame)</text>`, left+120, height-12, left+136, height-3)
	b.WriteString("</svg>\n")
	return b.String()
}
