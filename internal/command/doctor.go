package command

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/caddy-broadcast/caddy-broadcast/internal/doctor"
)

// doctorCommand returns `caddy broadcast doctor`.
func doctorCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "doctor [<url>] [--header <header>] [--origin <origin>] [--connect <address>] [--idle <time>] [--publish]",
		Short: "Finds out why a route does not work, and says what fixes it",
		Long: `
Checks the route at a URL from outside, the way a client meets it: DNS, TCP,
TLS, the handshake, origins, event streams, compression, HTTP/2 and HTTP/3,
resuming, delivery, and a minute of idleness. Then it checks the hub from
inside, by the admin API. Without a URL it does only the latter.

It prints what it finds, and for what is wrong the lines of a Caddyfile or of
nginx that fix it. The exit code is 1 if something is wrong.

    caddy broadcast doctor https://example.com/ws

It publishes nothing on the route's channels unless you ask for it with
--publish. It is a client of the route like any other: it counts as a
connection, and where the route has presence, others see it come and go.
`,
		Args: cobra.MaximumNArgs(1),
	}
	cmd.Flags().StringArrayP("header", "H", nil, "Header of each request, as \"Name: value\"; may be repeated")
	cmd.Flags().String("origin", "", "Origin of the page that uses the route, if it is of another site")
	cmd.Flags().String("connect", "", "Connect to this host:port in place of the URL's, for example to check the server behind a proxy")
	cmd.Flags().Duration("idle", time.Minute, "How long to leave a connection idle; 0 leaves it out")
	cmd.Flags().Duration("wait", 10*time.Second, "How long to wait for each thing that should come at once")
	cmd.Flags().Bool("publish", false, "Publish a message on the route's channel, to its subscribers")
	addProgress(cmd)
	cmd.RunE = run(examine)
	return cmd
}

// examine runs the checks, and prints each finding as soon as it is there.
func examine(cmd *cobra.Command, args []string) error {
	o, err := doctorOptions(cmd, args)
	if err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	if !isJSON(cmd) {
		p := newPrinter(cmd)
		o.Found = func(f doctor.Finding) { p.finding(f) }
	}
	if showsProgress(cmd) {
		o.Progress = func(line func() string) func() { return showProgress(cmd, line) }
	}
	report := doctor.Run(cmd.Context(), o)
	if isJSON(cmd) {
		e := json.NewEncoder(out)
		e.SetEscapeHTML(false) // people read it too
		if err := e.Encode(report); err != nil {
			return err
		}
	}
	wrong := 0
	for _, f := range report.Findings {
		if f.State == doctor.Problem {
			wrong++
		}
	}
	switch {
	case wrong == 1:
		return errors.New("1 thing is wrong")
	case wrong > 1:
		return fmt.Errorf("%d things are wrong", wrong)
	}
	return nil
}

// doctorOptions reads the arguments and the flags.
func doctorOptions(cmd *cobra.Command, args []string) (o doctor.Options, err error) {
	if len(args) > 0 {
		if o.URL, err = routeURL(args[0]); err != nil {
			return o, err
		}
	}
	o.Header = make(http.Header)
	headers, _ := cmd.Flags().GetStringArray("header")
	for _, h := range headers {
		name, value, ok := strings.Cut(h, ":")
		if name = strings.TrimSpace(name); !ok || name == "" {
			return o, fmt.Errorf("--header %q: must be \"Name: value\"", h)
		}
		if strings.EqualFold(name, "Host") {
			return o, errors.New("--header \"Host: …\": the host is that of the URL; use --connect to ask another server for it")
		}
		o.Header.Add(name, strings.TrimSpace(value))
	}
	o.Origin, o.Connect = cmd.Flag("origin").Value.String(), cmd.Flag("connect").Value.String()
	if u, err := url.Parse(o.Origin); o.Origin != "" && (err != nil || u.Scheme == "" || u.Host == "" || u.Path != "") {
		return o, fmt.Errorf("--origin %q: must be a scheme and a host (for example https://example.com)", o.Origin)
	}
	if _, port, err := net.SplitHostPort(o.Connect); o.Connect != "" && (err != nil || !isPort(port)) {
		return o, fmt.Errorf("--connect %q: must be host:port (for example 192.0.2.1:443 or [2001:db8::1]:443)", o.Connect)
	}
	o.Idle, _ = cmd.Flags().GetDuration("idle")
	o.Wait, _ = cmd.Flags().GetDuration("wait")
	o.Publish, _ = cmd.Flags().GetBool("publish")
	if o.Idle < 0 || o.Wait <= 0 {
		return o, errors.New("--idle must not be negative, and --wait must be greater than 0")
	}
	a, err := connect(cmd)
	o.Admin, o.Named = a.Client, cmd.Flag("address").Changed || cmd.Flag("config").Changed
	return o, err
}

// routeURL parses the URL of a route. The scheme becomes http or https. One may be left out, as in the address bar.
func routeURL(s string) (*url.URL, error) {
	address, noScheme := s, !strings.Contains(s, "://")
	if noScheme {
		address = "https://" + s
	}
	u, err := url.Parse(address)
	if err == nil {
		u.Scheme = strings.Replace(u.Scheme, "ws", "http", 1)
	}
	if err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https" || u.Port() != "" && !isPort(u.Port()) {
		return nil, fmt.Errorf("%q is not the URL of a route (for example https://example.com/ws)", s)
	}
	ip := net.ParseIP(u.Hostname())
	if noScheme && (u.Hostname() == "localhost" || strings.HasSuffix(u.Hostname(), ".localhost") || ip != nil && ip.IsLoopback()) {
		u.Scheme = "http"
	}
	return u, nil
}

// isPort reports whether s is the number of a port.
func isPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0
}

// finding prints a finding, with what to do about it below.
func (p printer) finding(f doctor.Finding) {
	label := map[doctor.State]string{doctor.OK: "ok", doctor.Advice: "advice", doctor.Problem: "WRONG", doctor.Skipped: "skipped"}[f.State]
	style := map[doctor.State]string{doctor.Problem: p.bold, doctor.Skipped: p.dim}[f.State]
	fmt.Fprintf(p.out, "%s%-8s%s %-13s %s\n", style, label, p.plain, f.Check, f.Found)
	if f.Fix == "" {
		return
	}
	fmt.Fprintf(p.out, "%23sFix: %s.\n", "", f.Fix)
	for i, l := range f.Lines {
		where := l.Of
		if l.In != "" {
			where += ", " + l.In
		}
		if i > 0 {
			where = "Or " + where
		}
		fmt.Fprintf(p.out, "%23s%s:\n", "", where)
		indent(p.out, l.Text)
	}
}

// indent prints lines below a finding.
func indent(out io.Writer, text string) {
	for line := range strings.Lines(text) {
		fmt.Fprintf(out, "%27s%s\n", "", strings.TrimRight(line, "\n"))
	}
}
