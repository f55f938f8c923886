package queue

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"unicode/utf8"
)

// Bounds of what a pickle takes while it is read. Python's pickler passes lists and dicts on in parts of 1000 elements, so
// the stack of a real pickle is small.
const (
	maxStack  = 64 << 10
	maxMemo   = 64 << 10
	maxPushed = 256 << 10 // objects put on the stack in all
	maxMarks  = 256
)

// shape is what an object is.
type shape uint8

const (
	shapeNone shape = iota
	shapeFalse
	shapeTrue
	shapeInt
	shapeFloat
	shapeString
	shapeBytes
	shapeList
	shapeTuple
	shapeDict
)

// pickled is an object of a pickle. It is small, because there can be one a byte.
type pickled struct {
	shape shape
	bits  uint64 // the number; or where the bytes are in the payload, and how many, 32 bits each; or the index in containers
}

// unpickler reads a pickle (Lib/pickletools.py) whose opcodes only make data. Objects can be shared, and they can contain
// themselves, so who walks through them needs bounds of its own.
type unpickler struct {
	p          []byte
	i          int
	stack      []pickled
	marks      []int
	memo       []pickled
	containers [][]pickled // the elements of lists and tuples; the keys and values of dicts in turn
	pushed     int
	most       int // how many objects may be pushed
}

// read reads the pickle, and returns the object that it is.
func (u *unpickler) read() (pickled, error) {
	// A version 1 would have been written with another byte first.
	if len(u.p) < 2 || u.p[0] != opProto {
		return pickled{}, errTruncated
	}
	if v := u.p[1]; v < 2 || v > 5 {
		return pickled{}, fmt.Errorf("protocol %d: use 2 to 5", v)
	}
	u.i = 2
	for u.i < len(u.p) {
		op := u.p[u.i]
		u.i++
		if op == opStop {
			if len(u.stack) != 1 || len(u.marks) != 0 || u.i != len(u.p) {
				return pickled{}, errors.New("STOP before the end")
			}
			return u.stack[0], nil
		}
		if err := u.do(op); err != nil {
			return pickled{}, err
		}
	}
	return pickled{}, errTruncated
}

// do executes an opcode. An opcode that is not listed is refused. To see why the rest is harmless: all that any of these
// does is to move values between the payload, the stack, the memo and the containers.
func (u *unpickler) do(op byte) error {
	switch op {
	case opNone:
		return u.push(pickled{shape: shapeNone})
	case opNewFalse:
		return u.push(pickled{shape: shapeFalse})
	case opNewTrue:
		return u.push(pickled{shape: shapeTrue})
	case opEmptyList:
		return u.pushContainer(shapeList, nil)
	case opEmptyDict:
		return u.pushContainer(shapeDict, nil)
	case opEmptyTuple:
		return u.pushContainer(shapeTuple, nil)
	case opMark:
		if len(u.marks) == maxMarks {
			return fmt.Errorf("more than %d marks", maxMarks)
		}
		u.marks = append(u.marks, len(u.stack))
		return nil
	// A frame only tells a reader how much it can read at once. All of the payload is here.
	case opFrame:
		n, err := u.number(8)
		if err == nil && n > uint64(len(u.p)-u.i) {
			err = errTruncated
		}
		return err
	case opBinInt, opBinInt1, opBinInt2, opLong1, opBinFloat:
		return u.pushNumber(op)
	case opShortBinUnicode, opBinUnicode, opBinUnicode8:
		return u.pushBytes(shapeString, op)
	case opShortBinBytes, opBinBytes, opBinBytes8, opByteArray8:
		return u.pushBytes(shapeBytes, op)
	case opMemoize, opBinPut, opLongBinPut, opBinGet, opLongBinGet:
		return u.memoize(op)
	case opTuple, opTuple1, opTuple2, opTuple3:
		return u.tuple(op)
	case opAppend, opAppends, opSetItem, opSetItems:
		return u.extend(op)
	}
	return u.refuse(op)
}

// push pushes an object. Every value passes here, so this bounds the stack, and with it the containers.
func (u *unpickler) push(o pickled) error {
	if len(u.stack) >= maxStack || u.pushed >= u.most {
		return fmt.Errorf("too many values (%d)", u.pushed)
	}
	u.pushed++
	u.stack = append(u.stack, o)
	return nil
}

// pushContainer pushes a list, a tuple or a dict. Its elements are kept apart, because a list or a dict can grow after it
// was memoized, and all that refer to it have to see that.
func (u *unpickler) pushContainer(s shape, elements []pickled) error {
	u.containers = append(u.containers, elements)
	return u.push(pickled{s, uint64(len(u.containers) - 1)})
}

// number takes a number of this many bytes, the least significant first.
func (u *unpickler) number(size int) (n uint64, err error) {
	if len(u.p)-u.i < size {
		return 0, errTruncated
	}
	for k := range size {
		n |= uint64(u.p[u.i+k]) << (8 * k)
	}
	u.i += size
	return n, nil
}

