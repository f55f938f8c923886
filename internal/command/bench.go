package command

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"
	"github.com/spf13/cobra"
	"golang.org/x/time/rate"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
)

// benchCommand returns `caddy broadcast bench`. It speaks plain WebSocket and no subprotocol, so that it can test any
// route, and what is measured is what a browser gets that asks for nothing more.
func benchCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bench <url> [--connections <n>] [--rate <n>] [--duration <time>] [--size <bytes>] [--admin]",
		Short: "Load-tests a route: deliveries and latency over many WebSockets",
		Long: `
Opens WebSockets to a route, publishes messages, and reports how many were
delivered and how late. It runs on one machine, so use it to check a whole
setup, including proxies. For the hub's own limits see docs/performance.md.

Messages are published over another WebSocket or, with --admin, through the
admin API on the channel given by --channel. The exit code is 1 if a message is
missing.

While it runs, a terminal gets a line per second. At the end come the latencies,
as quantiles and as a histogram.

    caddy broadcast bench http://localhost:8080/ws --connections 1000
`,
		Args: cobra.ExactArgs(1),
	}
	cmd.Flags().Int("connections", 100, "Number of WebSockets that subscribe")
	cmd.Flags().Float64("rate", 20, "Messages per second")
	cmd.Flags().Duration("duration", 10*time.Second, "How long to publish")
	// A message has to hold the mark, its number and the time: see bench.
	cmd.Flags().Int("size", 128, "Length of a message in bytes, at least 64")
	cmd.Flags().Bool("admin", false, "Publish through the admin API")
	cmd.Flags().String("channel", "default", "Channel to publish on with --admin")
	cmd.Flags().Bool("insecure", false, "Do not verify the server's certificate")
	addProgress(cmd)
	cmd.RunE = run(bench)
	return cmd
}

// load is one run of the benchmark. It keeps all latencies, 8 bytes each, because exact quantiles are worth more here than
// memory: a run of the default size has 20,000.
type load struct {
	mark        string // prefix of its messages, because others may publish on the channel too
	connections []*websocket.Conn
	expected    atomic.Int64 // deliveries
	arrived     atomic.Int64
	changed     chan struct{}
	ending      atomic.Bool
	opened      atomic.Int64  // connections
	published   atomic.Int64  // messages
	refused     chan struct{} // closed when the server has closed the publisher's connection
	refusal     error         // why, after that

	mu     sync.Mutex
	late   []time.Duration // the latency of each delivery
	closed map[string]int  // connections that ended early, by error
}

// bench runs a benchmark. What is wrong with flags is found before the first connection, since it takes long to open
// thousands.
func bench(cmd *cobra.Command, args []string) error {
	// Errors of these calls are not looked at: they are only about flags that do not exist or have another type.
	connections, _ := cmd.Flags().GetInt("connections")
	perSecond, _ := cmd.Flags().GetFloat64("rate")
	duration, _ := cmd.Flags().GetDuration("duration")
	size, _ := cmd.Flags().GetInt("size")
	byAdmin, _ := cmd.Flags().GetBool("admin")
	insecure, _ := cmd.Flags().GetBool("insecure")
	if connections < 1 || perSecond <= 0 || duration <= 0 || size < 64 {
		return errors.New("--connections must be at least 1, --rate and --duration greater than 0, and --size at least 64")
	}
	u, err := url.Parse(args[0])
	if err != nil || u.Host == "" {
		return fmt.Errorf("%q is not the URL of a route (for example http://localhost:8080/ws)", args[0])
	}
	// https becomes wss as well. Users have the URL of their site at hand.
	u.Scheme = strings.Replace(u.Scheme, "http", "ws", 1)
	dialer := websocket.Dialer{
		// Longer than a busy server takes for thousands of TLS handshakes at once.
		HandshakeTimeout: 30 * time.Second,
		ReadBufferSize:   1 << 10,
		// Subscribers write nothing, so they need no buffer each.
		WriteBufferPool: new(sync.Pool),
		// The check is left out on demand only, for test sites whose certificate is by Caddy's own authority.
		TLSClientConfig: &tls.Config{InsecureSkipVerify: insecure},
	}

	// The mark is random, so that two runs at the same time do not count each other's messages.
	l := &load{mark: rand.Text()[:8], changed: make(chan struct{}, 1), refused: make(chan struct{}), closed: make(map[string]int)}
	defer showProgress(cmd, l.progress(connections))()
	began := time.Now()
	if err := l.connect(dialer, u.String(), connections); err != nil {
		return err
	}
	connected := time.Since(began)
	// Only now: connect has closed its connections if it failed.
	defer l.end()

	// After the subscribers are there, because the route may limit how many connections there are. Then it is this one that
	// fails, which says more than a subscriber that is missing.
	publish, done, err := l.publisher(cmd, dialer, u.String(), byAdmin)
	if err != nil {
		return err
	}
	defer done()
	began = time.Now()
	messages, err := l.publishFor(cmd.Context(), duration, perSecond, size, publish)
	if err != nil {
		return err
	}
	l.drain()
	select {
	case <-l.refused: // which says more than that everything is missing
		return l.refusal
	default:
	}
	return l.report(cmd, messages, connected, time.Since(began))
}

