package command

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/caddy-broadcast/caddy-broadcast/internal/inspector"
)

// uiCommand returns `caddy broadcast ui`. It serves the page from this process, because the admin endpoint refuses a page
// that somebody opens directly, unless its origins are changed: such a request has no Origin.
func uiCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ui [--listen <address>]",
		Short: "Serves the inspector, a web page that shows the hub",
		Long: `
Serves a web page that shows the hub live: totals, channels, connections,
messages, and with a message broker the machines that share it. It can also
close connections and publish. Ctrl-C ends it.

Select a channel to see who is on it and its history. Click on a message, or
move to it with the arrow keys and press Enter, to see all of it.

Anyone who can reach the page can do all of that, so it is served only on a
loopback address. To open it on another computer, run this command there, and
open the address that is printed here:

    ssh -L 2020:localhost:2020 <this computer>
`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().String("listen", "localhost:2020", "Address to serve the page on; port 0 picks a free port")
	cmd.RunE = run(func(cmd *cobra.Command, _ []string) error {
		a, err := connect(cmd)
		if err != nil {
			return err
		}
		// First the port, since the page has to know it, and port 0 is only known then.
		l, err := net.Listen("tcp", cmd.Flag("listen").Value.String())
		if errors.Is(err, syscall.EADDRINUSE) {
			return fmt.Errorf("%w: choose another port with --listen, for example localhost:0", err)
		}
		if err != nil {
			return err
		}
		defer l.Close()
		// Of the listener and not of the flag, which may have the port 0 and a name.
		addr := l.Addr().(*net.TCPAddr)
		// What the name resolved to is checked, not the name: localhost can be anything in a hosts file.
		if !addr.IP.IsLoopback() {
			return fmt.Errorf("--listen %s: must be a loopback address (for example localhost:2020); "+
				"to open the page on another computer, run there: ssh -L 2020:localhost:2020 <this computer>", addr)
		}
		// A name and not the IP address, so that http://localhost in the address bar has the Host header that the
		// page insists on.
		host := fmt.Sprint("localhost:", addr.Port)
		handler, err := inspector.Handler(host, a.Address())
		if err != nil {
			return err
		}
		if resp, err := a.do(http.MethodGet, "", nil, nil); err != nil {
			return err // report it here rather than in the page
		} else {
			resp.Body.Close()
		}
		fmt.Fprintf(cmd.OutOrStdout(), "http://%s\n", host)
		// No WriteTimeout: the page's event stream does not end.
		// The header has a limit nevertheless, as any page in a browser can open connections to a loopback address.
		server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
		// Close and not Shutdown, which would wait for the event stream.
		context.AfterFunc(cmd.Context(), func() { server.Close() })
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	return cmd
}
