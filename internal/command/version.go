package command

import (
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"strings"
	"text/tabwriter"

	"github.com/caddyserver/caddy/v2"
	"github.com/spf13/cobra"

	"github.com/caddy-broadcast/caddy-broadcast/client"
	"github.com/caddy-broadcast/caddy-broadcast/internal/buildinfo"
)

// versions is what the version command prints as JSON.
type versions struct {
	buildinfo.Info
	Caddy   string   `json:"caddy"`
	Go      string   `json:"go"`
	OS      string   `json:"os"`
	Arch    string   `json:"arch"`
	Client  int      `json:"client"`
	Brokers []string `json:"brokers"`
}

// versionCommand returns `caddy broadcast version`. It describes the program that it is part of, and asks no running Caddy.
func versionCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Prints the versions of this program's parts",
		Long: `Prints the version of the module broadcast in this program, the commit it was built from
if that is known, the versions of Caddy, of Go, and of the client for browsers, and
the message brokers that this program can use.

It describes this program, not a Caddy that is running.`,
		Args: cobra.NoArgs,
	}
	cmd.RunE = run(func(cmd *cobra.Command, _ []string) error {
		v := versions{
			Info: buildinfo.Read(), Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH,
			Client: client.Version(), Brokers: brokers(),
		}
		v.Caddy, _ = caddy.Version()
		if isJSON(cmd) {
			return json.NewEncoder(cmd.OutOrStdout()).Encode(v)
		}
		return printVersions(cmd.OutOrStdout(), v)
	})
	return cmd
}

// brokers returns the names of the broker modules that are linked in.
func brokers() []string {
	names := []string{} // in JSON, none is an empty list
	for _, m := range caddy.GetModules("broadcast.brokers") {
		names = append(names, m.ID.Name())
	}
	return names
}

func printVersions(out io.Writer, v versions) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(name, text string) {
		if text != "" {
			fmt.Fprintf(table, "%s\t%s\n", name, text)
		}
	}
	row("caddy-broadcast", v.Version)
	row("directory", v.Directory)
	commit := v.Commit
	if commit != "" && !v.Time.IsZero() {
		commit += v.Time.UTC().Format(", 2006-01-02 15:04:05 UTC")
	}
	if v.Modified {
		commit += ", with uncommitted changes"
	}
	row("commit", commit)
	row("caddy", v.Caddy)
	row("go", v.Go+" "+v.OS+"/"+v.Arch)
	row("client", fmt.Sprint(v.Client))
	names := strings.Join(v.Brokers, ", ")
	if names == "" {
		names = "none"
	}
	row("brokers", names)
	return table.Flush()
}
