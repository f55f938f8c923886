package resp

import (
	"fmt"
	"strconv"

	"go.uber.org/zap"
)

// redisVersion is what clients take the server for. What they use of later versions they try, and do without.
const redisVersion = "7.0.0"

// Errors of logins. Clients look at the first word.
const (
	wrongPass  = "WRONGPASS invalid username-password pair or user is disabled."
	noPassword = "ERR AUTH <password> called without any password configured for the default user. " +
		"Are you sure your configuration is correct?"
	noHello = "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> " +
		"option can be used to authenticate the client and select the RESP protocol version at the same time"
)

// auth runs AUTH, with or without a user's name.
func (c *Conn) auth(args [][]byte) {
	user := []byte("default")
	switch {
	case len(args) > 3:
		c.replies = appendError(c.replies, "ERR syntax error")
		return
	case len(args) == 3:
		user = args[1]
	case c.config.Password == "":
		c.replies = appendError(c.replies, noPassword)
		return
	}
	if c.login(user, args[len(args)-1]) {
		c.replies = append(c.replies, replyOK...)
	}
}

// login logs the client in, or answers why not.
func (c *Conn) login(user, password []byte) bool {
	if !c.config.mayLogIn(user, password) {
		c.replies = appendError(c.replies, wrongPass)
		c.wrongLogins++
		c.quit = c.wrongLogins == maxWrongLogins
		c.server.complain.login.Do(func() {
			c.config.Log.Warn("a Redis client could not log in", zap.Stringer("client", c.nc.RemoteAddr()))
		})
		return false
	}
	c.letIn()
	return true
}

// letIn has the client be logged in.
func (c *Conn) letIn() {
	if !c.loggedIn {
		c.loggedIn = true
		c.setDeadline(noDeadline)
	}
}

// hello runs HELLO [version [AUTH user password] [SETNAME name]]. As in Redis, the login counts even if what is behind it is
// wrong.
func (c *Conn) hello(args [][]byte) {
	version, name := c.version, []byte(nil)
	if len(args) > 1 {
		n, err := strconv.Atoi(string(args[1]))
		if err != nil {
			c.replies = appendError(c.replies, "ERR Protocol version is not an integer or out of range")
			return
		}
		if n != 2 && n != 3 {
			c.replies = appendError(c.replies, "NOPROTO unsupported protocol version")
			return
		}
		version = n
	}
	for i := 2; i < len(args); {
		switch rest := len(args) - i - 1; {
		case is(args[i], "AUTH") && rest >= 2:
			if !c.login(args[i+1], args[i+2]) {
				return
			}
			i += 3
		case is(args[i], "SETNAME") && rest >= 1:
			name = args[i+1]
			i += 2
		default:
			c.replies = appendError(c.replies, fmt.Sprintf("ERR Syntax error in HELLO option '%.128s'", args[i]))
			return
		}
	}
	if !c.loggedIn {
		c.replies = appendError(c.replies, noHello)
		return
	}
	if name != nil {
		before := len(c.replies)
		if !c.setName(name) {
			return
		}
		c.replies = c.replies[:before]
	}
	c.setVersion(version)
	c.greet()
}

// setVersion sets the version of the protocol.
func (c *Conn) setVersion(version int) {
	c.version = version
	c.pushVersion.Store(int32(version))
}

// greet answers a HELLO.
func (c *Conn) greet() {
	b := c.replies
	if c.version == 3 {
		b = appendHead(b, '%', 7)
	} else {
		b = appendHead(b, '*', 14)
	}
	b = appendBulk(appendBulk(b, "server"), "redis")
	b = appendBulk(appendBulk(b, "version"), redisVersion)
	b = appendInt(appendBulk(b, "proto"), c.version)
	b = appendInt(appendBulk(b, "id"), int(c.id))
	b = appendBulk(appendBulk(b, "mode"), "standalone")
	b = appendBulk(appendBulk(b, "role"), "master")
	c.replies = appendHead(appendBulk(b, "modules"), '*', 0)
}

// reset runs RESET: the connection is as it was at its beginning.
func (c *Conn) reset([][]byte) {
	c.server.subs.removeAll(c)
	c.setVersion(2)
	c.name, c.transaction = nil, nil
	if c.loggedIn && c.config.Password != "" { // a stranger gets no more time
		c.loggedIn = false
		c.awaitLogin()
	}
	c.replies = append(c.replies, "+RESET\r\n"...)
}
