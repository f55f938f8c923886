// Package command implements `caddy broadcast …`, which uses the hub's admin API from a terminal.
package command

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
)

// A plugin adds commands by this call, when the program starts. So any binary with the plugin has the command, also one
// that only talks to another Caddy.
func init() {
	caddycmd.RegisterCommand(caddycmd.Command{
		Name:  "broadcast",
		Usage: "publish|status|channels|connections|kick|tail|bench|ui",
		Short: "Publishes messages, and inspects the hub of a running Caddy",
		Long: `
Publishes messages to the subscribers of a running Caddy, and shows its channels
and connections. It uses Caddy's admin API. Where several machines share a message
broker, a message reaches the subscribers of all of them, but the lists show, and
kick closes, the connections of the one that is asked.

The admin endpoint is taken from the --address flag, otherwise from the --config
file, otherwise it is the default. The exit code is 1 after an error.
`,
		CobraFunc: setUp,
	})
}

// setUp adds the subcommands. Caddy calls it when it builds its commands, whichever of them runs, so it does nothing else.
func setUp(root *cobra.Command) {
	// The first three have the names that they have at `caddy reload`: see connect.
	root.PersistentFlags().String("address", "", "Address of the administration listener, if different from config")
	root.PersistentFlags().StringP("config", "c", "", "Configuration file that contains the address")
	root.PersistentFlags().StringP("adapter", "a", "", "Name of the config adapter to apply")
	root.PersistentFlags().Bool("json", false, "Print the API's JSON")
	root.AddCommand(publishCommand(), statusCommand(), channelsCommand(), connectionsCommand(), kickCommand(), tailCommand(), benchCommand(), uiCommand())
}

// api is the admin API of a running Caddy, at an address in Caddy's form (which may be a Unix socket). Requests go through
// caddycmd.AdminAPIRequest, which knows sockets, and sends the Origin header that the endpoint may insist on.
// AdminAPIRequest makes a new HTTP client, and so a new connection, for each request (commandfuncs.go of Caddy 2.11.9).
// That is right for commands with few requests; publisher has its own client.
type api struct{ address string }

// connect finds the admin API as `caddy reload` does, with the same flags, so that whoever knows one knows the other. It
// sends nothing.
func connect(cmd *cobra.Command) (api, error) {
	flag := func(name string) string { return cmd.Flag(name).Value.String() }
	address, err := caddycmd.DetermineAdminAPIAddress(flag("address"), nil, flag("config"), flag("adapter"))
	if err != nil {
		return api{}, fmt.Errorf("finding the admin API: %w", err)
	}
	return api{address}, nil
}

// do sends a request to a path below /broadcast. A status of 400 or above is an error with the body's text, so a response
// is always a good one. There is no time limit, which tail relies on.
func (a api) do(method, path string, header http.Header, body io.Reader) (*http.Response, error) {
	return caddycmd.AdminAPIRequest(a.address, method, "/broadcast"+path, header, body)
}

// get calls each with every entry of a list. It follows the Link headers from page to page, so that neither side ever holds
// the whole list. The API sends one link per header, and no full parser of RFC 8288 is needed.
func (a api) get(path string, query url.Values, each func(json.RawMessage) error) error {
	for {
		resp, err := a.do(http.MethodGet, path+"?"+query.Encode(), nil, nil)
		if err != nil {
			return err
		}
		var page []json.RawMessage
		err = json.NewDecoder(resp.Body).Decode(&page)
		resp.Body.Close()
		if err != nil {
			return fmt.Errorf("reading the response: %w", err)
		}
		// Only one page is in memory, and it has 1000 entries at most.
		for _, v := range page {
			if err := each(v); err != nil {
				return err
			}
		}
		link := resp.Header.Get("Link")
		if link == "" {
			return nil
		}
		next, err := url.Parse(strings.TrimPrefix(strings.Split(link, ">")[0], "<"))
		if err != nil {
			return fmt.Errorf("parsing the link to the next page, %q: %w", link, err)
		}
		// Only the query is taken: the path stays, so a link cannot lead the command elsewhere.
		query = next.Query()
	}
}

// isJSON reports whether the command was called with --json, which all subcommands have.
func isJSON(cmd *cobra.Command) bool {
	is, _ := cmd.Flags().GetBool("json")
	return is
}

// channelsCommand returns `caddy broadcast channels`. The prefix goes to the server, so that it does not send what nobody
// asked for.
func channelsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "channels [<prefix>]",
		Short: "Lists the channels that have subscribers or history",
		Args:  cobra.MaximumNArgs(1),
	}
	cmd.RunE = run(func(cmd *cobra.Command, args []string) error {
		query := url.Values{}
		if len(args) > 0 {
			query.Set("prefix", args[0])
		}
		return list(cmd, "/channels", query, "CHANNEL\tSUBSCRIBERS\tHISTORY\tLAST ID", func(v struct {
			Channel              string
			Subscribers, History int
			LastID               string `json:"last_id"`
		}) string {
			// The ID is the hub's own, and needs no visible.
			return fmt.Sprintf("%s\t%d\t%d\t%s", visible(v.Channel), v.Subscribers, v.History, v.LastID)
		})
	})
	return cmd
}

