package redis

type counters struct{}

func (c *counters) init(l *log)      {}
func (c *counters) use(s *session)   {}
func (c *counters) leave(s *session) {}
func (c *counters) down()            {}

func (l *log) receiveMessage(text string) {}
