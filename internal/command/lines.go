package command

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"sync"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/caddy-broadcast/caddy-broadcast/internal/adminclient"
)

const (
	// batchLines and batchBytes limit one request. They are well below the admin API's own limits of 65,536 lines and 16
	// MiB, so that a batch is published soon and one bad line does not cost much to send again.
	batchLines = 1000
	batchBytes = 8 << 20

	// maxLine is the longest message that the admin API accepts.
	maxLine = 1 << 20
)

// line is a line of the input, encoded for the admin API.
type line struct {
	number int
	body   []byte
}

// lines is a queue of lines to publish. It holds at most one batch, so that a fast input waits for the server instead of
// filling memory.
type lines struct {
	mu      sync.Mutex
	changed sync.Cond
	waiting []line
	bytes   int
	ended   bool
	err     error // the reading error that ended the input, or nil at its end
}

// newLines returns an empty queue. The condition needs its lock, so the zero value would not do.
func newLines() *lines {
	q := new(lines)
	q.changed.L = &q.mu
	return q
}

// add adds a line. It blocks while the queue is full.
func (q *lines) add(l line) {
	q.mu.Lock()
	defer q.mu.Unlock()
	// A line alone is always taken, however long it is. It could otherwise wait forever.
	for len(q.waiting) == batchLines || len(q.waiting) > 0 && q.bytes+len(l.body) > batchBytes {
		q.changed.Wait()
	}
	q.waiting = append(q.waiting, l)
	q.bytes += len(l.body)
	q.changed.Signal()
}

// end is called once, by the reader after its last line. What is queued is still taken.
func (q *lines) end(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ended, q.err = true, err
	q.changed.Signal()
}

// take returns all queued lines: while a request is under way the next batch gathers, so a slow server gets large batches and a
// fast one gets lines at once. It blocks until there is one, and returns none at the end of the input.
func (q *lines) take() ([]line, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.waiting) == 0 && !q.ended {
		q.changed.Wait()
	}
	batch := q.waiting
	// A new slice, since the batch is used without the lock from here on.
	q.waiting, q.bytes = nil, 0
	q.changed.Signal()
	if len(batch) == 0 {
		return nil, q.err
	}
	return batch, nil
}

// linePublisher publishes the lines of its input as messages.
type linePublisher struct {
	*publisher
	cmd            *cobra.Command
	channel, event string
	conflate       string
	asJSON         bool
	keep           *bool  // nil is true
	keys           string // prefix of the idempotency keys of this run

	mu  sync.Mutex
	bad int // lines that were not published
}

// run publishes lines as they arrive, all that are queued in one request. A bad line is reported, and the others are
// published.
func (p *linePublisher) run() error {
	// Random for each run: with the same keys a second run of the same input would publish nothing.
	p.keys = rand.Text()
	q := newLines()
	// The reader has its own goroutine, so that the input is read while a request is under way. It may stay behind in a
	// read of the standard input, which nothing can interrupt; the process ends soon after.
	go func() { q.end(p.read(q)) }()
	for {
		batch, err := q.take()
		if err == nil && len(batch) > 0 {
			err = p.publishBatch(batch)
		}
		switch {
		case err != nil:
			return err
		// The reader has ended before this, so bad needs no lock.
		case len(batch) == 0 && p.bad > 0:
			return fmt.Errorf("%d lines were not published", p.bad)
		case len(batch) == 0:
			return nil
		}
	}
}

