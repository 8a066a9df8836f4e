package delta

import "encoding/binary"

// A NAR is a sequence of frames and contents: the frame of an entry is everything between the contents of the entry before it
// and its own. It can be told from the layout alone, so that none is kept. The format of a NAR is in section 5.2 of Eelco Dolstra's
// thesis, "The Purely Functional Software Deployment Model", and in the Nix manual under "Nix Archive (NAR) format".

// start is where the frame of entry i begins; with i = len(entries), the last one, which closes everything.
func (t *Tree) start(i int) uint64 {
	if i == 0 {
		return 0
	}
	return t.entries[i-1].content + t.entries[i-1].size
}

// frame appends the frame of entry i to b.
func (t *Tree) frame(b []byte, i int) []byte {
	if i == 0 {
		b = token(b, "nix-archive-1")
	} else {
		b = t.closeAfter(b, i)
	}
	if i == len(t.entries) {
		return b
	}
	e := t.entries[i]
	if e.parent >= 0 {
		b = token(token(token(b, "entry"), "("), "name")
		b = token(token(b, t.names[e.name:e.name+uint32(e.nameLen)]), "node")
	}
	b = token(token(b, "("), "type")
	switch e.kind {
	case directory:
		return token(b, "directory")
	case symlink:
		at := e.name + uint32(e.nameLen)
		return token(token(token(b, "symlink"), "target"), t.names[at:at+uint32(e.target)])
	}
	b = token(b, "regular")
	if e.kind == executable {
		b = token(token(b, "executable"), "")
	}
	return binary.LittleEndian.AppendUint64(token(b, "contents"), e.size)
}

// closeAfter appends what stands between the contents of the entry before i and entry i.
func (t *Tree) closeAfter(b []byte, i int) []byte {
	last := int32(i - 1)
	parent := int32(-1)
	if i < len(t.entries) {
		parent = t.entries[i].parent
	}
	if t.entries[last].kind <= executable {
		b = pad(b, int(t.entries[last].size%8))
	}
	for ; last != parent; last = t.entries[last].parent {
		b = token(b, ")")
		if t.entries[last].parent >= 0 {
			b = token(b, ")")
		}
	}
	return b
}

// token appends a string as a NAR has it: its length in eight bytes, the text, and zeros up to a multiple of eight.
func token[T string | []byte](b []byte, text T) []byte {
	b = binary.LittleEndian.AppendUint64(b, uint64(len(text)))
	return pad(append(b, text...), len(text)%8)
}

// pad appends the zeros behind a string whose length leaves a rest when divided by eight.
func pad(b []byte, rest int) []byte {
	var zeros [8]byte
	return append(b, zeros[:(8-rest)%8]...)
}