// publishFor publishes messages of a size at a rate, and returns how many.
func (l *load) publishFor(ctx context.Context, duration time.Duration, perSecond float64, size int, publish func(string) error) (messages int, err error) {
	began := time.Now()
	// The burst is 20 ms of messages, so that the rate is reached although sleeps end late, by a millisecond or more.
	limiter := rate.NewLimiter(rate.Limit(perSecond), max(1, int(perSecond/50)))
	// The clock ends the run and not a number of messages, so a server that is too slow for the rate is tested for as long.
	for time.Since(began) < duration {
		if err := limiter.Wait(ctx); err != nil {
			return messages, err
		}
		// The time is in the message itself: publisher and readers are one process and have one clock. The beginning
		// has less than 64 bytes, the least --size.
		text := fmt.Sprintf("%s %d %d ", l.mark, messages, time.Now().UnixNano())
		// Before publishing, because deliveries may arrive before publish returns.
		l.expected.Add(int64(len(l.connections)))
		if err := publish(text + strings.Repeat(".", max(0, size-len(text)))); err != nil {
			return messages, err
		}
		messages++
		l.published.Add(1)
	}
	return messages, nil
}

// connect opens the WebSockets, up to 32 at a time, so that a large run does not overflow the listener's queue.
func (l *load) connect(dialer websocket.Dialer, url string, n int) error {
	l.connections = make([]*websocket.Conn, n)
	var next atomic.Int64
	var dialing sync.WaitGroup
	errs := make(chan error, 1)
	for range min(n, 32) {
		dialing.Go(func() {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				c, err := dial(dialer, url)
				if err != nil {
					// The first error is enough. Others of the up to 32 are most likely the same.
					select {
					case errs <- fmt.Errorf("connection %d: %w", i+1, err):
					default:
					}
					next.Store(int64(n))
					return
				}
				l.connections[i] = c
				l.opened.Add(1)
			}
		})
	}
	// All have to end before the connections are used: each writes places of the slice that are only its own, and nothing
	// else orders that.
	dialing.Wait()
	select {
	case err := <-errs:
		l.end()
		return err
	default:
	}
	// Nothing is published before all are connected, so nobody misses a message by reading only now.
	for _, c := range l.connections {
		go l.read(c)
	}
	return nil
}

// dial opens a WebSocket. The library's own error for a refused handshake has neither the status nor the reason, which tell a
// user whether it was a limit, the origin or the path.
func dial(dialer websocket.Dialer, url string) (*websocket.Conn, error) {
	c, resp, err := dialer.Dial(url, nil)
	if err == nil || resp == nil {
		return c, err
	}
	why := resp.Status
	// The hub's own reason is one line of text. A page of somebody else says nothing here.
	if text, _ := io.ReadAll(resp.Body); strings.HasPrefix(resp.Header.Get("Content-Type"), "text/plain") && len(text) > 0 {
		why += " (" + visible(strings.TrimSpace(string(text))) + ")"
	}
	return nil, fmt.Errorf("the handshake got the response %s; caddy broadcast doctor %s says what to do", why, strings.Replace(url, "ws", "http", 1))
}

