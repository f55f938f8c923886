package resp

import "bytes"

// transaction is what came since MULTI. redis-py's pipelines are transactions unless told otherwise, and so are the multi() of
// ioredis and node-redis, so many who want to publish fast send MULTI and EXEC around it. Nothing here is a transaction: EXEC
// runs the commands one after the other, and other connections publish in between.
type transaction struct {
	commands [][][]byte
	size     int
	failed   bool // one of the commands was wrong, so none is run
}

// transactionOverhead is what a command and an argument cost beside their bytes: a slice each.
const transactionOverhead = 24

// queue keeps a command for EXEC, and reports whether it did: those that end a transaction are run at once.
func (c *Conn) queue(name string, args [][]byte) bool {
	t := c.transaction
	switch name {
	case "EXEC", "DISCARD", "QUIT", "RESET", "MULTI":
		return false
	case "PUBLISH", "SPUBLISH", "PING", "ECHO", "SELECT", "CLIENT", "INFO", "PUBSUB", "CONFIG", "COMMAND":
	default:
		t.failed = true
		c.replies = appendError(c.replies, "ERR Command not allowed inside a transaction")
		return true
	}
	t.size += transactionOverhead
	for _, a := range args {
		t.size += len(a) + transactionOverhead
	}
	if t.size > maxCommand {
		// None will be run, so none needs to be kept.
		t.failed, t.commands = true, nil
		c.replies = appendError(c.replies, "ERR the transaction is too long: send the commands in parts, or without MULTI")
		return true
	}
	kept := make([][]byte, len(args))
	for i, a := range args {
		kept[i] = bytes.Clone(a)
	}
	t.commands = append(t.commands, kept)
	c.replies = append(c.replies, "+QUEUED\r\n"...)
	return true
}

// multi runs MULTI.
func (c *Conn) multi([][]byte) {
	switch {
	case c.transaction != nil:
		c.replies = appendError(c.replies, "ERR MULTI calls can not be nested")
	case c.subscribed() > 0:
		// A message could come in the middle of the answer to EXEC, which is one array.
		c.replies = appendError(c.replies, "ERR MULTI is not possible with subscriptions here")
	default:
		c.transaction = new(transaction)
		c.replies = append(c.replies, replyOK...)
	}
}

// discard runs DISCARD.
func (c *Conn) discard([][]byte) {
	if c.transaction == nil {
		c.replies = appendError(c.replies, "ERR DISCARD without MULTI")
		return
	}
	c.transaction = nil
	c.replies = append(c.replies, replyOK...)
}

// exec runs EXEC.
func (c *Conn) exec([][]byte) {
	t := c.transaction
	c.transaction = nil
	switch {
	case t == nil:
		c.replies = appendError(c.replies, "ERR EXEC without MULTI")
	case t.failed:
		c.replies = appendError(c.replies, "EXECABORT Transaction discarded because of previous errors.")
	default:
		c.replies = appendHead(c.replies, '*', len(t.commands))
		for _, args := range t.commands {
			if c.async && !c.awaitRoom() {
				return
			}
			c.command(args)
			if len(c.replies) >= maxReplies {
				c.flush()
			}
		}
		c.publishBatch()
	}
}
