package secret

import (
	"bufio"
	"bytes"
	"compress/flate"
	"encoding/binary"
	"io"
)

// zipped begins an archive, and each file in it.
var zipped = []byte("PK\x03\x04")

// What a file in a zip archive says of itself, before its content: see APPNOTE.TXT of PKWARE.
const (
	zipHeader     = 30
	zipEncrypted  = 1 << 0
	zipSizesAfter = 1 << 3
	zipStored     = 0
	zipDeflated   = 8
	zip64         = 0xffffffff
)

// inZip looks at the files of an archive, one after the other as they come, until one cannot be read or enough has been unpacked. What
// is encrypted is passed over.
func (s *Scanner) inZip(r io.Reader) string {
	in := bufio.NewReaderSize(r, 64<<10)
	var header [zipHeader]byte
	for s.left.Load() > 0 {
		if _, err := io.ReadFull(in, header[:]); err != nil || !bytes.HasPrefix(header[:], zipped) {
			return ""
		}
		flags, method := binary.LittleEndian.Uint16(header[6:]), binary.LittleEndian.Uint16(header[8:])
		size := int64(binary.LittleEndian.Uint32(header[18:]))
		name := make([]byte, binary.LittleEndian.Uint16(header[26:]))
		if _, err := io.ReadFull(in, name); err != nil {
			return ""
		}
		if _, err := in.Discard(int(binary.LittleEndian.Uint16(header[28:]))); err != nil {
			return ""
		}
		sized := flags&zipSizesAfter == 0 && size != zip64
		var content io.Reader
		switch {
		case flags&zipEncrypted != 0 && sized:
			content = nil
		case flags&zipEncrypted != 0:
			return ""
		case method == zipDeflated:
			// Its end is in it.
			content = flate.NewReader(in)
		case method == zipStored && sized:
			content = io.LimitReader(in, size)
		case !sized:
			return ""
		}
		if content == nil {
			if _, err := io.CopyN(io.Discard, in, size); err != nil {
				return ""
			}
			continue
		}
		if kind := s.inner(string(name), unpacked{content, s.left}); kind != "" {
			return kind
		}
		if flags&zipSizesAfter != 0 && !passDescriptor(in) {
			return ""
		}
	}
	return ""
}

// passDescriptor passes over what follows a file whose sizes were not known before it: its signature, which may be missing, its sum, and
// two sizes of four or eight bytes. It tells whether another file follows, or the end of them.
func passDescriptor(in *bufio.Reader) bool {
	for _, length := range []int{16, 24, 12, 20} {
		text, err := in.Peek(length + 4)
		if err == nil && text[length] == 'P' && text[length+1] == 'K' {
			_, err = in.Discard(length)
			return err == nil
		}
	}
	return false
}
