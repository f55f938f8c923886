package queue

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
)

// pickleOf wraps the opcodes that make the data in a message. The marks are on the stack below.
func pickleOf(data string) string {
	return "\x80\x04}(\x8c\x06method\x8c\x04emit\x8c\x05event\x8c\x01x\x8c\x04data" + data + "u."
}

// TestPickleOpcodes: what each accepted opcode makes. Python 3.8 and later do not write all of them.
func TestPickleOpcodes(t *testing.T) {
	emit := func(args string) string { return `emit / x 1 ["x",` + args + `]` }
	checkOutcomes(t, "socketio", []outcome{
		{"NONE", pickleOf("N"), `emit / x 0 ["x"]`},
		{"NEWTRUE", pickleOf("\x88"), emit("true")},
		{"NEWFALSE", pickleOf("\x89"), emit("false")},
		{"BININT", pickleOf("J\xfe\xff\xff\xff"), emit("-2")},
		{"BININT1", pickleOf("K\xff"), emit("255")},
		{"BININT2", pickleOf("M\x01\x02"), emit("513")},
		{"LONG1 of none", pickleOf("\x8a\x00"), emit("0")},
		{"LONG1", pickleOf("\x8a\x02\xff\xff"), emit("-1")},
		{"LONG1 of 8", pickleOf("\x8a\x08\x00\x00\x00\x00\x00\x00\x00\x80"), emit("-9223372036854775808")},
		{"BINFLOAT", pickleOf("G\x3f\xf8\x00\x00\x00\x00\x00\x00"), emit("1.5")},
		{"BINUNICODE", pickleOf("X\x02\x00\x00\x00\xc3\xa9"), emit(`"é"`)},
		{"BINUNICODE8", pickleOf("\x8d\x01\x00\x00\x00\x00\x00\x00\x00y"), emit(`"y"`)},
		{"BINBYTES", pickleOf("B\x01\x00\x00\x00y"), emit(`{"_placeholder":true,"num":0}`) + ` "y"`},
		{"BINBYTES8", pickleOf("\x8e\x01\x00\x00\x00\x00\x00\x00\x00y"), emit(`{"_placeholder":true,"num":0}`) + ` "y"`},
		{"EMPTY_TUPLE", pickleOf(")"), `emit / x 0 ["x"]`},
		{"TUPLE", pickleOf("(K\x01N\x88K\x04t"), `emit / x 4 ["x",1,null,true,4]`},
		{"TUPLE1", pickleOf("K\x01\x85"), `emit / x 1 ["x",1]`},
		{"TUPLE2", pickleOf("K\x01K\x02\x86"), `emit / x 2 ["x",1,2]`},
		{"TUPLE3", pickleOf("K\x01K\x02K\x03\x87"), `emit / x 3 ["x",1,2,3]`},
		{"APPEND", pickleOf("]K\x01aK\x02a"), emit("[1,2]")},
		{"SETITEM", pickleOf("}K\x01K\x02s"), emit(`{"1":2}`)},
		{"BINPUT", pickleOf("]q\x00h\x00\x86"), `emit / x 2 ["x",[],[]]`},
		{"a key without a value", pickleOf("]q\x00h\x00"), "error: not a dict"},
		{"LONG_BINPUT", pickleOf("]r\x00\x00\x00\x00j\x00\x00\x00\x00\x86"), `emit / x 2 ["x",[],[]]`},
		{"memo", pickleOf("(]\x94K\x01ah\x00j\x00\x00\x00\x00t"), `emit / x 3 ["x",[1],[1],[1]]`},
		{"put again", pickleOf("(]q\x00K\x01q\x00h\x00t"), `emit / x 3 ["x",[],1,1]`},
		{"nested frames", pickleOf("\x95\x01\x00\x00\x00\x00\x00\x00\x00N"), `emit / x 0 ["x"]`},
		{"set twice", pickleOf("N\x8c\x04dataK\x01"), emit("1")},
		{"other fields", pickleOf("N\x8c\x05other\x8c\x01y\x8c\x04roomC\x01a"), `error: "room": bytes`},
	})
}