// read reads the input to its end.
func (p *linePublisher) read(q *lines) error {
	// Not a bufio.Scanner, which ends at a line that is too long. Here such a line is reported, and the next ones are
	// published.
	in := bufio.NewReaderSize(p.cmd.InOrStdin(), 64<<10)
	for number := 1; ; number++ {
		text, long, err := readLine(in)
		// An input may end without a line break. An empty line is a message, but the end of the input is not one
		// more.
		if len(text) > 0 || err == nil {
			if body, bad := p.encode(number, text, long); bad != nil {
				p.report(number, bad)
			} else {
				q.add(line{number, body})
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// readLine returns a line without its end. If the line is too long, it returns only the beginning, so that an input without
// line breaks does not fill memory.
func readLine(in *bufio.Reader) (text []byte, long bool, err error) {
	for {
		part, err := in.ReadSlice('\n')
		if len(text) <= maxLine+1 { // one more for a CR
			text = append(text, part...)
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			text = bytes.TrimSuffix(text, []byte("\n"))
			// Inputs from Windows end lines with CR LF.
			text = bytes.TrimRight(text, "\r")
			return text, len(text) > maxLine, err
		}
	}
}

// encode returns the NDJSON line for a message.
func (p *linePublisher) encode(number int, text []byte, long bool) ([]byte, error) {
	// The number of the line is in the key, so that equal lines are two messages, and a retry of one is not.
	message := struct {
		Channel  string `json:"channel"`
		Event    string `json:"event,omitempty"`
		Conflate string `json:"conflate,omitempty"`
		Key      string `json:"key"`
		Data     any    `json:"data"`
		Keep     *bool  `json:"keep,omitempty"`
	}{p.channel, p.event, p.conflate, p.keys + "-" + strconv.Itoa(number), string(text), p.keep}
	switch {
	case long:
		return nil, fmt.Errorf("longer than %d bytes", maxLine)
	// The encoder would refuse it too, with an error that speaks of its own types.
	case p.asJSON && !json.Valid(text):
		return nil, errors.New("not valid JSON")
	case p.asJSON:
		message.Data = json.RawMessage(text)
	// Without this the encoder would put U+FFFD in place of what is wrong, and nobody would notice.
	case !utf8.Valid(text):
		return nil, errors.New("not valid UTF-8")
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	// The data goes on as it is: \u003c for every < would only make it larger.
	e.SetEscapeHTML(false)
	if err := e.Encode(message); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// report prints what is wrong with a line. The reader and the publisher call it, hence the lock.
// It goes to the standard error, so that a script which reads the IDs does not get it among them.
func (p *linePublisher) report(number int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.bad++
	fmt.Fprintf(p.cmd.ErrOrStderr(), "line %d: %s\n", number, visible(err.Error()))
}

// rejectedLine is how the admin API says which line of a request it rejects: badLine in internal/admin. Its lines are those of
// the request, not of the input.
var rejectedLine = regexp.MustCompile(`^line (\d+): (.*?)(; nothing was published)?$`)

// publishBatch publishes lines with one request. If the server rejects one of them, it publishes the others without it. The
// server publishes all or nothing, so nothing is sent twice, and each message keeps its key whatever request it is in.
func (p *linePublisher) publishBatch(batch []line) error {
	header := http.Header{"Content-Type": {"application/x-ndjson"}}
	for len(batch) > 0 {
		var body bytes.Buffer
		for _, l := range batch {
			body.Write(l.body)
		}
		answer, err := p.publish(p.cmd.Context(), nil, header, body.Bytes())
		if err == nil {
			return printAnswers(p.cmd, answer)
		}
		// An error that is not about one line ends the run: the next batch would most likely fail in the same way.
		i, reason := rejectedBy(err, len(batch))
		if i < 0 {
			return fmt.Errorf("lines %d to %d: %w", batch[0].number, batch[len(batch)-1].number, err)
		}
		p.report(batch[i].number, reason)
		batch = append(batch[:i:i], batch[i+1:]...)
	}
	return nil
}

// rejectedBy returns which of n lines a response rejects, and why, or -1 if the error does not concern a single line.
func rejectedBy(err error, n int) (index int, reason error) {
	answer := new(adminclient.Error)
	// A text of 5xx may begin in the same way and be about the server, so no line is dropped because of it.
	if !errors.As(err, &answer) || answer.Status >= 500 {
		return -1, nil
	}
	m := rejectedLine.FindStringSubmatch(answer.Text)
	if m == nil {
		return -1, nil
	}
	number, _ := strconv.Atoi(m[1])
	if number < 1 || number > n {
		return -1, nil
	}
	return number - 1, errors.New("rejected: " + m[2])
}
