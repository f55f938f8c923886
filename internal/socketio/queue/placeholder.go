package queue

import (
	"errors"
	"fmt"
	"strconv"
)

// maxAttachments is how many attachments the clients accept: since socket.io-parser 4.2.6 a client disconnects if an event
// has more ("too many attachments", lib/index.ts).
const maxAttachments = 10

// placeholders checks the placeholders of an event that has attachments. Each has to name an attachment, and each
// attachment has to be named. One wrong number would make every client that receives the event disconnect ("illegal
// attachments", socket.io-parser, lib/binary.ts).
//
// A client looks for placeholders only in events with attachments, so in others the same objects are plain data.
type placeholders struct {
	r    jsonReader
	n    int // how many attachments there are
	used [maxAttachments]bool
}

// checkPlaceholders checks the placeholders in the JSON array of an event's name and arguments, which is valid.
func checkPlaceholders(array []byte, attachments int) error {
	if attachments > maxAttachments {
		return fmt.Errorf("%d attachments: clients accept %d", attachments, maxAttachments)
	}
	c := placeholders{r: jsonReader{p: array}, n: attachments}
	// The array is one level around the arguments.
	if err := c.value(maxDepth + 1); err != nil {
		return err
	}
	for i, used := range c.used[:attachments] {
		if !used {
			return fmt.Errorf("no placeholder names attachment %d", i)
		}
	}
	return nil
}

// value looks into a value. The depth bounds the recursion, although what made the array has checked it before.
func (c *placeholders) value(depth int) error {
	switch c.r.next() {
	case '{':
		return c.object(depth)
	case '[':
		return c.array(depth)
	}
	return c.r.skip(depth)
}

func (c *placeholders) array(depth int) error {
	if depth == 0 {
		return errDepth
	}
	c.r.i++
	for next := c.r.next(); next != ']'; next = c.r.next() {
		if next == ',' {
			c.r.i++
		}
		if err := c.value(depth - 1); err != nil {
			return err
		}
	}
	c.r.i++
	return nil
}

// object checks an object. Its keys may be written with escapes, and twice: the last one counts, as in the clients.
func (c *placeholders) object(depth int) error {
	placeholder, num := false, -1
	err := c.r.members(func(key []byte, depth int) error {
		name, err := unquoted(key)
		if err != nil {
			return err
		}
		c.r.next()
		from := c.r.i
		if err := c.value(depth); err != nil {
			return err
		}
		switch raw := c.r.p[from:c.r.i]; string(name) {
		case "_placeholder":
			placeholder = string(raw) == "true"
		case "num":
			num = attachmentNumber(raw)
		}
		return nil
	}, depth)
	if err != nil || !placeholder {
		return err
	}
	if num < 0 || num >= c.n {
		return errors.New("a placeholder does not name an attachment")
	}
	c.used[num] = true
	return nil
}

// attachmentNumber returns the number that the JSON value is, or -1 if it is not written as the reference writes it. The
// clients would also take 0.5, and hand over undefined.
func attachmentNumber(raw []byte) int {
	if len(raw) > 2 { // maxAttachments has no more digits
		return -1
	}
	n, err := strconv.Atoi(string(raw))
	if err != nil || strconv.Itoa(n) != string(raw) {
		return -1
	}
	return n
}