// pushNumber pushes an integer or a float.
func (u *unpickler) pushNumber(op byte) error {
	size := 4
	switch op {
	case opBinInt1:
		size = 1
	case opBinInt2:
		size = 2
	case opBinFloat:
		size = 8
	case opLong1:
		n, err := u.number(1)
		if err != nil {
			return err
		}
		if n > 8 {
			return fmt.Errorf("an integer of %d bytes: send integers beyond 64 bits as strings", n)
		}
		size = int(n)
	}
	n, err := u.number(size)
	if err != nil {
		return err
	}
	switch {
	case op == opBinFloat: // the only number that is written in network order
		return u.push(pickled{shapeFloat, binary.BigEndian.Uint64(u.p[u.i-8:])})
	case op == opBinInt:
		n = uint64(int64(int32(n)))
	case op == opLong1 && size > 0: // two's complement
		shift := 64 - 8*size
		n = uint64(int64(n<<shift) >> shift) // the sign fills the bytes above
	}
	return u.push(pickled{shapeInt, n})
}

// pushBytes pushes a string or bytes: where they are in the payload.
func (u *unpickler) pushBytes(s shape, op byte) error {
	size := 4
	switch op {
	case opShortBinUnicode, opShortBinBytes:
		size = 1
	case opBinUnicode8, opBinBytes8, opByteArray8:
		size = 8
	}
	n, err := u.number(size)
	if err != nil {
		return err
	}
	if n > uint64(len(u.p)-u.i) {
		return errTruncated
	}
	o := pickled{s, uint64(u.i)<<32 | n}
	u.i += int(n)
	if s == shapeString && !utf8.Valid(u.bytes(o)) {
		return errors.New("a string that is not Unicode: it has half of a surrogate pair")
	}
	return u.push(o)
}

// bytes returns what a string or bytes consist of.
func (u *unpickler) bytes(o pickled) []byte {
	from := o.bits >> 32
	return u.p[from : from+o.bits&math.MaxUint32]
}

// memoize remembers the object on top, or pushes one that was remembered.
func (u *unpickler) memoize(op byte) error {
	index := uint64(len(u.memo))
	if op != opMemoize {
		size := 1
		if op == opLongBinPut || op == opLongBinGet {
			size = 4
		}
		var err error
		if index, err = u.number(size); err != nil {
			return err
		}
	}
	if op == opBinGet || op == opLongBinGet {
		if index >= uint64(len(u.memo)) {
			return errors.New("a value from the memo that is not there")
		}
		return u.push(u.memo[index])
	}
	o, err := u.top()
	switch {
	case err != nil:
		return err
	case index < uint64(len(u.memo)):
		u.memo[index] = o
	// Python counts up, so nothing is left out, and nothing is allocated for an index.
	case index > uint64(len(u.memo)) || index >= maxMemo:
		return fmt.Errorf("memo entry %d: too many values, or one left out", index)
	default:
		u.memo = append(u.memo, o)
	}
	return nil
}

// floor is how many objects are below the last mark. They cannot be popped.
func (u *unpickler) floor() int {
	if len(u.marks) == 0 {
		return 0
	}
	return u.marks[len(u.marks)-1]
}

var errStack = errors.New("a value is missing on the stack")

// top returns the object on top, which is not below the last mark.
func (u *unpickler) top() (pickled, error) {
	if len(u.stack) <= u.floor() {
		return pickled{}, errStack
	}
	return u.stack[len(u.stack)-1], nil
}

// pop pops n objects, or those above the last mark if n is negative. They are valid until the next push.
func (u *unpickler) pop(n int) ([]pickled, error) {
	from := len(u.stack) - n
	switch {
	case n >= 0 && from < u.floor():
		return nil, errStack
	case n < 0 && len(u.marks) == 0:
		return nil, errors.New("a mark is missing on the stack")
	case n < 0:
		from = u.floor()
		u.marks = u.marks[:len(u.marks)-1]
	}
	popped := u.stack[from:]
	u.stack = u.stack[:from]
	return popped, nil
}

// tuple makes a tuple of what is on the stack. It copies that, because the stack is overwritten.
func (u *unpickler) tuple(op byte) error {
	n := -1
	if op != opTuple {
		n = int(op-opTuple1) + 1
	}
	elements, err := u.pop(n)
	if err != nil {
		return err
	}
	return u.pushContainer(shapeTuple, append([]pickled(nil), elements...))
}

// extend adds what is on the stack to the list or dict below.
func (u *unpickler) extend(op byte) error {
	n, want := -1, shapeList
	switch op {
	case opAppend:
		n = 1
	case opSetItem:
		n, want = 2, shapeDict
	case opSetItems:
		want = shapeDict
	}
	elements, err := u.pop(n)
	if err != nil {
		return err
	}
	target, err := u.top()
	if err != nil {
		return err
	}
	if target.shape != want || want == shapeDict && len(elements)%2 != 0 {
		return errors.New("elements for what is not a list, or not a dict")
	}
	// A list can be added to itself. Whoever walks through it counts the levels.
	c := &u.containers[target.bits]
	*c = append(*c, elements...)
	return nil
}
