// Package doctor finds out why a route does not work. It looks from outside, as a client meets the route, and from inside,
// by Caddy's admin API, and says what is wrong and which lines fix it.
//
// It disturbs nobody: what it subscribes to is the route's, as for any client, but it publishes only on a channel of its own
// that nobody else is on, unless it is asked for more. It never changes a configuration.
//
// Each check is in a file of its own. What a check has learned and others need is in the exam.
package doctor

import (
	"context"
	"crypto/x509"
	"net/http"
	"net/url"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/adminclient"
)

// Options are what to check, and how.
type Options struct {
	URL     *url.URL       // of the route; nil if only the admin API is checked
	Header  http.Header    // of each request to the route
	Origin  string         // of the page whose requests they are; "" is the route's own
	Connect string         // host:port to connect to in place of the URL's
	RootCAs *x509.CertPool // nil is the system's
	Wait    time.Duration  // for each thing that should come at once
	Idle    time.Duration  // how long a connection is left idle; 0 leaves it out
	Publish bool           // whether to publish on the route, to its subscribers

	Admin *adminclient.Client
	Named bool // whoever asks has named the admin API, so it has to be there

	Found    func(Finding)                          // gets each finding at once
	Progress func(line func() string) (done func()) // shows what takes long; may be nil
}

// need is what has to be there for a check.
type need int

const (
	nothing need = iota
	aURL
	anAddress   // the name is resolved
	aConnection // TCP
	aServer     // TLS too, if the URL asks for it
	aRoute      // which lets this client in
	aSocket     // a WebSocket of broadcast.v1 works
	anAPI       // the admin API is known
	aHub        // it responds, and its configuration has routes
)

// Check looks at one thing.
type Check struct {
	Name  string // of its findings, too
	About string // what it looks at
	needs need
	run   func(context.Context, *exam) []Finding
}

// Checks are all checks, in the order in which they are run: each one relies on what those before it have found.
var Checks = []Check{
	address, dns, tcp, certificate, route, socket, foreignOrigin, rebinding, eventStream, compression, http2Check, http3Check, resume,
	delivery, idle,
	adminAPI, broker, routes, addresses, history, files, logLevel,
}

// Report is the outcome of all checks.
type Report struct {
	URL      string    `json:"url,omitempty"`
	OK       bool      `json:"ok"` // there is no problem
	Findings []Finding `json:"findings"`
}

// Run runs all checks. It ends early if the context does.
func Run(ctx context.Context, o Options) Report {
	x := newExam(o)
	defer x.close()
	report := Report{OK: true}
	if o.URL != nil {
		report.URL = o.URL.Redacted()
	}
	for _, c := range Checks {
		if ctx.Err() != nil {
			break
		}
		if !x.has[c.needs] {
			// What it lacks is a finding already, or was not asked for.
			continue
		}
		for _, f := range c.run(ctx, x) {
			f.Check = c.Name
			report.OK = report.OK && f.State != Problem
			report.Findings = append(report.Findings, f)
			if o.Found != nil {
				o.Found(f)
			}
		}
	}
	return report
}
