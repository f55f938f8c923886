package queue

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
)

// The opcodes that are accepted (Lib/pickle.py). None of them looks up a class or calls anything.
const (
	opProto           = 0x80
	opFrame           = 0x95
	opStop            = '.'
	opMark            = '('
	opNone            = 'N'
	opNewTrue         = 0x88
	opNewFalse        = 0x89
	opBinInt          = 'J'
	opBinInt1         = 'K'
	opBinInt2         = 'M'
	opLong1           = 0x8a
	opBinFloat        = 'G'
	opShortBinUnicode = 0x8c
	opBinUnicode      = 'X'
	opBinUnicode8     = 0x8d
	opShortBinBytes   = 'C'
	opBinBytes        = 'B'
	opBinBytes8       = 0x8e
	opByteArray8      = 0x96
	opEmptyDict       = '}'
	opEmptyList       = ']'
	opEmptyTuple      = ')'
	opTuple           = 't'
	opTuple1          = 0x85
	opTuple2          = 0x86
	opTuple3          = 0x87
	opAppend          = 'a'
	opAppends         = 'e'
	opSetItem         = 's'
	opSetItems        = 'u'
	opMemoize         = 0x94
	opBinPut          = 'q'
	opLongBinPut      = 'r'
	opBinGet          = 'h'
	opLongBinGet      = 'j'
)

// Opcodes that are refused, and name a class.
const (
	opGlobal      = 'c'
	opInst        = 'i'
	opStackGlobal = 0x93
)

// refusedOpcodes says what the opcodes that are refused are for. It is only for the log: what is not in unpickler.do is
// refused, also if it is not listed here.
var refusedOpcodes = map[byte]string{
	0x82: "EXT1: a registered class", 0x83: "EXT2: a registered class", 0x84: "EXT4: a registered class",
	'P': "PERSID: a persistent object", 'Q': "BINPERSID: a persistent object",
	'R': "REDUCE: a call", 'b': "BUILD: the state of an object", 'o': "OBJ: an object",
	0x81: "NEWOBJ: an object", 0x92: "NEWOBJ_EX: an object",
	0x8f: "EMPTY_SET: send a list in place of a set", 0x90: "ADDITEMS: send a list in place of a set",
	0x91: "FROZENSET: send a list in place of a frozenset",
	0x8b: "LONG4: send integers beyond 64 bits as strings",
	'T':  "BINSTRING: a string of Python 2", 'U': "SHORT_BINSTRING: a string of Python 2",
	0x97: "NEXT_BUFFER: a buffer that is not in the pickle", 0x98: "READONLY_BUFFER: a buffer that is not in the pickle",
	'0': "POP", '1': "POP_MARK", '2': "DUP", 0x80: "PROTO: a pickle in a pickle",
	'I': "INT of protocol 0", 'L': "LONG of protocol 0", 'F': "FLOAT of protocol 0", 'S': "STRING of protocol 0",
	'V': "UNICODE of protocol 0", 'd': "DICT of protocol 0", 'l': "LIST of protocol 0", 'g': "GET of protocol 0",
	'p': "PUT of protocol 0",
}

// advice says what to send in place of an object of a class. These are the classes that programs send by mistake. JSON, so
// python-socketio 5.14 or later, knows what is a dict. It does not know dates and the like.
var advice = map[string]string{
	"collections.OrderedDict": "send plain dicts, or use python-socketio 5.14 or later",
	"collections.defaultdict": "send plain dicts, or use python-socketio 5.14 or later",
	"collections.Counter":     "send plain dicts, or use python-socketio 5.14 or later",
	"datetime.datetime":       "send isoformat() or timestamp()",
	"datetime.date":           "send isoformat()",
	"datetime.time":           "send isoformat()",
	"datetime.timedelta":      "send total_seconds()",
	"decimal.Decimal":         "send str() or float() of it",
	"uuid.UUID":               "send str() of it",
	"builtins.set":            "send a list",
	"builtins.frozenset":      "send a list",
	"builtins.complex":        "send a list of two floats",
	"markupsafe.Markup":       "send str() of it",
	"_codecs.encode":          "binary data needs pickle protocol 3 or later, which Python 3.8 and later use",
}

// refuse returns why an opcode is not executed. It names the class if there is one.
func (u *unpickler) refuse(op byte) error {
	switch op {
	case opGlobal, opInst:
		if lines := bytes.SplitN(u.p[u.i:], []byte{'\n'}, 3); len(lines) == 3 {
			return refuseClass(string(lines[0]), string(lines[1]))
		}
		return errTruncated
	case opStackGlobal:
		names, err := u.pop(2)
		if err != nil {
			return err
		}
		if names[0].shape != shapeString || names[1].shape != shapeString {
			return errors.New("a class whose name is not a string")
		}
		return refuseClass(string(u.bytes(names[0])), string(u.bytes(names[1])))
	}
	if what := refusedOpcodes[op]; what != "" {
		return fmt.Errorf("refused %s", what)
	}
	return fmt.Errorf("the opcode %#02x, which does not exist", op)
}

// refuseClass returns that a class is not data, and what to send instead. The class is never looked up.
func refuseClass(module, name string) error {
	class := module + "." + name
	what := advice[class]
	switch {
	case what != "":
	// Its scalars and arrays are made by functions whose names change with the version.
	case module == "numpy" || strings.HasPrefix(module, "numpy."):
		what = "send tolist() of numpy's values"
	default:
		what = "only data is accepted: send plain dicts, lists, strings, numbers and bytes"
	}
	// Names of real classes need no quotes.
	if strings.Trim(class, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.<>") != "" || len(class) > 100 {
		class = clip(class)
	}
	return fmt.Errorf("%s: %s", class, what)
}
