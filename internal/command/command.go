// Package command implements `caddy broadcast …`, which uses the hub's admin API from a terminal.
package command

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
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
		Usage: "publish|status|channels|history|presence|connections|subscribe|unsubscribe|kick|tail|bench|doctor|ui|version",
		Short: "Publishes messages, and inspects the hub of a running Caddy",
		Long: `
Publishes messages to the subscribers of a running Caddy, and shows its channels
and connections. It uses Caddy's admin API. Where several machines share a message
broker, the commands cover all of them, except that the totals of status are those
of one machine. A machine that does not answer is named.

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
	root.AddCommand(publishCommand(), statusCommand(), channelsCommand(), historyCommand(), presenceCommand(), connectionsCommand(),
		subscribeCommand(), unsubscribeCommand(), kickCommand(), tailCommand(), benchCommand(), doctorCommand(), uiCommand(), versionCommand())
	rejectUnknown(root)
}

// rejectUnknown makes a misspelled subcommand an error that names the nearest one. Cobra prints the help and exits with 0,
// unless a command with subcommands is the program's root (legacyArgs in args.go of Cobra 1.10).
func rejectUnknown(root *cobra.Command) {
	root.SuggestionsMinimumDistance = 2 // Cobra's own, which it sets for the program's root alone
	root.Args = cobra.ArbitraryArgs
	root.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		cmd.SilenceUsage = true
		advice := "see caddy broadcast --help"
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			advice = "did you mean " + strings.Join(near, " or ") + "?"
		}
		return fmt.Errorf("broadcast has no command %q: %s", args[0], advice)
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
		setNode(cmd, query)
		return list(cmd, "/channels", query, func(listedChannel) string { return "CHANNEL\tSUBSCRIBERS\tHISTORY\tLAST ID" }, func(v listedChannel) string {
			// The ID is the hub's own, and needs no visible.
			return fmt.Sprintf("%s\t%d\t%d\t%s", visible(v.Channel), v.Subscribers, v.History, v.LastID)
		})
	})
	addNode(cmd)
	return cmd
}

// listedChannel is what is shown of a channel.
type listedChannel struct {
	Channel              string
	Subscribers, History int
	LastID               string `json:"last_id"`
}

// addNode adds the flag of commands that may ask one node alone.
func addNode(cmd *cobra.Command) {
	cmd.Flags().String("node", "", "Only what this node has: its name, or its ID as status shows it")
}

func setNode(cmd *cobra.Command, query url.Values) {
	if node := cmd.Flag("node").Value.String(); node != "" {
		query.Set("node", node)
	}
}

// listedConnection is what is shown of a connection.
type listedConnection struct {
	ID, Node, User, Remote, Transport string
	Channels                          []string
	Since                             time.Time
	Sent, Backlog                     int
}

// connectionsCommand returns `caddy broadcast connections`. The oldest come first because pages follow the order of IDs,
// which only grow, so none is left out or shown twice while others come and go.
func connectionsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "connections [--channel <name>] [--user <name>]",
		Short: "Lists the connections, by node and then the oldest first",
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
		setNode(cmd, query)
		// Without a message broker there are no nodes, and the column would be empty.
		node := func(v listedConnection, text string) string {
			if v.Node == "" {
				return ""
			}
			return text + "\t"
		}
		return list(cmd, "/connections", query, func(v listedConnection) string {
			return "ID\t" + node(v, "NODE") + "USER\tREMOTE\tTRANSPORT\tSINCE\tSENT\tBACKLOG\tCHANNELS"
		}, func(v listedConnection) string {
			return fmt.Sprintf("%s\t%s%s\t%s\t%s\t%s\t%d\t%d\t%s", v.ID, node(v, visible(v.Node)), visible(v.User), visible(v.Remote), v.Transport,
				// As an age and not a time, because the two machines may be in different zones. It still trusts that both
				// clocks are right.
				time.Since(v.Since).Round(time.Second), v.Sent, v.Backlog, visible(strings.Join(v.Channels, " ")))
		})
	})
	addNode(cmd)
	return cmd
}

// list prints a list from the API, as a table or, with --json, one unchanged entry per line. The JSON is printed as it comes. A
// table is printed at the end, because the width of its columns is not known before. head is called with the first entry.
func list[T any](cmd *cobra.Command, path string, query url.Values, head, row func(T) string) error {
	a, err := connect(cmd)
	if err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	// Two spaces between columns, and no borders: such output is easy to cut up with awk.
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	rows := 0
	missing, err := a.get(path, query, func(raw json.RawMessage) error {
		if isJSON(cmd) {
			_, err := fmt.Fprintf(out, "%s\n", raw)
			return err
		}
		var v T
		if err := json.Unmarshal(raw, &v); err != nil {
			return err
		}
		if rows++; rows == 1 {
			fmt.Fprintln(table, head(v))
		}
		_, err := fmt.Fprintln(table, row(v))
		return err
	})
	if err != nil {
		return err
	}
	if rows == 0 && !isJSON(cmd) {
		fmt.Fprintln(table, head(*new(T)))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	warnMissing(cmd, missing, "what it has is not in the list")
	return nil
}

// selected returns the connection or the user that a command is about. It takes exactly one of the two: a user named by mistake would
// lose all connections. An empty ID is that of a script which has found none.
func selected(cmd *cobra.Command, ids []string) (id, user string, err error) {
	user = cmd.Flag("user").Value.String()
	if (len(ids) == 1) == (user != "") || slices.Contains(ids, "") {
		return "", "", errors.New("specify a connection ID or --user")
	}
	if user == "" {
		id = ids[0]
	}
	return id, user, nil
}

// kickCommand returns `caddy broadcast kick`. It closes connections and bans nobody: the site's own authentication decides
// who may connect.
func kickCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "kick <id> | --user <name> [--code <code>]",
		Short: "Closes a connection, or all connections of a user",
		Long:  "Closes a connection, or all connections of a user, with code 1008 or the given one. After a code from 4400 to 4499, such as 4403, clients of broadcast.v1 do not reconnect on their own. Others may, unless the site's own rules prevent it. A node that does not answer is named. It closes them when it answers again, if that is within a minute.",
		Args:  cobra.MaximumNArgs(1),
	}
	cmd.Flags().String("user", "", "Close all connections of this user")
	cmd.Flags().String("code", "", "The close code, 4000 to 4999")
	cmd.RunE = run(func(cmd *cobra.Command, args []string) error {
		id, user, err := selected(cmd, args)
		if err != nil {
			return err
		}
		path, query := "/connections", url.Values{}
		if user == "" {
			// Escaped, so that no argument can name another path of the admin API.
			path += "/" + url.PathEscape(id)
		} else {
			query.Set("user", user)
		}
		if code := cmd.Flag("code").Value.String(); code != "" {
			query.Set("code", code)
		}
		a, err := connect(cmd)
		if err != nil {
			return err
		}
		body, err := a.whole(http.MethodDelete, path+"?"+query.Encode())
		if err != nil {
			return err
		}
		var v struct {
			Closed  int
			Missing []string
		}
		if err := json.Unmarshal(body, &v); err != nil {
			return fmt.Errorf("reading the response: %w", err)
		}
		if isJSON(cmd) {
			_, err = cmd.OutOrStdout().Write(body)
		} else {
			// 0 only if nodes are missing: if there is no such connection then the API's 404 has ended the command.
			_, err = fmt.Fprintln(cmd.OutOrStdout(), "closed", v.Closed)
		}
		warnMissing(cmd, v.Missing, "it closes them when it answers again, if that is within a minute")
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
