package hub

import "testing"

// TestConnID: an ID has one spelling.
func TestConnID(t *testing.T) {
	if id, err := ParseConnID(ConnID(12).String()); id != 12 || err != nil {
		t.Errorf("c12 is %d, %v", id, err)
	}
	for _, s := range []string{"", "c", "12", "c0", "c012", "c-1", "cc1", "c1 ", "c18446744073709551616"} {
		if id, err := ParseConnID(s); err == nil {
			t.Errorf("%q is %d", s, id)
		}
	}
}
