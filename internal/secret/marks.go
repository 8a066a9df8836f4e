package secret

// finder finds all of some words in a text, in one pass (Aho and Corasick's automaton).
type finder struct {
	class   [256]uint8 // bytes that no word has are all alike
	classes int
	// next is by state and class. A state is where its classes begin.
	next   []uint16
	ends   [][]int // by number of the state, the words that end there
	ending []bool  // by state, whether there are any
}

// newFinder makes a finder of words, which are not empty.
func newFinder(words []string) *finder {
	f := &finder{classes: 1}
	for _, w := range words {
		for i := range len(w) {
			if f.class[w[i]] == 0 {
				f.class[w[i]] = uint8(f.classes)
				f.classes++
			}
		}
	}
	state := func() int {
		f.next = append(f.next, make([]uint16, f.classes)...)
		f.ends = append(f.ends, nil)
		return len(f.ends) - 1
	}
	state()
	for n, w := range words {
		at := 0
		for i := range len(w) {
			c := at*f.classes + int(f.class[w[i]])
			if f.next[c] == 0 {
				added := state()
				f.next[c] = uint16(added)
			}
			at = int(f.next[c])
		}
		f.ends[at] = append(f.ends[at], n)
	}
	// From each state, what no word goes on with leads where the longest end of what was read leads.
	back := make([]int, len(f.ends))
	queue := []int{0}
	for len(queue) > 0 {
		at := queue[0]
		queue = queue[1:]
		for c := range f.classes {
			to := int(f.next[at*f.classes+c])
			fallback := int(f.next[back[at]*f.classes+c])
			switch {
			case to == 0:
				f.next[at*f.classes+c] = uint16(fallback)
			default:
				if at != 0 {
					back[to] = fallback
					f.ends[to] = append(f.ends[to], f.ends[fallback]...)
				}
				queue = append(queue, to)
			}
		}
	}
	f.ending = make([]bool, len(f.next))
	for c := range f.next {
		f.next[c] *= uint16(f.classes)
	}
	for state, words := range f.ends {
		f.ending[state*f.classes] = len(words) > 0
	}
	return f
}

// each calls found with each word that is in text and where it ends, until that returns false.
func (f *finder) each(text []byte, found func(word, end int) bool) {
	next, class, ending := f.next, &f.class, f.ending
	state := uint(0)
	for i, b := range text {
		state = uint(next[state+uint(class[b])])
		if !ending[state] {
			continue
		}
		for _, word := range f.ends[int(state)/f.classes] {
			if !found(word, i+1) {
				return
			}
		}
	}
}
