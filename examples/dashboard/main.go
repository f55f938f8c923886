// Command dashboard runs Caddy with a page of 300 prices, and publishes a thousand changes a second:
//
//	go run ./examples/dashboard
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"os"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	_ "github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	_ "github.com/caddyserver/caddy/v2/modules/standard"

	_ "github.com/caddy-broadcast/caddy-broadcast"
)

const rows = 300

func main() {
	rate := flag.Int("rate", 1000, "updates per second")
	admin := flag.String("admin", "localhost:2019", "address of Caddy's admin API")
	flag.Parse()
	file, err := os.ReadFile("examples/dashboard/Caddyfile")
	if err != nil {
		log.Fatal(err)
	}
	config, _, err := caddyconfig.GetAdapter("caddyfile").Adapt(file, map[string]any{"filename": "Caddyfile"})
	if err != nil {
		log.Fatal(err)
	}
	if err := caddy.Load(config, true); err != nil {
		log.Fatal(err)
	}
	fmt.Println("open http://localhost:8080")
	log.Fatal(Feed("http://"+*admin+"/broadcast/publish", *rate))
}

// Feed publishes the given number of updates per second, a few per request, one per line.
func Feed(url string, rate int) error {
	prices := make([]float64, rows)
	for i := range prices {
		prices[i] = 10 + 990*rand.Float64()
	}
	begin, sent := time.Now(), 0
	for range time.Tick(10 * time.Millisecond) {
		var lines bytes.Buffer
		for due := int(time.Since(begin).Seconds() * float64(rate)); sent < due; sent++ {
			row := rand.IntN(rows)
			prices[row] *= 1 + (rand.Float64()-.5)/50
			price := json.RawMessage(fmt.Sprintf("%.2f", prices[row]))
			json.NewEncoder(&lines).Encode(map[string]any{"data": map[string]any{"row": row, "price": price}})
		}
		if lines.Len() == 0 {
			continue
		}
		resp, err := http.Post(url, "application/x-ndjson", &lines)
		if err != nil {
			return err
		}
		io.Copy(io.Discard, resp.Body) // so that the connection is used again
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("publishing: %s", resp.Status)
		}
	}
	return nil
}
