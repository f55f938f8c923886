// Command browser measures what a stream of updates costs a page: with one DOM update per message, as a naive page does it,
// and with one per frame, as the client does it.
//
//	go run ./bench/browser
package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/chromedp/cdproto/browser"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/performance"
	"github.com/chromedp/chromedp"

	_ "github.com/caddy-broadcast/caddy-broadcast"
	"github.com/caddy-broadcast/caddy-broadcast/internal/active"
	"github.com/caddy-broadcast/caddy-broadcast/internal/caddytest"
	"github.com/caddy-broadcast/caddy-broadcast/internal/chromium"
	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
)

//go:embed page.html
var page []byte

// rows is how many rows the table in page.html has. As many as a page of prices may have, and enough for a layout to cost
// something.
const rows = 300

// run is one way to update the page, at one rate and one CPU throttling. A rate below the screen's 60 frames a second would
// show no difference: hardly two messages would share a frame.
type run struct {
	ours     bool
	rate     int
	throttle float64
}

// figures are the results of a run. Rates are per second. The tail of presses is p98 and not p99, because a run has about 35
// of them: anything higher would be the maximum.
type figures struct {
	messages, layouts, styles, busy, frames float64 // busy in milliseconds
	lateHalf, lateMost                      float64 // milliseconds: p50 and p95
	pressHalf, pressMost                    float64 // milliseconds: p50 and p98
	presses                                 int
	missing                                 int // rows that do not show their last value 20 s after the end
}

// main measures the runs one after the other, on one browser. Each naive run is followed by ours at the same rate, so that
// both see the same machine.
func main() {
	rates := flag.String("rates", "100,500,1000", "messages a second")
	seconds := flag.Float64("seconds", 8, "length of a run")
	quick := flag.Bool("quick", false, "runs of a second at the lowest rate, and nothing is written")
	docs := flag.String("docs", "docs", "folder of browser.md")
	flag.Parse()
	log.SetFlags(0)

	var runs []run
	for s := range strings.SplitSeq(*rates, ",") {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			log.Fatalf("-rates: %q is not a positive whole number", s)
		}
		// 4 stands for a phone, as in the performance tools of browsers.
		for _, throttle := range []float64{1, 4} {
			runs = append(runs, run{false, n, throttle}, run{true, n, throttle})
		}
		if *quick {
			*seconds = 1
			break
		}
	}
	b, err := newBench()
	if err != nil {
		log.Fatal(err)
	}
	defer b.close()
	var table []row
	for _, r := range runs {
		f, err := b.measure(r, time.Duration(*seconds*float64(time.Second)))
		if err != nil {
			log.Printf("%+v: %v", r, err)
			b.close()
			os.Exit(1)
		}
		table = append(table, row{r, f})
		fmt.Println(table[len(table)-1])
	}
	if !*quick {
		if err := b.write(*docs, table, *seconds); err != nil {
			log.Print(err)
		}
	}
}

// bench holds a Caddy and a browser. The Caddy runs in this process, so messages are published to its hub directly, and HTTP
// does not limit their rate.
type bench struct {
	url string
	hub *hub.Hub
	ctx context.Context
	// Called last first.
	closes []func()
}

