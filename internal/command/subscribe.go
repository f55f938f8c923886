package command

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/spf13/cobra"
)

// subscribeCommand returns `caddy broadcast subscribe`.
func subscribeCommand() *cobra.Command {
	cmd := changeCommand(http.MethodPost, "subscribed")
	cmd.Use = "subscribe <channel> <id> | --user <name>"
	cmd.Short = "Subscribes a connection, or all connections of a user, to a channel"
	cmd.Long = cmd.Short + ", which may be one that the client may not join itself. One that reconnects begins with the channels of its route, and, if it is the JavaScript client and the route lets it join, with this one. A node that does not answer is named. It subscribes them when it answers again, if that is within a minute."
	return cmd
}

// unsubscribeCommand returns `caddy broadcast unsubscribe`.
func unsubscribeCommand() *cobra.Command {
	cmd := changeCommand(http.MethodDelete, "unsubscribed")
	cmd.Use = "unsubscribe <channel> <id> | --user <name>"
	cmd.Short = "Unsubscribes a connection, or all connections of a user, from a channel"
	cmd.Long = cmd.Short + ". A client may join it again if its route lets it. A node that does not answer is named. It unsubscribes them when it answers again, if that is within a minute."
	return cmd
}

// changeCommand returns a command that changes subscriptions. done is what has been done with the connections, as the API calls it.
func changeCommand(method, done string) *cobra.Command {
	cmd := &cobra.Command{Args: cobra.RangeArgs(1, 2)}
	cmd.Flags().String("user", "", "All connections of this user")
	cmd.RunE = run(func(cmd *cobra.Command, args []string) error {
		id, user, err := selected(cmd, args[1:])
		if err != nil {
			return err
		}
		x := map[string]string{"channel": args[0]}
		if user == "" {
			x["connection"] = id
		} else {
			x["user"] = user
		}
		a, err := connect(cmd)
		if err != nil {
			return err
		}
		body, err := json.Marshal(x)
		if err != nil {
			return err
		}
		resp, err := a.do(method, "/subscriptions", http.Header{"Content-Type": {"application/json"}}, strings.NewReader(string(body)))
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if body, err = io.ReadAll(resp.Body); err != nil {
			return err
		}
		return printChange(cmd, done, body)
	})
	return cmd
}

// printChange prints the API's answer.
func printChange(cmd *cobra.Command, done string, body []byte) error {
	var v struct {
		Subscribed, Unsubscribed, Failed int
		Missing                          []string
	}
	if err := json.Unmarshal(body, &v); err != nil {
		return fmt.Errorf("reading the response: %w", err)
	}
	out := cmd.OutOrStdout()
	if isJSON(cmd) {
		if _, err := out.Write(body); err != nil {
			return err
		}
	} else if _, err := fmt.Fprintln(out, done, v.Subscribed+v.Unsubscribed); err != nil { // one of the two is 0
		return err
	}
	warnMissing(cmd, v.Missing, "it does it when it answers again, if that is within a minute")
	if v.Failed > 0 {
		return fmt.Errorf("%d connections are on too many channels, or there are too many channels", v.Failed)
	}
	return nil
}