// TestPickleRefused executes every byte that is not an accepted opcode, with arguments on the stack and behind it.
func TestPickleRefused(t *testing.T) {
	accepted := map[byte]bool{}
	for _, op := range []byte{opFrame, opStop, opMark, opNone, opNewTrue, opNewFalse, opBinInt, opBinInt1, opBinInt2, opLong1, opBinFloat,
		opShortBinUnicode, opBinUnicode, opBinUnicode8, opShortBinBytes, opBinBytes, opBinBytes8, opByteArray8, opEmptyDict, opEmptyList,
		opEmptyTuple, opTuple, opTuple1, opTuple2, opTuple3, opAppend, opAppends, opSetItem, opSetItems, opMemoize, opBinPut, opLongBinPut,
		opBinGet, opLongBinGet} {
		accepted[op] = true
	}
	const stack = "\x8c\x02os\x8c\x06system"
	refused := 0
	for c := range 256 {
		op := byte(c)
		if accepted[op] {
			continue
		}
		refused++
		_, err := testDecoder.Decode("socketio", []byte(pickleOf(stack+string([]byte{op})+"os\nsystem\n\x00\x00\x00\x00\x00\x00\x00\x00.")))
		switch {
		case err == nil:
			t.Errorf("the opcode %#02x (%c) is accepted", op, op)
		case op == opGlobal || op == opInst || op == opStackGlobal:
			if !strings.Contains(err.Error(), "os.system: only data") {
				t.Errorf("%#02x: %v", op, err)
			}
		case refusedOpcodes[op] != "":
			if !strings.Contains(err.Error(), "refused "+refusedOpcodes[op]) {
				t.Errorf("%#02x: %v", op, err)
			}
		case !strings.Contains(err.Error(), fmt.Sprintf("%#02x", op)):
			t.Errorf("%#02x: %v", op, err)
		}
	}
	if want := 256 - 34; refused != want {
		t.Errorf("%d opcodes are refused, want %d", refused, want)
	}
	// Python has 68 opcodes (pickletools.opcodes, 3.14): 35 are accepted, and the others are explained.
	if n := len(refusedOpcodes) + 3 - 1 + 35; n != 68 {
		t.Errorf("%d opcodes are known, want 68", n)
	}
}

// TestPickleInvalid: what no pickler writes.
func TestPickleInvalid(t *testing.T) {
	long := func(op byte, n string) string { return string([]byte{op}) + n }
	checkOutcomes(t, "socketio", []outcome{
		{"nothing", "\x80", "error: truncated"},
		{"no STOP", "\x80\x04N", "error: truncated"},
		{"protocol 1", "\x80\x01N.", "error: protocol 1"},
		{"protocol 6", "\x80\x06N.", "error: protocol 6"},
		{"not a dict", "\x80\x04N.", "error: not a dict"},
		{"empty stack", "\x80\x04.", "error: STOP"},
		{"two values", "\x80\x04NN.", "error: STOP"},
		{"open mark", "\x80\x04(N.", "error: STOP"},
		{"behind STOP", "\x80\x04}.N", "error: STOP"},
		{"no method", "\x80\x04}.", "error: method"},
		{"key of another type", "\x80\x04}K\x01Ns.", "error: a key is not a string"},
		{"TUPLE without mark", "\x80\x04Nt.", "error: a mark is missing"},
		{"TUPLE2 below the mark", "\x80\x04N(N\x86.", "error: a value is missing"},
		{"APPEND to nothing", "\x80\x04Na.", "error: a value is missing"},
		{"APPEND below the mark", "\x80\x04](Na.", "error: a value is missing"},
		{"APPEND to a dict", "\x80\x04}Na.", "error: not a list"},
		{"APPEND to a tuple", "\x80\x04)Na.", "error: not a list"},
		{"APPEND to a number", "\x80\x04K\x01Na.", "error: not a list"},
		{"APPENDS without mark", "\x80\x04]Ne.", "error: a mark is missing"},
		{"SETITEM of a list", "\x80\x04]NNs.", "error: not a dict"},
		{"SETITEMS of an odd number", "\x80\x04}(Nu.", "error: not a dict"},
		{"MEMOIZE nothing", "\x80\x04\x94.", "error: a value is missing"},
		{"MEMOIZE a mark", "\x80\x04N(\x94.", "error: a value is missing"},
		{"BINGET of nothing", "\x80\x04h\x00.", "error: memo"},
		{"BINGET beyond", "\x80\x04N\x94h\x01.", "error: memo"},
		{"LONG_BINGET beyond", "\x80\x04N\x94j\xff\xff\xff\xff.", "error: memo"},
		{"BINPUT beyond", "\x80\x04Nq\x01.", "error: memo entry 1"},
		{"LONG_BINPUT beyond", "\x80\x04Nr\xff\xff\xff\xff.", "error: memo entry 4294967295"},
		{"frame beyond", "\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\xffN.", "error: truncated"},
		{"string beyond", "\x80\x04\x8c\x05abc.", "error: truncated"},
		{"huge string", "\x80\x04X\xff\xff\xff\xffabc.", "error: truncated"},
		{"huger string", "\x80\x04" + long(opBinUnicode8, "\xff\xff\xff\xff\xff\xff\xff\xff"), "error: truncated"},
		{"huge bytes", "\x80\x04" + long(opBinBytes8, "\x00\x00\x00\x00\x00\x00\x00\x80"), "error: truncated"},
		{"huge bytearray", "\x80\x04" + long(opByteArray8, "\xff\xff\xff\xff\xff\xff\xff\x7f"), "error: truncated"},
		{"LONG1 of 9", pickleOf("\x8a\x09123456789"), "error: 9 bytes"},
		{"string not UTF-8", pickleOf("\x8c\x01\xff"), "error: not Unicode"},
		{"class with line breaks", "\x80\x04\x8c\x02\x1b\n\x8c\x01x\x93.", `error: "\x1b\n.x": only data`},
		{"class with a long name", "\x80\x04c" + strings.Repeat("x", 100000) + "\ny\n.", `error: xxx"…: only data`},
		{"numpy", "\x80\x04\x8c\x15numpy.core.multiarray\x94\x8c\x06scalar\x94\x93.", "error: numpy.core.multiarray.scalar: send tolist()"},
		{"class of no strings", "\x80\x04NN\x93.", "error: not a string"},
		{"class of nothing", "\x80\x04\x93.", "error: a value is missing"},
		{"GLOBAL without end", "\x80\x04cos\nsystem", "error: truncated"},
		{"too many marks", "\x80\x04" + strings.Repeat("(", maxMarks+1), "error: 256 marks"},
		{"too large a stack", "\x80\x04" + strings.Repeat("N", maxStack+1), "error: too many values"},
		{"too many values", "\x80\x04]" + strings.Repeat("("+strings.Repeat("]", 1000)+"e", 300), "error: too many values"},
		{"too large a memo", "\x80\x04N" + strings.Repeat("\x94", maxMemo+1), "error: memo entry 65536"},
	})
}

