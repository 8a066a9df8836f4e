package lab

import (
	"bytes"
	"encoding/binary"
)

// aarch64Program is the smallest program for aarch64 Linux that prints "42\n": an ELF header, one segment, eight instructions.
func aarch64Program() []byte {
	const base, headers, code = 0x400000, 64 + 56, 8 * 4
	text := []byte("42\n")
	size := uint64(headers + code + len(text))
	var out bytes.Buffer
	put := func(values ...any) {
		for _, v := range values {
			_ = binary.Write(&out, binary.LittleEndian, v)
		}
	}
	out.WriteString("\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00")
	put(uint16(2), uint16(183), uint32(1), uint64(base+headers), uint64(64), uint64(0), uint32(0))
	put(uint16(64), uint16(56), uint16(1), uint16(0), uint16(0), uint16(0))
	put(uint32(1), uint32(5), uint64(0), uint64(base), uint64(base), size, size, uint64(0x1000))
	movz := func(register, value uint32) uint32 { return 0xd2800000 | value<<5 | register }
	const svc = 0xd4000001
	adr := uint32(0x10000000 | (code-4)>>2<<5 | 1) // x1 = the text, from the second instruction
	put(movz(0, 1), adr, movz(2, uint32(len(text))), movz(8, 64), uint32(svc))
	put(movz(0, 0), movz(8, 93), uint32(svc))
	out.Write(text)
	return out.Bytes()
}
