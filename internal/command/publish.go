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
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

// batchLines is how many lines that have come are published with one request.
const batchLines = 1000

var contentTypes = map[string]string{
	"text":   "text/plain",
	"json":   "application/json",
	"binary": "application/octet-stream",
}

func publishCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "publish [<data>] [--channel <name>] [--event <name>] [--as text|json|binary] [--key <key>] [--lines]",
		Short: "Publishes a message",
		Long: `
Publishes the argument, or what comes on the standard input, and prints the
message's ID and how many subscribers its channel had.

With --lines each line of the input is a message, published as soon as it comes:

    tail -f log | caddy broadcast publish --channel log --lines
`,
		Args: cobra.MaximumNArgs(1),
	}
	cmd.Flags().String("channel", "default", "The channel")
	cmd.Flags().String("event", "", "The event's name")
	cmd.Flags().String("as", "text", "What the data is: text, json or binary")
	cmd.Flags().String("key", "", "Idempotency key: publishes once, if repeated within two minutes")
	cmd.Flags().Bool("lines", false, "Each line of the standard input is a message")
	cmd.RunE = run(publish)
	return cmd
}

func publish(cmd *cobra.Command, args []string) error {
	flag := func(name string) string { return cmd.Flag(name).Value.String() }
	contentType, ok := contentTypes[flag("as")]
	if !ok {
		return fmt.Errorf("--as %s: must be text, json or binary", flag("as"))
	}
	a, err := connect(cmd)
	if err != nil {
		return err
	}
	if lines, _ := cmd.Flags().GetBool("lines"); lines {
		switch {
		case len(args) > 0:
			return errors.New("--lines takes the standard input, not an argument")
		case flag("key") != "":
			return errors.New("--lines has no --key: it would be the same for all")
		case flag("as") == "binary":
			return errors.New("lines are text or json, not binary")
		}
		return publishLines(cmd, a, flag("channel"), flag("event"), flag("as") == "json")
	}
	body := cmd.InOrStdin()
	if len(args) == 1 && args[0] != "-" {
		body = strings.NewReader(args[0])
	}
	query := url.Values{"channel": {flag("channel")}, "event": {flag("event")}}
	header := http.Header{"Content-Type": {contentType}}
	if key := flag("key"); key != "" {
		header.Set("Idempotency-Key", key)
	}
	return send(cmd, a, query, header, body)
}

// send publishes, and prints the answers.
func send(cmd *cobra.Command, a api, query url.Values, header http.Header, body io.Reader) error {
	resp, err := a.do(http.MethodPost, "/publish?"+query.Encode(), header, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	out := cmd.OutOrStdout()
	if isJSON(cmd) {
		_, err = io.Copy(out, resp.Body)
		return err
	}
	for d := json.NewDecoder(resp.Body); ; {
		var v struct {
			ID          string
			Subscribers int
		}
		if err := d.Decode(&v); err == io.EOF {
			return nil
		} else if err != nil {
			return fmt.Errorf("reading the answer: %w", err)
		}
		fmt.Fprintf(out, "%s to %d\n", v.ID, v.Subscribers)
	}
}

// publishLines publishes lines as they come, those that are there together.
func publishLines(cmd *cobra.Command, a api, channel, event string, asJSON bool) error {
	lines := make(chan []byte, batchLines)
	var failed error // written before lines is closed
	go func() {
		defer close(lines)
		in := bufio.NewReaderSize(cmd.InOrStdin(), 64<<10)
		for {
			line, err := in.ReadBytes('\n')
			if line = bytes.TrimRight(line, "\r\n"); len(line) > 0 || err == nil {
				lines <- line
			}
			if err != nil {
				if err != io.EOF {
					failed = err
				}
				return
			}
		}
	}()
	header := http.Header{"Content-Type": {"application/x-ndjson"}}
	for number := 1; ; {
		line, ok := <-lines
		if !ok {
			return failed
		}
		var body bytes.Buffer
		from := number
		for more := true; more; {
			message := map[string]any{"channel": channel, "event": event, "data": string(line)}
			if asJSON {
				if !json.Valid(line) {
					return fmt.Errorf("line %d is not JSON", number)
				}
				message["data"] = json.RawMessage(line)
			} else if !utf8.Valid(line) {
				return fmt.Errorf("line %d is not UTF-8", number)
			}
			if err := json.NewEncoder(&body).Encode(message); err != nil {
				return err
			}
			if number++; number-from == batchLines {
				break
			}
			select {
			case line, more = <-lines:
			default:
				more = false
			}
		}
		if err := send(cmd, a, nil, header, &body); err != nil {
			return fmt.Errorf("lines %d to %d: %w", from, number-1, err)
		}
	}
}
