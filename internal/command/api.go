package command

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/caddy-broadcast/caddy-broadcast/internal/adminclient"
)

// api is the hub's part of the admin API of a running Caddy.
type api struct{ *adminclient.Client }

// connect finds the admin API as `caddy reload` does, with the same flags, so that whoever knows one knows the other. It
// sends nothing.
func connect(cmd *cobra.Command) (api, error) {
	flag := func(name string) string { return cmd.Flag(name).Value.String() }
	address, err := caddycmd.DetermineAdminAPIAddress(flag("address"), nil, flag("config"), flag("adapter"))
	if err != nil {
		return api{}, fmt.Errorf("finding the admin API: %w", err)
	}
	client, err := adminclient.New(address)
	return api{client}, err
}

// do sends a request to a path below /broadcast. A status of 400 or above is an error that says what to do, so a response
// is always a good one. There is no time limit, which tail relies on.
func (a api) do(method, path string, header http.Header, body io.Reader) (*http.Response, error) {
	resp, err := a.Do(context.Background(), method, "/broadcast"+path, header, body)
	return resp, a.Explain(err)
}

// whole returns the whole body of a response, so that --json can print it unchanged, with what a newer Caddy adds.
func (a api) whole(method, path string) ([]byte, error) {
	resp, err := a.do(method, path, nil, nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(resp.Body)
}

// get calls each with every entry of a list, and returns the nodes that are missing in it. It follows the Link headers from
// page to page, so that neither side ever holds the whole list. The API sends one link per header, and no full parser of RFC
// 8288 is needed.
func (a api) get(path string, query url.Values, each func(json.RawMessage) error) (missing []string, err error) {
	for {
		resp, err := a.do(http.MethodGet, path+"?"+query.Encode(), nil, nil)
		if err != nil {
			return missing, err
		}
		missing = addMissing(missing, resp.Header.Get("Broadcast-Missing"))
		var page []json.RawMessage
		err = json.NewDecoder(resp.Body).Decode(&page)
		resp.Body.Close()
		if err != nil {
			return missing, fmt.Errorf("reading the response: %w", err)
		}
		// Only one page is in memory, and it has 1000 entries at most.
		for _, v := range page {
			if err := each(v); err != nil {
				return missing, err
			}
		}
		link := resp.Header.Get("Link")
		if link == "" {
			return missing, nil
		}
		next, err := url.Parse(strings.TrimPrefix(strings.Split(link, ">")[0], "<"))
		if err != nil {
			return missing, fmt.Errorf("parsing the link to the next page, %q: %w", link, err)
		}
		// Only the query is taken: the path stays, so a link cannot lead the command elsewhere.
		query = next.Query()
	}
}

// addMissing adds the nodes that a header names. A node may miss only some of the pages.
func addMissing(missing []string, header string) []string {
	for name := range strings.SplitSeq(header, ", ") {
		name, err := url.QueryUnescape(name)
		if err == nil && name != "" && !slices.Contains(missing, name) {
			missing = append(missing, name)
		}
	}
	return missing
}

// warnMissing says which nodes have not answered. It goes to the standard error, so that a script still gets the rest alone.
func warnMissing(cmd *cobra.Command, missing []string, what string) {
	for _, name := range missing {
		fmt.Fprintf(cmd.ErrOrStderr(), "warning: node %s has not answered: %s\n", visible(name), what)
	}
}
