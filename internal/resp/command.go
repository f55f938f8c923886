package resp

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// command is what the server does for one. args[0] is its name.
type command struct {
	run   func(c *Conn, args [][]byte)
	least int // arguments, with the name
	most  int

	// stranger, subscribed: who may send it that has not logged in, or that is subscribed and speaks RESP2, where what is
	// not a message could not be told from one.
	stranger, subscribed bool
}

const many = maxArgs

var commands map[string]command

// It is not an initializer because EXEC runs commands.
func init() {
	commands = map[string]command{
		"AUTH":         {run: (*Conn).auth, least: 2, most: many, stranger: true},
		"CLIENT":       {run: (*Conn).client, least: 2, most: many},
		"COMMAND":      {run: func(c *Conn, _ [][]byte) { c.replies = appendHead(c.replies, '*', 0) }, least: 1, most: many},
		"CONFIG":       {run: (*Conn).configGet, least: 2, most: many},
		"DISCARD":      {run: (*Conn).discard, least: 1, most: 1},
		"ECHO":         {run: func(c *Conn, args [][]byte) { c.replies = appendBulk(c.replies, args[1]) }, least: 2, most: 2},
		"EXEC":         {run: (*Conn).exec, least: 1, most: 1},
		"HELLO":        {run: (*Conn).hello, least: 1, most: many, stranger: true},
		"INFO":         {run: (*Conn).info, least: 1, most: many},
		"MULTI":        {run: (*Conn).multi, least: 1, most: 1},
		"PING":         {run: (*Conn).ping, least: 1, most: 2, subscribed: true},
		"PSUBSCRIBE":   {run: func(c *Conn, args [][]byte) { c.subscribe(byPattern, args[1:]) }, least: 2, most: many, subscribed: true},
		"PUBLISH":      {run: (*Conn).publish, least: 3, most: 3},
		"PUBSUB":       {run: (*Conn).pubsub, least: 2, most: many},
		"PUNSUBSCRIBE": {run: func(c *Conn, args [][]byte) { c.unsubscribe(byPattern, args[1:]) }, least: 1, most: many, subscribed: true},
		"QUIT":         {run: (*Conn).quitAfter, least: 1, most: many, stranger: true, subscribed: true},
		"RESET":        {run: (*Conn).reset, least: 1, most: 1, stranger: true, subscribed: true},
		"SELECT":       {run: (*Conn).selectDB, least: 2, most: 2},
		"SPUBLISH":     {run: (*Conn).publish, least: 3, most: 3},
		"SUBSCRIBE":    {run: func(c *Conn, args [][]byte) { c.subscribe(byChannel, args[1:]) }, least: 2, most: many, subscribed: true},
		"UNSUBSCRIBE":  {run: func(c *Conn, args [][]byte) { c.unsubscribe(byChannel, args[1:]) }, least: 1, most: many, subscribed: true},
	}
}

// maxCommandName is the length of the longest name in commands.
const maxCommandName = 12

// command runs a command.
func (c *Conn) command(args [][]byte) {
	// What a publisher sends nearly always, without looking it up.
	if len(args) == 3 && (is(args[0], "PUBLISH") || is(args[0], "SPUBLISH")) && c.loggedIn && c.transaction == nil && (c.version == 3 || c.subscribed() == 0) {
		c.publish(args)
		return
	}
	var name [maxCommandName]byte
	n := 0
	if len(args[0]) <= maxCommandName {
		for _, b := range args[0] {
			if b >= 'a' && b <= 'z' {
				b -= 'a' - 'A'
			}
			name[n] = b
			n++
		}
	}
	cmd, ok := commands[string(name[:n])]
	c.publishBatch() // the answers to what came before come first
	lower := func() string { return strings.ToLower(string(args[0])) }
	problem := ""
	switch {
	case !ok:
		problem = unknown(args)
	case len(args) < cmd.least || len(args) > cmd.most:
		problem = "ERR wrong number of arguments for '" + lower() + "' command"
	case !c.loggedIn && !cmd.stranger:
		problem = "NOAUTH Authentication required."
	case c.version == 2 && c.subscribed() > 0 && !cmd.subscribed:
		problem = "ERR Can't execute '" + lower() + "': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context"
	}
	if problem != "" {
		c.replies = appendError(c.replies, problem)
		if c.transaction != nil {
			c.transaction.failed = true
		}
		return
	}
	if c.transaction == nil || !c.queue(string(name[:n]), args) {
		cmd.run(c, args)
	}
}

// unknown is what Redis says of a command that it does not know. Of what may be long, it says the beginning.
func unknown(args [][]byte) string {
	const most = 128
	b := fmt.Appendf(nil, "ERR unknown command '%s', with args beginning with: ", args[0][:min(len(args[0]), most)])
	for rest := most; len(args) > 1 && rest > 0; {
		args = args[1:]
		part := args[0][:min(len(args[0]), rest)]
		b = fmt.Appendf(b, "'%s' ", part)
		rest -= len(part) + 3
	}
	return string(b)
}

// maxBatch is how much is given to the Publisher at once. More would save little, and others wait meanwhile.
const maxBatch = 128