// TestPickleTruncated cuts recorded pickles at every byte, changes every byte, and leaves every byte out.
func TestPickleTruncated(t *testing.T) {
	for _, r := range readRecorded(t, "python.jsonl") {
		if r.Channel != "socketio" || len(r.Payload) > 2000 || r.Name == "refused bomb" {
			continue // TestPickleBombs
		}
		p := r.Payload
		for i := range p {
			if _, err := testDecoder.Decode(r.Channel, p[:i:i]); err == nil {
				t.Errorf("%s: accepted up to byte %d", r.Name, i)
			}
			checkEvent(t, append(p[:i:i], p[i+1:]...), r.Channel)
			for _, bit := range []byte{1, 0x10, 0x80, 0xff} {
				changed := append([]byte(nil), p...)
				changed[i] ^= bit
				checkEvent(t, changed, r.Channel)
			}
		}
	}
}

// TestPickleBombs: small pickles that stand for much more than they are, and large ones of the smallest values, cost
// little memory.
func TestPickleBombs(t *testing.T) {
	// Each list holds the one before, ten times.
	tower := "(K\x01\x94"
	for i := range 40 {
		get := fmt.Sprintf("h%c", i)
		tower += "](" + strings.Repeat(get, 10) + "e\x94"
	}
	tower += "t"
	var tuples strings.Builder // tuples of two, each of the one before twice
	tuples.WriteString("N\x94")
	for i := range 50 {
		fmt.Fprintf(&tuples, "h%c\x86\x94", i)
	}
	text := "X\x00\x00\x01\x00" + strings.Repeat("y", 1<<16)
	bytes := "B\x00\x00\x01\x00" + strings.Repeat("y", 1<<16)
	for _, c := range []struct{ name, data, want string }{
		{"10^40", tower, "max_message"},
		{"2^50", tuples.String(), "max_message"},
		{"string repeated", "(" + text + "\x94" + strings.Repeat("h\x00", 1000) + "t", "max_message"},
		{"bytes repeated", "(" + bytes + "\x94" + strings.Repeat("h\x00", 1000) + "t", "attachments"},
		{"control characters", "X\x00\x00\x10\x00" + strings.Repeat("\x01", 1<<20), "max_message"},
		{"contains itself", "]\x94h\x00a", "contains itself"},
		{"dict contains itself", "}\x94\x8c\x01kh\x00s", "contains itself"},
		{"tuple contains itself", "]\x94h\x00\x85a", "contains itself"},
		{"contains itself twice", "]\x94(h\x00h\x00e", "contains itself"},
		{"in the room", "N\x8c\x04room]\x94h\x00a", `"room": more than`},
		{"empty lists", "](" + strings.Repeat("]", 60000) + "e", ""},
		{"lists of one", "]" + strings.Repeat("("+strings.Repeat("]Na", 500)+"e", 200), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := []byte(pickleOf(c.data))
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := testDecoder.Decode("socketio", p)
			runtime.ReadMemStats(&after)
			if (err == nil) != (c.want == "") || err != nil && c.want != "error" && !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v", err)
			}
			n := after.TotalAlloc - before.TotalAlloc
			t.Logf("%d bytes are allocated for a payload of %d", n, len(p))
			if n > 40<<20 {
				t.Errorf("%d bytes are allocated for a payload of %d", n, len(p))
			}
		})
	}
}
