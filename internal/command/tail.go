package command

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// tailCommand returns `caddy broadcast tail`. It counts as a connection of the hub, so max_connections applies to it.
func tailCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "tail [<channels...>]",
		Short: "Shows messages as they are published, on some channels or on all",
	}
	cmd.RunE = run(tail)
	return cmd
}

// tail prints the stream until it ends. Ctrl-C ends the process, and the server sees that the connection is gone.
func tail(cmd *cobra.Command, channels []string) error {
	a, err := connect(cmd)
	if err != nil {
		return err
	}
	header := http.Header{"Accept": {"text/event-stream"}}
	resp, err := a.do(http.MethodGet, "/stream?"+url.Values{"channel": channels}.Encode(), header, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	p := newPrinter(cmd)
	// Not a bufio.Scanner, which rejects lines above its limit: one line has all messages of a batch.
	for in := bufio.NewReaderSize(resp.Body, 64<<10); ; {
		line, err := in.ReadBytes('\n')
		if err != nil {
			// It does not reconnect: whoever looks at a terminal should see that there is a hole in what it shows.
			return errors.New("the server ended the stream")
		}
		// Other lines are IDs, which the objects have too, times to retry after, and empty ones. A heartbeat is an empty
		// array, which shows nothing.
		data, ok := bytes.CutPrefix(line, []byte("data: "))
		if !ok {
			continue
		}
		var frame []json.RawMessage
		if err := json.Unmarshal(data, &frame); err != nil {
			return fmt.Errorf("reading the stream: %w", err)
		}
		for _, object := range frame {
			if err := p.show(object); err != nil {
				return err
			}
		}
	}
}

// printer shows the objects of a stream, one per line.
type printer struct {
	out              io.Writer
	json             bool   // the objects as they are
	dim, bold, plain string // escape sequences; empty unless the output is a terminal with colors
}

// newPrinter decides on the form once, not for each message.
func newPrinter(cmd *cobra.Command) printer {
	p := printer{out: cmd.OutOrStdout(), json: isJSON(cmd)}
	// Colors only for a person: not in a pipe or a file, nor against the convention of no-color.org.
	if f, ok := p.out.(*os.File); ok && term.IsTerminal(int(f.Fd())) && os.Getenv("NO_COLOR") == "" {
		p.dim, p.bold, p.plain = "\x1b[2m", "\x1b[1m", "\x1b[0m"
	}
	return p
}

// show shows a message or a gap. A hello is not shown.
func (p printer) show(object json.RawMessage) error {
	var v struct {
		ID, Channel, Event string
		Data, Hello        json.RawMessage
	}
	err := json.Unmarshal(object, &v)
	switch {
	case err != nil:
		return fmt.Errorf("reading the stream: %w", err)
	case v.Hello != nil:
		return nil
	case p.json:
		// Unchanged, and a line each, as jq reads it.
		_, err = fmt.Fprintf(p.out, "%s\n", object)
		return err
	case v.Channel == "": // a gap
		_, err = fmt.Fprintf(p.out, "%s%s%s\n", p.dim, visible(string(object)), p.plain)
		return err
	}
	text := string(v.Data)
	var str string
	// Text is a JSON string in a frame. It is shown without its quotes. Other data is JSON, and shown as it is.
	if json.Unmarshal(v.Data, &str) == nil {
		text = str
	}
	event := ""
	if v.Event != "" {
		event = " " + v.Event
	}
	// The time is that of showing it, because the stream has none. With the delay of the way in it, it is for people only,
	// and --json does not have it.
	_, err = fmt.Fprintf(p.out, "%s%s %s%s%s%s%s  %s\n", p.dim, time.Now().Format("15:04:05.000"), p.plain, p.bold, visible(v.Channel), p.plain,
		visible(event), visible(text))
	return err
}
