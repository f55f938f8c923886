package packet

// span is a part of what a reader reads.
type span struct{ start, end int }

// list is the array of a packet: the event and its arguments, or arguments alone.
type list struct {
	reader
	first span // the first element
	tail  span // the others, and the commas between them
	count int  // of all elements
}

// read reads the array that p is, with white space around it. It reports whether it is valid, and has a placeholder for
// each attachment.
func (l *list) read(p []byte, attachments int) bool {
	l.reader = reader{p: p, attachments: attachments}
	if l.space() != '[' || !l.elements() {
		return false
	}
	l.space()
	return l.i == len(p) && l.found == attachments
}

// elements reads the array, as reader.array does.
func (l *list) elements() bool {
	l.i++
	if l.space() == ']' {
		l.i++
		return true
	}
	for {
		l.space()
		element := span{start: l.i}
		if !l.value(maxDepth - 1) {
			return false
		}
		element.end = l.i
		switch l.count++; l.count {
		case 1:
			l.first = element
		case 2:
			l.tail = element
		default:
			l.tail.end = element.end
		}
		switch l.space() {
		case ']':
			l.i++
			return true
		case ',':
			l.i++
		default:
			return false
		}
	}
}

// of returns what a span is of.
func (l *list) of(s span) []byte { return l.p[s.start:s.end] }

// arguments returns which elements are arguments, and how many there are. The first is not if it is the event.
func (l *list) arguments(event bool) (s span, count int) {
	switch {
	case event:
		return l.tail, l.count - 1
	case l.count < 2:
		return l.first, l.count
	}
	return span{l.first.start, l.tail.end}, l.count
}