// connectionsCommand returns `caddy broadcast connections`. The oldest come first because pages follow the order of IDs,
// which only grow, so none is left out or shown twice while others come and go.
func connectionsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "connections [--channel <name>] [--user <name>]",
		Short: "Lists the connections, oldest first",
		Args:  cobra.NoArgs,
	}
	cmd.Flags().String("channel", "", "Only connections on this channel")
	cmd.Flags().String("user", "", "Only connections of this user")
	cmd.RunE = run(func(cmd *cobra.Command, args []string) error {
		query := url.Values{}
		for _, name := range []string{"channel", "user"} {
			if v := cmd.Flag(name).Value.String(); v != "" {
				query.Set(name, v)
			}
		}
		return list(cmd, "/connections", query, "ID\tUSER\tREMOTE\tTRANSPORT\tSINCE\tSENT\tBACKLOG\tCHANNELS", func(v struct {
			ID, User, Remote, Transport string
			Channels                    []string
			Since                       time.Time
			Sent, Backlog               int
		}) string {
			return fmt.Sprintf("%s\t%s\t%s\t%s\t%s\t%d\t%d\t%s", v.ID, visible(v.User), visible(v.Remote), v.Transport,
				// As an age and not a time, because the two machines may be in different zones. It still trusts that both
				// clocks are right.
				time.Since(v.Since).Round(time.Second), v.Sent, v.Backlog, visible(strings.Join(v.Channels, " ")))
		})
	})
	return cmd
}

// list prints a list from the API, as a table or, with --json, one unchanged entry per line. The JSON is printed as it comes. A
// table is printed at the end, because the width of its columns is not known before.
func list[T any](cmd *cobra.Command, path string, query url.Values, head string, row func(T) string) error {
	a, err := connect(cmd)
	if err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	if isJSON(cmd) {
		return a.get(path, query, func(v json.RawMessage) error {
			_, err := fmt.Fprintf(out, "%s\n", v)
			return err
		})
	}
	// Two spaces between columns, and no borders: such output is easy to cut up with awk.
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, head)
	err = a.get(path, query, func(raw json.RawMessage) error {
		var v T
		if err := json.Unmarshal(raw, &v); err != nil {
			return err
		}
		_, err := fmt.Fprintln(table, row(v))
		return err
	})
	if err != nil {
		return err
	}
	return table.Flush()
}

// kickCommand returns `caddy broadcast kick`. It closes and does not ban: who may connect is the site's to say, by its own
// authentication.
func kickCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "kick <id> | --user <name>",
		Short: "Closes a connection, or all connections of a user",
		Long:  "Closes a connection, or all connections of a user, with code 1008. Clients may reconnect unless the site's own rules prevent it. With a message broker: only those of this process; ask each machine.",
		Args:  cobra.MaximumNArgs(1),
	}
	cmd.Flags().String("user", "", "Close all connections of this user")
	cmd.RunE = run(func(cmd *cobra.Command, args []string) error {
		// Exactly one of the two: a user named by mistake would lose all connections.
		user := cmd.Flag("user").Value.String()
		path := "/connections?user=" + url.QueryEscape(user)
		switch {
		case len(args) == 1 && user == "":
			// Escaped, so that no argument can name another path of the admin API.
			path = "/connections/" + url.PathEscape(args[0])
		case len(args) == 1 || user == "":
			return errors.New("specify a connection ID or --user")
		}
		a, err := connect(cmd)
		if err != nil {
			return err
		}
		resp, err := a.do(http.MethodDelete, path, nil, nil)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			return err
		}
		var v struct{ Closed int }
		if err := json.Unmarshal(body, &v); err != nil {
			return fmt.Errorf("reading the response: %w", err)
		}
		if isJSON(cmd) {
			_, err = cmd.OutOrStdout().Write(body)
		} else {
			// At least 1: if there is no such connection then the API's 404 has ended the command.
			_, err = fmt.Fprintln(cmd.OutOrStdout(), "closed", v.Closed)
		}
		return err
	})
	return cmd
}

// run wraps a command so that its errors do not print the usage text.
// Caddy's root command silences it too (cmd/cobra.go of Caddy 2.11.9). The error gets the name of the subcommand, because
// what Caddy prints before it does not say whose it is. Caddy exits with 1 for any such error (Main in cmd/main.go).
func run(f func(*cobra.Command, []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		cmd.SilenceUsage = true
		if err := f(cmd, args); err != nil {
			return fmt.Errorf("broadcast %s: %w", cmd.Name(), err)
		}
		return nil
	}
}

// visible returns s with control characters escaped, because clients choose these texts and a terminal would obey them: an
// escape sequence can hide lines or change the window's title. Those from 0x80 to 0x9f are among them, because some terminals
// take 0x9b for the beginning of a sequence. A tab is harmless.
func visible(s string) string {
	var b bytes.Buffer
	for _, r := range s {
		if r < ' ' && r != '\t' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			fmt.Fprintf(&b, `\x%02x`, r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}