// publish runs PUBLISH and SPUBLISH. The Publisher gets what is published with what comes directly behind it.
func (c *Conn) publish(args [][]byte) {
	if c.subscribed() > 0 {
		c.publishBatch()
		c.flush() // or what it gets of its own would come before the answers to what it sent before
	}
	reached := 0
	// What is published with SPUBLISH is not for those who are subscribed without the S.
	if len(args[0]) == len("PUBLISH") {
		reached = c.server.subs.relay(args[1], args[2])
	}
	c.batch, c.reached = append(c.batch, Publication{args[1], args[2]}), append(c.reached, reached)
	if len(c.batch) == maxBatch {
		c.publishBatch()
	}
}

// publishBatch gives the Publisher what it has not yet got.
func (c *Conn) publishBatch() {
	if len(c.batch) == 0 {
		return
	}
	c.answered = 0
	c.config.Publisher.Publish(c, c.batch)
	clear(c.batch) // or a long command would be kept by it
	c.batch, c.reached = c.batch[:0], c.reached[:0]
}

// Answer answers the next publication of those that Publish was called with: how many subscribers got it.
func (c *Conn) Answer(subscribers int) {
	c.replies = appendInt(c.replies, subscribers+c.reached[c.answered])
	c.answered++
}

// quitAfter runs QUIT: the connection ends after the answer.
func (c *Conn) quitAfter([][]byte) {
	c.replies, c.quit = append(c.replies, replyOK...), true
}

// ping runs PING. Who is subscribed by RESP2 gets an array, as with everything else that it gets.
func (c *Conn) ping(args [][]byte) {
	switch {
	case c.version == 2 && c.subscribed() > 0:
		message := []byte(nil)
		if len(args) > 1 {
			message = args[1]
		}
		c.replies = appendBulk(appendBulk(appendHead(c.replies, '*', 2), "pong"), message)
	case len(args) > 1:
		c.replies = appendBulk(c.replies, args[1])
	default:
		c.replies = append(c.replies, replyPong...)
	}
}

// selectDB runs SELECT. There is nothing in a database here, but clients select the one that their URL names.
func (c *Conn) selectDB(args [][]byte) {
	switch n, err := strconv.Atoi(string(args[1])); {
	case err != nil:
		c.replies = appendError(c.replies, "ERR value is not an integer or out of range")
	case n < 0 || n > 15:
		c.replies = appendError(c.replies, "ERR DB index is out of range")
	default:
		c.replies = append(c.replies, replyOK...)
	}
}

// client runs what of CLIENT libraries send when they connect.
func (c *Conn) client(args [][]byte) {
	switch sub := args[1]; {
	case is(sub, "ID") && len(args) == 2:
		c.replies = appendInt(c.replies, int(c.id))
	case is(sub, "GETNAME") && len(args) == 2:
		if len(c.name) == 0 {
			c.replies = appendNull(c.replies, c.version)
		} else {
			c.replies = appendBulk(c.replies, c.name)
		}
	case is(sub, "SETNAME") && len(args) == 3:
		c.setName(args[2])
	case is(sub, "SETINFO") && len(args) == 4: // of Redis 7.2: the library's name and version
		c.replies = append(c.replies, replyOK...)
	default:
		c.replies = appendError(c.replies, fmt.Sprintf("ERR unknown subcommand or wrong number of arguments for '%.128s'. Try CLIENT HELP.", sub))
	}
}

// setName keeps a name for who asks for it again.
func (c *Conn) setName(name []byte) bool {
	if len(name) > maxName || bytes.ContainsFunc(name, func(r rune) bool { return r < '!' || r > '~' }) {
		c.replies = appendError(c.replies, "ERR Client names cannot contain spaces, newlines or special characters.")
		return false
	}
	c.name = bytes.Clone(name)
	c.replies = append(c.replies, replyOK...)
	return true
}

// configGet runs CONFIG GET, which finds no setting.
func (c *Conn) configGet(args [][]byte) {
	switch {
	case !is(args[1], "GET") || len(args) < 3:
		c.replies = appendError(c.replies, "ERR CONFIG knows only GET here")
	case c.version == 3:
		c.replies = appendHead(c.replies, '%', 0)
	default:
		c.replies = appendHead(c.replies, '*', 0)
	}
}

// pubsub runs PUBSUB NUMSUB and SHARDNUMSUB. It says 0 even of names with subscribers: redis-adapter takes the number as how
// many other servers will answer its requests, and none does.
func (c *Conn) pubsub(args [][]byte) {
	if !is(args[1], "NUMSUB") && !is(args[1], "SHARDNUMSUB") {
		c.replies = appendError(c.replies, fmt.Sprintf("ERR unknown subcommand or wrong number of arguments for '%.128s'. Try PUBSUB HELP.", args[1]))
		return
	}
	names := args[2:]
	c.replies = appendHead(c.replies, '*', 2*len(names))
	for _, name := range names {
		c.replies = appendInt(appendBulk(c.replies, name), 0)
	}
}

// info runs INFO. ioredis waits for it, and for loading to be 0, before it sends anything else.
func (c *Conn) info([][]byte) {
	const text = "# Server\r\nredis_version:" + redisVersion + "\r\nredis_mode:standalone\r\n\r\n" +
		"# Persistence\r\nloading:0\r\n\r\n# Replication\r\nrole:master\r\nconnected_slaves:0\r\n"
	if c.version == 3 {
		c.replies = append(appendHead(c.replies, '=', len("txt:")+len(text)), "txt:"...)
		c.replies = append(append(c.replies, text...), "\r\n"...)
		return
	}
	c.replies = appendBulk(c.replies, text)
}
