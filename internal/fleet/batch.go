package fleet

import (
	"fmt"
	"strconv"
	"strings"
)

// Batches are the sizes of the groups in which nodes are changed, one after another. The zero value is one group of all.
type Batches []size

// size is a number of nodes, or a part of them all.
type size struct {
	count   int
	percent int
	rest    bool
}

// ParseBatches reads sizes as a user writes them: numbers, percentages of all nodes, and the word rest for all that are left,
// with commas between them, as in "1,10%,rest".
func ParseBatches(s string) (Batches, error) {
	var sizes Batches
	for word := range strings.SplitSeq(s, ",") {
		number, percent := strings.CutSuffix(word, "%")
		n, err := strconv.Atoi(number)
		switch {
		case len(sizes) > 0 && sizes[len(sizes)-1].rest:
			return nil, fmt.Errorf("batches %q: nothing comes after rest", s)
		case word == "rest":
			sizes = append(sizes, size{rest: true})
		case err != nil || n < 1 || percent && n > 100:
			return nil, fmt.Errorf("batches %q: %q is not a batch size: expected a number, a percentage or rest, as in 1,10%%,rest", s, word)
		case percent:
			sizes = append(sizes, size{percent: n})
		default:
			sizes = append(sizes, size{count: n})
		}
	}
	return sizes, nil
}

// split gives how many of total nodes each batch has. Where the sizes end before the nodes do, the last one is used again.
func (b Batches) split(total int) []int {
	var counts []int
	for i, left := 0, total; left > 0; i++ {
		n := left
		if len(b) > 0 {
			s := b[min(i, len(b)-1)]
			switch {
			case s.count > 0:
				n = s.count
			case s.percent > 0:
				n = (total*s.percent + 99) / 100
			}
		}
		n = min(n, left)
		counts = append(counts, n)
		left -= n
	}
	return counts
}
