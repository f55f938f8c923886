package command

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/spf13/cobra"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
)

// contentTypes are the values of --as. The API takes the kind of a message from the Content-Type, so the command needs no
// parameter of its own for it.
var contentTypes = map[string]string{
	"text":   "text/plain",
	"json":   "application/json",
	"binary": "application/octet-stream",
}

// publishCommand returns `caddy broadcast publish`, which is for scripts in the first place: it reads a pipe, retries, and
// has an exit code that can be relied on.
func publishCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "publish [<data>] [--channel <name>] [--event <name>] [--conflate <key>] [--as text|json|binary] [--key <key>] [--lines]",
		Short: "Publishes a message",
		Long: `
Publishes the argument, or the standard input, and prints the message's ID and
the number of subscribers that its channel had.

With --lines, each line of the input is a message, published as it arrives:

    tail -f log | caddy broadcast publish --channel log --lines

A line that cannot be published is reported with its number. The others are
published, and the exit code is 1.

An empty message is an error, unless you ask for it with --empty: in a script it
mostly means that something else has failed. With --lines, an empty line is a
message.

A request that gets no response, for example during a reload, or that the hub
has no room for, is retried for up to 100 seconds. Messages have idempotency
keys, so each is published only once.
`,
		Args: cobra.MaximumNArgs(1),
	}
	cmd.Flags().String("channel", "default", "Channel to publish on")
	cmd.Flags().String("event", "", "Event name")
	cmd.Flags().String("conflate", "", "Conflate key: slow clients may get only the newest message that has it")
	cmd.Flags().String("as", "text", "Type of the data: text, json or binary")
	cmd.Flags().String("key", "", "Idempotency key: repeated within two minutes, it publishes only once")
	cmd.Flags().Bool("keep", true, "Whether the history keeps the message")
	cmd.Flags().Bool("empty", false, "Publish the message even if it is empty")
	cmd.Flags().Bool("lines", false, "Publish each line of the standard input as a message")
	cmd.RunE = run(publish)
	return cmd
}

// publish checks its flags before it connects, so that an error in them is the same whether Caddy runs or not.
func publish(cmd *cobra.Command, args []string) error {
	flag := flagsOf(cmd)
	if contentTypes[flag("as")] == "" {
		return fmt.Errorf("--as %s: must be text, json or binary", flag("as"))
	}
	// The API would refuse a bad name too. Here the error names the flag.
	for _, name := range []string{"channel", "event", "key", "conflate"} {
		if flag(name) == "" && name != "channel" { // not given; but a message always has a channel
			continue
		}
		if err := hub.CheckName("--"+name, flag(name)); err != nil {
			return err
		}
	}
	a, err := connect(cmd)
	if err != nil {
		return err
	}
	p := &publisher{api: a}
	if lines, _ := cmd.Flags().GetBool("lines"); lines {
		return publishLines(cmd, p, args)
	}
	return publishOne(cmd, p, args)
}

// flagsOf returns what a command's flags are set to, by their names.
func flagsOf(cmd *cobra.Command) func(name string) string {
	return func(name string) string { return cmd.Flag(name).Value.String() }
}

// publishLines publishes each line of the standard input.
func publishLines(cmd *cobra.Command, p *publisher, args []string) error {
	flag := flagsOf(cmd)
	switch {
	case len(args) > 0:
		return errors.New("--lines reads the standard input and cannot be combined with an argument")
	// All lines would have the same key. Equal ones would be published once, and others rejected.
	case flag("key") != "":
		return errors.New("--key cannot be combined with --lines")
	// A line break may be in the middle of binary data, so lines mean nothing there.
	case flag("as") == "binary":
		return errors.New("--lines cannot be combined with --as binary")
	}
	l := linePublisher{publisher: p, cmd: cmd, channel: flag("channel"), event: flag("event"), conflate: flag("conflate"), asJSON: flag("as") == "json"}
	if keep, _ := cmd.Flags().GetBool("keep"); !keep {
		l.keep = &keep
	}
	return l.run()
}

// publishOne publishes the argument, or the standard input, as one message.
func publishOne(cmd *cobra.Command, p *publisher, args []string) error {
	flag := flagsOf(cmd)
	var body []byte
	// A dash is the standard input, as for other commands.
	if len(args) == 1 && args[0] != "-" {
		body = []byte(args[0])
	} else {
		// One byte more than the API accepts is read, so that it rejects what is too long. Cut off, it would be another
		// message.
		var err error
		if body, err = io.ReadAll(io.LimitReader(cmd.InOrStdin(), maxLine+1)); err != nil {
			return err
		}
	}
	// In a script it mostly means that what should have made the data has failed, or that a variable is not set.
	if empty, _ := cmd.Flags().GetBool("empty"); len(body) == 0 && !empty {
		return errors.New("the message is empty, so nothing was published: to publish an empty message, add --empty")
	}
	// In the query and not in the body, because the body is the message as it is.
	query := url.Values{"channel": {flag("channel")}}
	for _, name := range []string{"event", "conflate"} {
		if value := flag(name); value != "" {
			query.Set(name, value)
		}
	}
	if keep, _ := cmd.Flags().GetBool("keep"); !keep {
		query.Set("keep", "0")
	}
	// Without --key it gets a key too, so that a retry by the publisher cannot publish it twice.
	header := http.Header{"Content-Type": {contentTypes[flag("as")]}, "Idempotency-Key": {cmp.Or(flag("key"), rand.Text())}}
	answer, err := p.publish(cmd.Context(), query, header, body)
	if err != nil {
		return err
	}
	return printAnswers(cmd, answer)
}

// printAnswers prints the admin API's response: one line per message, or unchanged with --json.
func printAnswers(cmd *cobra.Command, answers []byte) error {
	// --json prints what the API sends, so that scripts depend on one documented form only.
	out := cmd.OutOrStdout()
	if isJSON(cmd) {
		_, err := out.Write(answers)
		return err
	}
	for d := json.NewDecoder(bytes.NewReader(answers)); ; {
		var v struct {
			ID          string
			Subscribers int
		}
		// One message and many lines have answers of the same form, a JSON object each, so both are read here.
		if err := d.Decode(&v); err == io.EOF {
			return nil
		} else if err != nil {
			return fmt.Errorf("reading the response: %w", err)
		}
		// The ID first: cut -d' ' -f1 gets it, for a client that is to begin there.
		fmt.Fprintf(out, "%s to %d\n", v.ID, v.Subscribers)
	}
}
