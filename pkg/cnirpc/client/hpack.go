package client

import "errors"

var errHeaders = errors.New("malformed header block")

// appendHeader writes a header literally, without a table and without Huffman's
// code (RFC 7541, section 6.2.2); name and value are shorter than 127 bytes.
func appendHeader(b []byte, name, value string) []byte {
	b = append(b, 0, byte(len(name)))
	b = append(b, name...)
	b = append(b, byte(len(value)))
	return append(b, value...)
}

// readHeaders decodes a header block (RFC 7541) for a peer that was told to keep
// no dynamic table. Of the static table only the names that an answer of gRPC can
// have are known; other entries of it come without a name.
func readHeaders(b []byte, visit func(name, value string)) error {
	for len(b) > 0 {
		var index int
		var ok bool
		switch first := b[0]; {
		case first&0x80 != 0: // indexed, 6.1
			if index, b, ok = integer(b, 7); !ok || index == 0 || index > staticEntries {
				return errHeaders
			}
			visit(static(index))
			continue
		case first&0xe0 == 0x20: // table size, 6.3
			if _, b, ok = integer(b, 5); !ok {
				return errHeaders
			}
			continue
		case first&0x40 != 0: // literal, to be indexed, 6.2.1
			index, b, ok = integer(b, 6)
		default: // literal, 6.2.2 and 6.2.3
			index, b, ok = integer(b, 4)
		}
		if !ok || index > staticEntries {
			return errHeaders
		}
		var name, value string
		if index > 0 {
			name, _ = static(index)
		} else if name, b, ok = text(b); !ok {
			return errHeaders
		}
		if value, b, ok = text(b); !ok {
			return errHeaders
		}
		visit(name, value)
	}
	return nil
}

// staticEntries is the size of the static table (RFC 7541, appendix A).
const staticEntries = 61

func static(index int) (name, value string) {
	const firstStatus = 8
	statuses := [...]string{"200", "204", "206", "304", "400", "404", "500"}
	if i := index - firstStatus; i >= 0 && i < len(statuses) {
		return ":status", statuses[i]
	}
	return "", ""
}

// integer reads an integer whose first byte has the given number of bits for it
// (section 5.1); what does not fit in 28 bits is malformed.
func integer(b []byte, bits int) (n int, rest []byte, ok bool) {
	if len(b) == 0 {
		return 0, nil, false
	}
	mask := byte(1)<<bits - 1
	n = int(b[0] & mask)
	b = b[1:]
	if n < int(mask) {
		return n, b, true
	}
	for i, c := range b[:min(len(b), 4)] {
		n += int(c&0x7f) << (7 * i)
		if c < 0x80 {
			return n, b[i+1:], true
		}
	}
	return 0, nil, false
}

// text reads a string (section 5.2).
func text(b []byte) (s string, rest []byte, ok bool) {
	if len(b) == 0 {
		return "", nil, false
	}
	coded := b[0]&0x80 != 0
	n, b, ok := integer(b, 7)
	if !ok || n > len(b) {
		return "", nil, false
	}
	if !coded {
		return string(b[:n]), b[n:], true
	}
	s, ok = unhuffman(b[:n])
	return s, b[n:], ok
}

// codeLengths are the bits of each byte's code (appendix B). The code is
// canonical: codes of one length are consecutive, in the order of their bytes,
// and begin where those of the length before end. So lengths are all there is to
// know.
var codeLengths = [256]uint8{
	13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
	28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
	6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
	5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
	13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
	7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
	15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
	6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
	20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
	24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
	22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
	21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
	26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
	19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
	20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
	26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
}

const longestCode = 30 // bits; the end of the string has such a code, too

// unhuffman decodes Huffman's code.
func unhuffman(b []byte) (string, bool) {
	var count [longestCode + 1]int // codes of each length
	for _, n := range codeLengths {
		count[n]++
	}
	var out []byte
	code, first, length := 0, 0, 0 // of the symbol begun: its bits, the first code of as many, and how many
	for i := range 8 * len(b) {
		code = code<<1 | int(b[i/8]>>(7-i%8))&1
		first = (first + count[length]) << 1
		if length++; length > longestCode {
			return "", false
		}
		if nth := code - first; nth < count[length] {
			out = append(out, nthOf(length, nth))
			code, first, length = 0, 0, 0
		}
	}
	// What is left is padding: less than a byte of ones.
	return string(out), length < 8 && code == 1<<length-1
}

// nthOf finds the nth byte whose code has a length.
func nthOf(length, nth int) byte {
	for c, n := range codeLengths {
		if int(n) == length {
			if nth == 0 {
				return byte(c)
			}
			nth--
		}
	}
	return 0
}
