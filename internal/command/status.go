package command

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
)

// statusCommand returns `caddy broadcast status`. It prints one line about the hub and one about the broker, which fit
// most terminals.
func statusCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Shows totals, and the connection to the message broker",
		Long: `Shows the totals of the hub, and the state of its connection to the message broker
if it has one. They are about this process only. After them come the nodes that share
the broker and are alive.

The exit code is 1 if this process should get no clients because nothing has come
from the broker for longer than partition_timeout.`,
		Args: cobra.NoArgs,
	}
	cmd.RunE = run(func(cmd *cobra.Command, _ []string) error {
		a, err := connect(cmd)
		if err != nil {
			return err
		}
		body, err := a.whole(http.MethodGet, "")
		if err != nil {
			return err
		}
		if isJSON(cmd) {
			_, err = cmd.OutOrStdout().Write(body)
		} else {
			err = printStatus(cmd.OutOrStdout(), body)
		}
		if err != nil {
			return err
		}
		// After the totals have been printed: a script gets the exit code, and people also see what is wrong. The hub's
		// own judgement is asked for, so that the command and a load balancer never disagree.
		resp, err := a.do(http.MethodGet, "/health", nil, nil) // an error has the reason
		if err != nil {
			return err
		}
		return resp.Body.Close()
	})
	return cmd
}

// printStatus prints what GET /broadcast returned.
func printStatus(out io.Writer, body []byte) error {
	var v struct {
		Connections, Channels int
		Messages              uint64
		ID                    string
		Uptime                float64
		// Only what is shown. A newer Caddy may send more, as the command and the process need not be of one version.
		Broker *struct {
			Node, Server, Problem string
			Up, Heard             bool
			Nodes                 int
			Lag                   float64 `json:"lag_seconds"`
		}
		Nodes []statusNode
	}
	if err := json.Unmarshal(body, &v); err != nil {
		return fmt.Errorf("reading the response: %w", err)
	}
	// Rounded: a tenth of a second is as much as a person compares.
	seconds := func(n float64) time.Duration {
		return time.Duration(n * float64(time.Second)).Round(100 * time.Millisecond)
	}
	fmt.Fprintf(out, "up %s, %d connections, %d channels, %d messages, last ID %s\n", seconds(v.Uptime), v.Connections, v.Channels, v.Messages, v.ID)
	b := v.Broker
	// Without a broker there is no line about one.
	if b == nil {
		return nil
	}
	state := "up"
	if !b.Up {
		state = "down"
	}
	// Names and texts come from elsewhere, so control characters in them must not reach the terminal.
	fmt.Fprintf(out, "node %s: broker %s", visible(b.Node), state)
	if b.Server != "" {
		// Empty while it is connected to none.
		fmt.Fprintf(out, " at %s", visible(b.Server))
	}
	if b.Nodes > 0 {
		// An older Caddy may not tell it.
		fmt.Fprintf(out, ", %d nodes", b.Nodes)
	}
	if b.Heard {
		fmt.Fprintf(out, ", last heard %s ago\n", seconds(b.Lag))
	} else {
		fmt.Fprintln(out, ", never heard")
	}
	if b.Problem != "" {
		// On a line of its own, at the end, where it is not overlooked.
		fmt.Fprintln(out, "problem:", visible(b.Problem))
	}
	return printNodes(out, v.Nodes)
}

// statusNode is what is shown of a node.
type statusNode struct {
	ID, Name, Version, Epoch string
	Started                  time.Time
	Connections              int
	Away                     bool
}

// printNodes prints the nodes that are alive or away, the one that was asked first. The most likely mistake in a cluster is that
// its nodes do not share one log, so it reports that.
func printNodes(out io.Writer, nodes []statusNode) error {
	if len(nodes) < 2 {
		return nil
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "NODE\tID\tCONNECTIONS\tUP\tVERSION\tEPOCH")
	epochs := make(map[string]bool)
	total, alive := 0, 0
	for _, n := range nodes {
		if n.Away { // nobody knows what it has
			fmt.Fprintf(table, "%s\t%s\t-\taway\t%s\t\n", visible(n.Name), visible(n.ID), visible(n.Version))
			continue
		}
		alive++
		fmt.Fprintf(table, "%s\t%s\t%d\t%s\t%s\t%s\n", visible(n.Name), visible(n.ID), n.Connections,
			time.Since(n.Started).Round(time.Second), visible(n.Version), visible(n.Epoch))
		if n.Epoch != "" { // it may just have started
			epochs[n.Epoch] = true
		}
		total += n.Connections
	}
	if err := table.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(out, "%d connections on %d nodes\n", total, alive)
	if len(epochs) > 1 {
		fmt.Fprintln(out, "problem: the nodes have different epochs: if that lasts, they do not share one log")
	}
	return nil
}
