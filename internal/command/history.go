package command

import (
	"encoding/json"
	"fmt"
	"net/url"
	"time"

	"github.com/spf13/cobra"
)

// historyCommand returns `caddy broadcast history`.
func historyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "history <channel>",
		Short: "Lists the messages that are kept of a channel, the oldest first",
		Args:  cobra.ExactArgs(1),
	}
	cmd.Flags().String("after", "", "Only messages after the one with this ID")
	cmd.RunE = run(func(cmd *cobra.Command, args []string) error {
		query := url.Values{}
		if after := cmd.Flag("after").Value.String(); after != "" {
			query.Set("after", after)
		}
		path := "/channels/" + url.PathEscape(args[0]) + "/messages"
		return list(cmd, path, query, func(keptMessage) string { return "ID\tTIME\tEVENT\tDATA" }, func(v keptMessage) string {
			return fmt.Sprintf("%s\t%s\t%s\t%s", v.ID, v.Time.Local().Format(time.DateTime), visible(v.Event), visible(v.text()))
		})
	})
	return cmd
}

// keptMessage is what is shown of a message that is kept.
type keptMessage struct {
	ID       string
	Time     time.Time
	Event    string
	Data     json.RawMessage
	Encoding string
}

// text returns the data: text as it is, and JSON and base64 as the admin API has them.
func (m keptMessage) text() (s string) {
	if json.Unmarshal(m.Data, &s) == nil {
		return s
	}
	return string(m.Data)
}
