package command

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

// presenceCommand returns `caddy broadcast presence`.
func presenceCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "presence <channel>",
		Short: "Lists who is present on a channel, as its members know it",
		Args:  cobra.ExactArgs(1),
	}
	cmd.RunE = run(func(cmd *cobra.Command, args []string) error {
		a, err := connect(cmd)
		if err != nil {
			return err
		}
		body, err := a.whole(http.MethodGet, "/channels/"+url.PathEscape(args[0]))
		if err != nil {
			return err
		}
		var v struct{ Presence json.RawMessage }
		if err := json.Unmarshal(body, &v); err != nil {
			return fmt.Errorf("reading the response: %w", err)
		}
		if v.Presence == nil {
			// Not the same as an empty list, which a script would take for a room in which nobody is.
			return fmt.Errorf("no client is on the channel %q through a route with the option presence", args[0])
		}
		if isJSON(cmd) {
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s\n", v.Presence)
			return err
		}
		return printPresence(cmd.OutOrStdout(), v.Presence)
	})
	return cmd
}

// printPresence prints the members with a user, and how many there are in all.
func printPresence(out io.Writer, presence []byte) error {
	var v struct {
		Count   int
		Members []struct {
			User string
			Data json.RawMessage
		}
	}
	if err := json.Unmarshal(presence, &v); err != nil {
		return fmt.Errorf("reading the response: %w", err)
	}
	if v.Members == nil {
		_, err := fmt.Fprintf(out, "members: %d, too many to list\n", v.Count)
		return err
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "USER\tDATA")
	for _, m := range v.Members {
		fmt.Fprintf(table, "%s\t%s\n", visible(m.User), visible(string(m.Data)))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "members: %d, without a user: %d\n", v.Count, v.Count-len(v.Members))
	return err
}
