package phrases

import (
	"bytes"
	"compress/gzip"
	_ "embed"
	"fmt"
	"io"
	"sync"
	"weak"

	"github.com/go-ego/gse"
)

// The dictionary is jieba's without its rarest words; see zh/LICENSE. gse brings
// dictionaries of its own, of 35 MB with Japanese; what is not referred to the
// linker leaves out.
//
//go:embed zh/words.txt.gz
var dictionary []byte

// chinese holds on to the segmenter once it was needed.
type chinese struct {
	once sync.Once
	seg  *gse.Segmenter
}

// The dictionary takes about 100 MB of memory and a second to read, so all
// share one, and it goes when nobody holds it.
var shared struct {
	sync.Mutex
	seg weak.Pointer[gse.Segmenter]
}

// cut splits a run of Han characters into words: the most probable sequence of
// the dictionary's.
func (c *chinese) cut(run string) []string {
	c.once.Do(func() { c.seg = segmenter() })
	parts := c.seg.Segment([]byte(run))
	out := make([]string, len(parts))
	for i := range parts {
		out[i] = run[parts[i].Start():parts[i].End()]
	}
	return out
}

func segmenter() *gse.Segmenter {
	shared.Lock()
	defer shared.Unlock()
	if seg := shared.seg.Value(); seg != nil {
		return seg
	}
	z, err := gzip.NewReader(bytes.NewReader(dictionary))
	var words []byte
	if err == nil {
		words, err = io.ReadAll(z)
	}
	seg := &gse.Segmenter{SkipLog: true, NotLoadHMM: true}
	if err == nil {
		err = seg.LoadDictStr(string(words))
	}
	if err != nil { // it is part of the program, and the test reads it
		panic(fmt.Sprintf("phrases: the dictionary that was compiled in cannot be read: %v", err))
	}
	shared.seg = weak.Make(seg)
	return seg
}
