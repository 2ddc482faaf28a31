// Package ceiling measures how fast all cores together read from memory: what no scan of
// it gets beyond.
package ceiling

import (
	"bytes"
	"runtime"
	"sync"
	"time"

	"github.com/kindred-search/kindred/internal/hugepages"
)

// Buffer is n bytes in large pages, where the system has them, as a scan's rows are.
func Buffer(n int) []byte {
	buf := make([]byte, n)
	hugepages.Advise(buf)
	for i := range buf { // of zeros all would be one page
		buf[i] = 1
	}
	return buf
}

// Read reads a Buffer once on all cores, with the widest loop that the standard library
// has, the search for a byte that is not there. Each core takes a piece of 16 MB after
// the other, as a scan does, so that none waits long for the last.
func Read(buf []byte) time.Duration {
	const piece = 16 << 20
	start := time.Now()
	next := make(chan []byte, len(buf)/piece+1)
	for from := 0; from < len(buf); from += piece {
		next <- buf[from:min(from+piece, len(buf))]
	}
	close(next)
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for part := range next {
				if bytes.IndexByte(part, 0) >= 0 {
					panic("ceiling: the buffer of ones holds a zero")
				}
			}
		})
	}
	wg.Wait()
	return time.Since(start)
}