// newBench starts both. On an error it ends what it has started. coalesce has the server send what comes within 10 ms together.
// Without it each message would wake the browser for itself, in both ways to update.
func newBench() (_ *bench, err error) {
	b := new(bench)
	defer func() {
		if err != nil {
			b.close()
		}
	}()
	dir, err := os.MkdirTemp("", "browser")
	if err != nil {
		return nil, err
	}
	b.closes = append(b.closes, func() { os.RemoveAll(dir) })
	// Caddy keeps its files there, and not in the home directory.
	os.Setenv("XDG_DATA_HOME", dir)
	os.Setenv("XDG_CONFIG_HOME", dir)
	if err := os.WriteFile(filepath.Join(dir, "index.html"), page, 0o600); err != nil {
		return nil, err
	}
	// The port is free when Caddy takes it, unless another process is faster. This is a benchmark, and would fail at once.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	addr := l.Addr().String()
	l.Close()
	err = caddytest.Load(fmt.Sprintf(`{
		admin off
		persist_config off
		log {
			level ERROR
		}
		broadcast {
			coalesce 10ms
		}
	}
	http://%s {
		broadcast /ws
		root %s
		file_server
	}`, addr, dir))
	if err != nil {
		return nil, err
	}
	b.closes = append(b.closes, func() { caddy.Stop() })
	if b.hub, err = active.Hub(); err != nil {
		return nil, err
	}
	b.url = "http://" + addr + "/"

	options, err := chromium.Options(filepath.Join(dir, "browser"))
	if err != nil {
		return nil, err
	}
	allocator, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	b.closes = append(b.closes, cancel)
	b.ctx, cancel = chromedp.NewContext(allocator)
	ctx := b.ctx
	b.closes = append(b.closes, func() { chromedp.Cancel(ctx); cancel() })
	return b, chromedp.Do(ctx) // starts the browser, so that later contexts are tabs of it
}

// close ends the browser before Caddy, and removes the folder of both when neither uses it.
func (b *bench) close() {
	for _, f := range slices.Backward(b.closes) {
		f()
	}
	b.closes = nil
}

// warmUp is how long a run lasts before it is measured. The browser compiles and optimizes the page's code meanwhile.
const warmUp = 2 * time.Second

// result is what the page counted. It is the variable result in page.html. Last has the last value that each row shows, and
// nil for a row that got none.
type result struct {
	Open             bool
	Messages, Frames int
	Late, Presses    []float64
	Last             []*float64
}

// measure runs the page in a tab of its own, so that what one run has left in memory is gone in the next.
func (b *bench) measure(r run, length time.Duration) (f figures, err error) {
	ctx, cancel := chromedp.NewContext(b.ctx)
	defer cancel()
	if err := b.open(ctx, r); err != nil {
		return f, err
	}
	publishing, stop := context.WithCancel(ctx)
	defer stop()
	published := make(chan map[int]float64, 1)
	go func() { published <- b.publish(publishing, r.rate) }()
	time.Sleep(min(warmUp, length))
	if err := chromedp.Do(ctx, chromedp.Evaluate[chromedp.Void]("Object.assign(result, { messages: 0, frames: 0, late: [], presses: [] }); undefined")); err != nil {
		return f, err
	}
	// The counters and the page's own are reset one after the other, so they begin a few milliseconds apart.
	before, err := metrics(ctx)
	if err != nil {
		return f, err
	}
	took, err := press(ctx, length)
	if err != nil {
		return f, err
	}
	// Before stop, so that the end of publishing is not in the figures.
	after, err := metrics(ctx)
	stop()
	if err != nil {
		return f, err
	}
	got, err := chromedp.Run(ctx, chromedp.Evaluate[result]("result"))
	if err != nil {
		return f, err
	}
	f = got.figures(before, after, took)
	f.missing, err = missing(ctx, <-published)
	return f, err
}

// open opens the page, and waits until it is connected.
func (b *bench) open(ctx context.Context, r run) error {
	name := "#naive"
	if r.ours {
		name = "#ours"
	}
	err := chromedp.Do(ctx,
		chromedp.EmulateViewport(1200, 800),
		chromedp.Navigate(b.url+name),
		chromedp.Poll[chromedp.Void]("result.open", chromedp.WithPollingTimeout(20*time.Second)),
	)
	if err != nil {
		return err
	}
	// threadTicks: CPU time of the main thread, which other processes of the machine do not change as they change
	// wall time.
	if _, err := chromedp.Call(ctx, performance.Enable, performance.EnableParams{TimeDomain: "threadTicks"}); err != nil {
		return err
	}
	_, err = chromedp.Call(ctx, emulation.SetCPUThrottlingRate, emulation.SetCPUThrottlingRateParams{Rate: r.throttle})
	return err
}

