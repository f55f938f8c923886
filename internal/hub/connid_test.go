package hub

import "testing"

// TestConnID: an ID has one spelling. It names the node while there may be others.
func TestConnID(t *testing.T) {
	h := New(Config{})
	defer closeHub(h)
	if s := h.ShowID(12); s != "c12" {
		t.Errorf("alone, it is %q", s)
	}
	newFakeCluster().join(t, h)
	if s := h.ShowID(12); s != NodeText(h.Node())+".c12" {
		t.Errorf("with others, it is %q", s)
	}
	for s, want := range map[string]string{"c12": "", "k3x9f2.c12": "k3x9f2", h.ShowID(12): NodeText(h.Node())} {
		if node, id, err := ParseConnID(s); node != want || id != 12 || err != nil {
			t.Errorf("%q is %d of %q, %v", s, id, node, err)
		}
	}
	for _, s := range []string{"", "c", "12", "c0", "c012", "c-1", "cc1", "c1 ", "c18446744073709551616",
		".c1", "k3x9f2.", "k3x9f2.12", "k3x9f.c12", "k3x9f2a.c12", "K3X9F2.c12", "k3x9fl.c12", "k3x9f2..c12", "k3x9f2.k3x9f2.c12"} {
		if node, id, err := ParseConnID(s); err == nil {
			t.Errorf("%q is %d of %q", s, id, node)
		}
	}
}
