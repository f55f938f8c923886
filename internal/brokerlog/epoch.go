package brokerlog

// IsEpoch reports whether a text can be an epoch, as broker.Sink has it: 1 to 32 letters and digits.
func IsEpoch(text string) bool {
	for i := range len(text) {
		if c := text[i]; (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			return false
		}
	}
	return len(text) >= 1 && len(text) <= 32
}