// read counts and times what one subscriber receives, in a goroutine of its own, until the connection ends.
func (l *load) read(c *websocket.Conn) {
	for {
		_, data, err := c.ReadMessage()
		if err != nil {
			// Connections that this command closes itself at the end are no finding.
			if !l.ending.Load() {
				l.mu.Lock()
				l.closed[err.Error()]++
				l.mu.Unlock()
			}
			return
		}
		fields := strings.SplitN(string(data), " ", 4)
		if len(fields) < 4 || fields[0] != l.mark {
			continue
		}
		at, err := strconv.ParseInt(fields[2], 10, 64)
		if err != nil {
			continue
		}
		late := time.Since(time.Unix(0, at))
		l.mu.Lock()
		l.late = append(l.late, late)
		l.mu.Unlock()
		l.arrived.Add(1)
		// The channel has room for one value, and drain looks at the counter: one value says as much as many.
		select {
		case l.changed <- struct{}{}:
		default:
		}
	}
}

// publisher returns a function that publishes a text, and one that releases what it uses.
func (l *load) publisher(cmd *cobra.Command, dialer websocket.Dialer, address string, byAdmin bool) (publish func(string) error, done func(), err error) {
	if byAdmin {
		if err := hub.CheckName("--channel", cmd.Flag("channel").Value.String()); err != nil {
			return nil, nil, err
		}
		// For a route that lets clients only subscribe. It also takes the route's own limits for publishers out of the
		// measurement.
		a, err := connect(cmd)
		if err != nil {
			return nil, nil, err
		}
		path := "/publish?channel=" + url.QueryEscape(cmd.Flag("channel").Value.String())
		return func(text string) error {
			// caddycmd makes a connection for each request, so rates of thousands a second are for the other way.
			resp, err := a.do(http.MethodPost, path, http.Header{"Content-Type": {"text/plain"}}, strings.NewReader(text))
			if err == nil {
				resp.Body.Close()
			}
			return err
		}, func() {}, nil
	}
	c, err := dial(dialer, address)
	if err != nil {
		return nil, nil, fmt.Errorf("the publisher's connection: %w", err)
	}
	go func() { // its own deliveries are not measured, but have to be read
		for {
			if _, _, err := c.ReadMessage(); err != nil {
				l.refusal = refusal(err)
				close(l.refused)
				return
			}
		}
	}()
	return func(text string) error {
		err := c.WriteMessage(websocket.TextMessage, []byte(text))
		if err == nil {
			return nil
		}
		// The reader knows why. A write only fails after the server's close frame was read, or when the connection is gone.
		<-l.refused
		return l.refusal
	}, func() { c.Close() }, nil
}

// refusal returns the error for a publisher whose connection the server has ended.
func refusal(err error) error {
	closed := new(websocket.CloseError)
	if !errors.As(err, &closed) {
		return fmt.Errorf("publishing: the connection ended: %w", err)
	}
	advice := ""
	if closed.Code == websocket.ClosePolicyViolation {
		// The route's options publish and rate do not apply to the admin API.
		advice = ": the route does not let this client publish; publish through the admin API with --admin, and --channel with the route's channel"
	}
	return fmt.Errorf("publishing: the server closed the publisher's connection with code %d (%s)%s", closed.Code, visible(closed.Text), advice)
}

// idleTimeout is how long to wait without a delivery before counting the rest as missing.
const idleTimeout = 5 * time.Second

// drain waits for what is on its way. It ends when everything has arrived, or when nothing has come for idleTimeout, so a
// slow server is not cut off while it still delivers.
func (l *load) drain() {
	for l.arrived.Load() < l.expected.Load() {
		select {
		case <-l.changed:
		case <-l.refused:
			return
		case <-time.After(idleTimeout):
			return
		}
	}
}

// end closes all connections. Some are nil if connect has failed.
func (l *load) end() {
	l.ending.Store(true)
	for _, c := range l.connections {
		if c != nil {
			c.Close()
		}
	}
}
