package browser

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"maps"
	"math"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// says are what is published for the picture, in turn.
var says = []struct {
	channel, event, contentType string
	data                        func(int) string
}{
	{channel: "prices", event: "tick", contentType: "application/json", data: func(n int) string { return fmt.Sprintf(`{"symbol":"ACME","price":%d.%02d}`, n, 97*n%100) }},
	{channel: "orders", event: "update", contentType: "application/json", data: func(n int) string { return fmt.Sprintf(`{"order":%d,"state":"shipped"}`, 4000+n) }},
	{channel: "prices", event: "tick", contentType: "application/json", data: func(n int) string { return fmt.Sprintf(`{"symbol":"GLOBEX","price":%d.5}`, 3*n) }},
	{channel: "chat", event: "", contentType: "text/plain", data: func(n int) string { return fmt.Sprintf("ann: has anyone seen build %d?", n) }},
	{channel: "prices", event: "tick", contentType: "application/json", data: func(n int) string { return fmt.Sprintf(`{"symbol":"INITECH","price":%d.25}`, n/2) }},
	{channel: "chat", event: "", contentType: "text/plain", data: func(int) string { return "ben: yes, and it is <b>green</b>" }},
	{channel: "news", event: "", contentType: "text/plain", data: func(n int) string { return fmt.Sprintf("Release 1.%d is out", n) }},
}

// TestUIScreenshot takes the picture of docs/admin.md.
func TestUIScreenshot(t *testing.T) {
	if os.Getenv("SCREENSHOTS") != "1" {
		t.Skip("SCREENSHOTS=1 writes docs/inspector.png")
	}
	p := inspect(t, chromedp.Flag("hide-scrollbars", true))
	p.run(chromedp.EmulateViewport(1200, 800))
	for i, user := range []string{"ann", "ben", "carla", "", "dmitri", "emi", "fatou", "", "goran", "hana"} {
		p.connect([]string{"prices", "chat", "news", "orders"}[i%4], user)
	}
	p.open()
	defer p.publishSteadily()()
	for n := 10; n <= 120; n += 10 { // one a second, and fewer while the machine is busy
		p.wait(fmt.Sprintf(`document.querySelector("#totals .curve").getAttribute("d").split("L").length >= %d`, n))
	}
	p.fill("#channel", "prices")
	p.fill("#event", "tick")
	p.run(chromedp.Click(chromedp.CSS(`[name=kind][value=json]`)))
	p.fill("#data", `{"symbol": "ACME", "price": 43.5}`)
	p.run(chromedp.Click(chromedp.CSS("#publish .main")))
	p.wait(`document.querySelector("#published").textContent != ""`)
	p.run(chromedp.Evaluate[chromedp.Void](`document.activeElement.blur(); undefined`))
	for _, scheme := range []string{"light", "dark"} {
		p.prefer(scheme)
		path := filepath.Join("..", "..", "docs", "inspector.png")
		if scheme == "dark" {
			path = filepath.Join(os.TempDir(), "inspector-dark.png")
			t.Log("the dark one is ", path)
		}
		p.capture(path)
	}
	p.noProblems()
}

// publishSteadily publishes at a rate that goes up and down, until stop is called.
func (p *inspector) publishSteadily() (stop func()) {
	ending, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for n := 0; ; n++ {
			select {
			case <-ending:
				return
			default:
			}
			m := says[n%len(says)]
			query := url.Values{"channel": {m.channel}, "event": {m.event}}
			resp, err := http.Post("http://"+p.admin+"/broadcast/publish?"+query.Encode(), m.contentType, strings.NewReader(m.data(40+n%50)))
			if err != nil {
				return
			}
			resp.Body.Close()
			x := float64(n) / 170
			time.Sleep(time.Duration(float64(time.Second) / (24 + 9*math.Sin(x) + 5*math.Sin(3.7*x) + 3*math.Sin(9.1*x))))
		}
	}()
	return func() {
		close(ending)
		<-done
	}
}

// capture writes a picture of the page.
func (p *inspector) capture(path string) {
	p.t.Helper()
	picture, err := chromedp.Run(p.ctx, chromedp.CaptureScreenshot())
	if err != nil {
		p.t.Fatal(err)
	}
	if picture, err = shrink(picture); err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(path, picture, 0o644); err != nil {
		p.t.Fatal(err)
	}
}

// shrink leaves a picture the 256 colors that it has most of. Of colors that are almost the same, as at the edges of letters, it
// takes one, so that something small in a color of its own keeps it.
func shrink(picture []byte) ([]byte, error) {
	m, err := png.Decode(bytes.NewReader(picture))
	if err != nil {
		return nil, err
	}
	counts := make(map[color.Color]int)
	size := m.Bounds()
	for y := range size.Dy() {
		for x := range size.Dx() {
			counts[m.At(x, y)]++
		}
	}
	var colors []color.Color
	taken := make(map[[3]uint32]bool)
	for _, c := range slices.SortedFunc(maps.Keys(counts), func(a, b color.Color) int { return counts[b] - counts[a] }) {
		r, g, b, _ := c.RGBA()
		if like := [3]uint32{r >> 11, g >> 11, b >> 11}; !taken[like] {
			taken[like] = true
			colors = append(colors, c)
		}
	}
	few := image.NewPaletted(size, colors[:min(256, len(colors))])
	draw.Draw(few, size, m, image.Point{}, draw.Src)
	var b bytes.Buffer
	err = (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&b, few)
	return b.Bytes(), err
}