// press presses the page's button again and again, and returns how many seconds that took. The delay until the page reacts is
// what a user notices of a busy main thread. It presses about four times a second and not more, because each press changes
// the page too.
func press(ctx context.Context, length time.Duration) (seconds float64, err error) {
	begin := time.Now()
	for n := 0; time.Since(begin) < length; n++ {
		if err := chromedp.Do(ctx, chromedp.MouseClickXY(30, 18)); err != nil {
			return 0, err
		}
		time.Sleep(time.Until(begin.Add(time.Duration(n+1)*220*time.Millisecond + time.Duration(rand.IntN(30))*time.Millisecond))) // random, so that presses are not in step with frames
	}
	return time.Since(begin).Seconds(), nil
}

// figures returns the figures of a run that took this many seconds, between these metrics of the browser. TaskDuration is in
// seconds of the main thread, since threadTicks is set.
func (got result) figures(before, after map[string]float64, took float64) figures {
	slices.Sort(got.Late)
	slices.Sort(got.Presses)
	rate := func(name string) float64 { return (after[name] - before[name]) / took }
	return figures{
		messages: float64(got.Messages) / took, frames: float64(got.Frames) / took,
		layouts: rate("LayoutCount"), styles: rate("RecalcStyleCount"), busy: 1000 * rate("TaskDuration"),
		lateHalf: share(got.Late, .5), lateMost: share(got.Late, .95),
		pressHalf: share(got.Presses, .5), pressMost: share(got.Presses, .98), presses: len(got.Presses),
	}
}

// missing waits for up to 20 s until each row shows its last price, and returns how many rows still do not. A page that has
// too much to do shows old values for long. That is the delay which a mean of the lag hides, as messages that have not come
// yet are not in it.
func missing(ctx context.Context, last map[int]float64) (n int, err error) {
	want := make([]*float64, rows)
	for row, price := range last {
		want[row] = &price
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		got, err := chromedp.Run(ctx, chromedp.Evaluate[result]("result"))
		if err != nil {
			return n, err
		}
		n = 0
		for i, price := range want {
			// A row that no message was for keeps its 0, and is not compared.
			if price != nil && (i >= len(got.Last) || got.Last[i] == nil || *got.Last[i] != *price) {
				n++
			}
		}
		if n == 0 || time.Now().After(deadline) {
			return n, nil
		}
	}
}

// publish publishes at a rate until the end, and returns the last price of each row. It is not told whether the page has got
// anything: a real source of prices does not wait for a page either.
func (b *bench) publish(ctx context.Context, rate int) map[int]float64 {
	last := make(map[int]float64)
	begin := time.Now()
	for n := 0; ; n++ {
		// Each message is due at a time of its own, so that a late one does not lower the rate.
		wait := time.NewTimer(time.Until(begin.Add(time.Duration(n) * time.Second / time.Duration(rate))))
		select {
		case <-wait.C:
		case <-ctx.Done():
			return last
		}
		// At random, so that some rows get two prices within a frame, of which the client needs to show one.
		row := rand.IntN(rows)
		last[row] = float64(rand.IntN(100_000)) / 100
		data, _ := json.Marshal(map[string]any{"row": row, "price": last[row], "at": float64(time.Now().UnixMicro()) / 1000})
		if err := b.hub.Publish(&hub.Message{Channel: "default", Data: data, Kind: hub.JSON, Source: "bench"}); err != nil {
			log.Print("publishing: ", err)
		}
	}
}

// metrics returns the counters of the browser's own engine. The page could not count its layouts itself. They are of the
// page's process: other tabs and the browser itself are not in them.
func metrics(ctx context.Context) (map[string]float64, error) {
	r, err := chromedp.Call(ctx, performance.GetMetrics, cdp.Empty{})
	if err != nil {
		return nil, err
	}
	m := make(map[string]float64)
	for _, v := range r.Metrics {
		m[v.Name] = v.Value
	}
	if _, ok := m["LayoutCount"]; !ok {
		return nil, errors.New("the browser does not report how often it lays out")
	}
	return m, nil
}

// share returns the value that a share q of all does not exceed.
func share(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

// version returns the browser's name and version.
func (b *bench) version() string {
	v, err := chromedp.CallBrowser(b.ctx, browser.GetVersion, cdp.Empty{})
	if err != nil {
		return "a browser"
	}
	return "Chromium " + v.Product[strings.Index(v.Product, "/")+1:]
}
