//go:build linux

package main

import (
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/bench/docs"
)

// write replaces the figures in dir/performance.md, and writes the plot next to it. The text around the figures is kept: see
// docs.Write.
func (t *table) write(dir string, rounds int, seconds float64) error {
	path := filepath.Join(dir, "performance.md")
	if err := docs.Write(path, "go run ./bench", t.figures(rounds, seconds)); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "performance.svg"), []byte(t.plot()), 0o644)
}

// A peer that was not measured has no row, and a scenario without rows is left out.
func (t *table) figures(rounds int, seconds float64) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Measured on %s: %s. Each figure is the median of %d runs of %g s.\n", time.Now().Format("2006-01-02"), machine(), rounds, seconds)
	fmt.Fprintf(&b, "%s.\n\n![CPU per delivery and memory per connection](performance.svg)\n\n", strings.Join(t.versions(), ", "))

	b.WriteString("| goal: a ratio within one run, unless a unit is given | at most | reached | |\n| --- | --- | --- | --- |\n")
	for _, g := range goals {
		if v, ok := t.reached(g); ok {
			fmt.Fprintf(&b, "| %s | %.2f | %.2f | %s |\n", g.what, g.most, v, docs.Met(v, g.most))
		}
	}
	for _, sc := range scenarios {
		var rows strings.Builder
		for _, p := range t.peers {
			r, ok := t.get(sc.name, p.name)
			switch {
			case !ok:
			case sc.idle:
				fmt.Fprintf(&rows, "| %s | %.1f |\n", p.name, r.memory)
			default:
				fmt.Fprintf(&rows, "| %s | %.0f | %s | %s | %s | %s | %.1f | %s |\n", p.name, r.perSecond, micros(r.cpu), micros(r.cpuMessage),
					short(r.p50), short(r.p99), r.memory, r.faults())
			}
		}
		if rows.Len() == 0 {
			continue
		}
		fmt.Fprintf(&b, "\n### %s\n\n%s.\n\n", sc.name, sc.about)
		if sc.idle {
			b.WriteString("| | KiB per connection |\n| --- | ---: |\n")
		} else {
			b.WriteString("| | deliveries/s | CPU per delivery | CPU per message | p50 | p99 | KiB per connection | missing |\n| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n")
		}
		b.WriteString(rows.String())
		if r, ok := t.get(sc.name, ours); ok && r.first > 0 {
			b.WriteString("\n| | time to connect the first WebSocket | the tenth |\n| --- | ---: | ---: |\n")
			for _, p := range t.peers {
				if r, ok := t.get(sc.name, p.name); ok && r.first > 0 {
					fmt.Fprintf(&b, "| %s | %s | %s |\n", p.name, short(r.first), short(r.tenth))
				}
			}
		}
	}
	return b.String()
}

// faults returns the column missing, in which the other faults are only named when there are some.
func (r result) faults() string {
	s := fmt.Sprint(r.missing)
	if r.extra > 0 {
		s += fmt.Sprintf(", %d extra", r.extra)
	}
	if r.closed > 0 {
		s += fmt.Sprintf(", %d disconnected", r.closed)
	}
	return s
}

// machine describes where the figures were taken. It says that the generator shares the cores, because throughput and latency
// are worse by that. CPU time hardly is.
func machine() string {
	model := "unknown CPU"
	info, _ := os.ReadFile("/proc/cpuinfo")
	if m := regexp.MustCompile(`model name\s*: (.*)`).FindSubmatch(info); m != nil {
		model = string(m[1])
	}
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	return fmt.Sprintf("%d cores of %s, Linux %s; server and load generator share them", runtime.NumCPU(), model, strings.TrimSpace(string(kernel)))
}

// versions returns the names and versions of what was measured. A peer's version comes from the tool that has installed it,
// because a number written here would be wrong after the next update.
func (t *table) versions() []string {
	say := func(name string, args ...string) string {
		out, _ := exec.Command(name, args...).CombinedOutput()
		line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
		return line
	}
	module := func(path string) string { return say("go", "list", "-m", "-f", "{{.Version}}", path) }
	vs := []string{runtime.Version(), "Caddy " + module("github.com/caddyserver/caddy/v2"), "gorilla/websocket " + module("github.com/gorilla/websocket")}
	for _, p := range t.peers {
		switch p.name {
		case "nchan":
			vs = append(vs, "nginx with libnginx-mod-nchan "+say("dpkg-query", "-W", "-f", "${Version}", "libnginx-mod-nchan"))
		case "ws":
			vs = append(vs, "Node "+say("node", "--version"), "ws "+say("node", "-p", "require('"+nodeDir()+"/node_modules/ws/package.json').version"))
		case "Socket.IO":
			vs = append(vs, "Socket.IO "+say("node", "-p", "require('"+nodeDir()+"/node_modules/socket.io/package.json').version"))
		case "Flask-SocketIO":
			vs = append(vs, "python3-flask-socketio "+say("dpkg-query", "-W", "-f", "${Version}", "python3-flask-socketio"))
		}
	}
	return vs
}

// plot draws bars: for each peer the CPU per delivery in three scenarios, and the memory per connection. Each panel has its
// own scale, of its largest bar. It is drawn here, because a plotting library would be a dependency of the whole module.
func (t *table) plot() string {
	panels := []struct {
		title, scenario string
		figure          func(result) float64
		unit            string
	}{
		{"paced: CPU per delivery", "paced", cpuOf, "µs"},
		{"burst: CPU per delivery", "burst", cpuOf, "µs"},
		{"wide: CPU per delivery", "wide", cpuOf, "µs"},
		{"idle: memory per connection", "idle", memoryOf, "KiB"},
	}
	const left, bar, gap, width, panelHeight = 120, 16, 6, 300, 46
	height := 0
	var body strings.Builder
	column := 0
	for _, panel := range panels {
		x, y := column%2*(left+width+80), column/2*(len(t.peers)*(bar+gap)+panelHeight)
		column++
		most := 0.0
		for _, p := range t.peers {
			if r, ok := t.get(panel.scenario, p.name); ok {
				most = max(most, panel.figure(r))
			}
		}
		fmt.Fprintf(&body, `<text class="title" x="%d" y="%d">%s</text>`+"\n", x+left, y+20, panel.title)
		row := y + 32
		for _, p := range t.peers {
			r, ok := t.get(panel.scenario, p.name)
			if !ok {
				continue
			}
			v := panel.figure(r)
			label := fmt.Sprintf("%.1f %s", v, panel.unit)
			if panel.unit == "µs" {
				label = micros(time.Duration(v))
			}
			class := "peer"
			if p.ours() {
				class = "ours"
			}
			fmt.Fprintf(&body, `<text class="name" x="%d" y="%d">%s</text><rect class="%s" x="%d" y="%d" width="%.1f" height="%d"/><text x="%.1f" y="%d">%s</text>`+"\n",
				x+left-8, row+12, p.name, class, x+left, row, math.Max(1, v/most*(width-70)), bar, float64(x+left)+v/most*(width-70)+6, row+12, label)
			row += bar + gap
		}
		height = max(height, row+10)
	}
	total := 2*(left+width) + 80
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="system-ui, sans-serif" font-size="12">
<style>text{fill:#333}.title{font-weight:600;font-size:14px}.name{text-anchor:end}.ours{fill:#1f88c0}.peer{fill:#bbb}@media(prefers-color-scheme:dark){text{fill:#ddd}.peer{fill:#666}}</style>
%s</svg>
`, total, height, body.String())
}
