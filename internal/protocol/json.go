package protocol

// AppendGap appends the JSON object by which clients learn which channels they miss messages of, and, if it is known, the
// position from which on they miss nothing.
func AppendGap(dst []byte, channels []string, id string) []byte {
	dst = AppendStrings(append(dst, `{"channels":`...), channels)
	if id != "" {
		dst = append(append(append(dst, `,"id":"`...), id...), '"')
	}
	return append(dst, '}')
}

// AppendStrings appends a JSON array of strings.
func AppendStrings(dst []byte, ss []string) []byte {
	dst = append(dst, '[')
	for i, s := range ss {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = AppendString(dst, s)
	}
	return append(dst, ']')
}

// AppendString appends a JSON string (RFC 8259, section 7). s is UTF-8. Encoding/json escapes more, for HTML, and would
// allocate on the path of every message.
func AppendString[T string | []byte](dst []byte, s T) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	from := 0
	for i := range len(s) {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		dst = append(dst, s[from:i]...)
		from = i + 1
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
	}
	return append(append(dst, s[from:]...), '"')
}
