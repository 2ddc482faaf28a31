package embed

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kindred-search/kindred/embed/tokenize"
)

// ErrInput is wrapped by errors about what a caller asked to be encoded, as
// opposed to faults of the model.
var ErrInput = errors.New("cannot be encoded")

// ErrUnsupported is wrapped by errors of [Open] about models this package
// cannot run; the message names the setting.
var ErrUnsupported = errors.New("model not supported")

// Options say how to open a model. The zero value is the usual choice.
type Options struct {
	// Threads is the number of goroutines an Encode call uses; 0 means
	// GOMAXPROCS. It never changes a result.
	Threads int
	// MaxTokens cuts longer texts, specials included; 0 means what the model's
	// folder says. It cannot exceed the model's number of positions.
	MaxTokens int
	// Pooling is "mean", "first", "last" or "max"; "" means what the model's
	// folder says.
	Pooling string
	// Precision is how the model computes; "" means what the environment
	// variable KINDRED_PRECISION says, or else DefaultPrecision.
	Precision Precision
	// Device runs the model where the precision is FP16 or BF16.
	Device Device
}

// Info describes an open model.
type Info struct {
	Name      string // the folder's name or, where it has a manifest, the name in it
	Dim       int    // elements of a vector
	MaxTokens int    // tokens of a text that are used, specials included
	Layers    int
	Pooling   string // "mean", "first", "last" or "max"
	// QueryPrompt is the instruction that this model wants in front of a short
	// query (never of a passage), or "". Pass it as EncodeOptions.Prompt.
	QueryPrompt string
	// Stamp is Name + "@" + the first 12 hexadecimal digits of the SHA-256 of
	// the weights file and, for a precision other than fp32, "+" and its name.
	// Vectors of different stamps must not be mixed; see StampPrecision.
	Stamp string
	// Precision is how the matrix products are computed.
	Precision Precision
	// Full names the linear layers that run in fp32 although Precision is of
	// integers, each with the reason; usually it is empty.
	Full []string
	// Languages are the ISO 639-1 codes the model was trained for, as far as
	// its manifest says.
	Languages []string
}

// Model is an open encoder. It is safe for concurrent use.
type Model struct {
	info      Info
	tok       *tokenize.Tokenizer
	net       atomic.Pointer[bert] // nil once closed
	cfg       config
	pool      pooling
	threads   int
	scratches sync.Pool // of *scratch
	tempo     tempo
	device    *onDevice // of FP16 and BF16, else nil
}

// Info describes m.
func (m *Model) Info() Info { return m.info }

// Tokenizer returns the model's tokenizer.
func (m *Model) Tokenizer() *tokenize.Tokenizer { return m.tok }

// Close lets go of the weights and the working memory, which the garbage
// collector then frees. Calls that still run keep them until they return; calls
// made later end with an error that wraps [ErrClosed]. It may be called twice.
func (m *Model) Close() error {
	m.net.Store(nil)
	for m.scratches.Get() != nil {
	}
	return m.device.close()
}

// weights returns the network of an open model.
func (m *Model) weights() (*bert, error) {
	net := m.net.Load()
	if net == nil {
		return nil, fmt.Errorf("model %s: %w", m.info.Name, ErrClosed)
	}
	return net, nil
}

// EncodeOptions say how to encode. The zero value encodes the texts as they are.
type EncodeOptions struct {
	// Prompt is put in front of every text before it is tokenised.
	Prompt string
	// Progress, if not nil, is called with the number of texts done so far and
	// their total, from one goroutine at a time and with rising done.
	Progress func(done, total int)
}

// Result holds the vectors of one call, in the order of its texts. The caller
// owns all slices.
type Result struct {
	// Vectors is [texts, Dim], row-major; every row has unit length.
	Vectors []float32
	// Tokens is the number of tokens used of each text, specials included.
	Tokens []int
	// Truncated says which texts were longer than the model takes.
	Truncated []bool
}

// Row returns vector i of dim elements; it aliases r.
func (r *Result) Row(i int) []float32 {
	dim := len(r.Vectors) / max(len(r.Tokens), 1)
	return r.Vectors[i*dim : (i+1)*dim : (i+1)*dim]
}

// Encode returns one unit vector for each text. A text longer than the model
// takes is cut at MaxTokens, an empty one is encoded as [CLS][SEP]. It stops
// soon after ctx is cancelled, within a tile, with ctx's error.
func (m *Model) Encode(ctx context.Context, texts []string, opt EncodeOptions) (*Result, error) {
	ids, truncated, err := m.tokenise(ctx, texts, opt.Prompt)
	if err != nil {
		return nil, err
	}
	res, err := m.encodeIDs(ctx, ids, opt.Progress)
	if err != nil {
		return nil, err
	}
	res.Truncated = truncated
	return res, nil
}

// EncodeTokens is Encode for texts already tokenised: each element of ids is
// one text's ids with the specials the model wants, used as they are and cut
// after MaxTokens. An empty element, or an id outside the vocabulary, is an
// error that wraps ErrInput. The prompt of opt is not used.
func (m *Model) EncodeTokens(ctx context.Context, ids [][]int32, opt EncodeOptions) (*Result, error) {
	cut, truncated, err := m.checkIDs(ids)
	if err != nil {
		return nil, err
	}
	res, err := m.encodeIDs(ctx, cut, opt.Progress)
	if err != nil {
		return nil, err
	}
	res.Truncated = truncated
	return res, nil
}

func (m *Model) checkIDs(ids [][]int32) (cut [][]int32, truncated []bool, err error) {
	cut, truncated = make([][]int32, len(ids)), make([]bool, len(ids))
	for i, text := range ids {
		if len(text) == 0 {
			return nil, nil, fmt.Errorf("text %d %w: it has no token", i, ErrInput)
		}
		for j, id := range text {
			if id < 0 || int(id) >= m.cfg.Vocab {
				return nil, nil, fmt.Errorf("text %d %w: token %d is %d, the vocabulary of %s ends at %d", i, ErrInput, j, id, m.info.Name, m.cfg.Vocab-1)
			}
		}
		truncated[i] = len(text) > m.info.MaxTokens
		cut[i] = text[:min(len(text), m.info.MaxTokens)]
	}
	return cut, truncated, nil
}

// tokenGrain is how many texts a goroutine tokenises before it takes more: a
// few hundred microseconds of work against one atomic addition.
const tokenGrain = 32

func (m *Model) tokenise(ctx context.Context, texts []string, prompt string) ([][]int32, []bool, error) {
	ids, truncated := make([][]int32, len(texts)), make([]bool, len(texts))
	grains := (len(texts) + tokenGrain - 1) / tokenGrain
	err := parallel(ctx, m.threads, grains, func(g int) error {
		for i := g * tokenGrain; i < min((g+1)*tokenGrain, len(texts)); i++ {
			text := texts[i]
			if prompt != "" {
				text = prompt + text
			}
			ids[i], truncated[i] = m.tok.Encode(text, m.info.MaxTokens, nil)
			if len(ids[i]) == 0 {
				return fmt.Errorf("text %d %w: the tokenizer of %s gave no token", i, ErrInput, m.info.Name)
			}
		}
		return nil
	})
	return ids, truncated, err
}

func (m *Model) encodeIDs(ctx context.Context, ids [][]int32, progress func(done, total int)) (_ *Result, err error) {
	dim := m.info.Dim
	res := &Result{Vectors: make([]float32, len(ids)*dim), Tokens: make([]int, len(ids))}
	for i, text := range ids {
		res.Tokens[i] = len(text)
	}
	net, err := m.weights()
	if err != nil {
		return nil, err
	}
	first, plan := planTiles(ids, m.threads)
	if made, err := m.encodeOnDevice(ctx, ids, first, res, progress); err != nil || made {
		return res, err
	}
	var together *crew
	parts := 1
	if n := min(m.threads, runtime.GOMAXPROCS(0)); len(plan.tiles) == 1 && n > 1 {
		if m.tempo.together(plan.rows) {
			together, parts = newCrew(n-1), 2*n
			defer together.stop()
		}
		defer func(start time.Time) {
			if err == nil {
				m.tempo.note(plan.rows, together != nil, time.Since(start))
			}
		}(time.Now())
	}
	var mu sync.Mutex
	done := len(ids) - plan.texts
	err = parallel(ctx, m.threads, len(plan.tiles), func(t int) error {
		tile := plan.tiles[t]
		s, _ := m.scratches.Get().(*scratch)
		if s == nil {
			s = &scratch{}
		}
		s.crew, s.parts = together, parts
		defer func() {
			s.crew = nil
			m.scratches.Put(s)
		}()
		if err := net.forward(ctx, s, tile, ids); err != nil {
			return err
		}
		for j, i := range tile {
			row := res.Vectors[i*dim : (i+1)*dim]
			m.pool.apply(row, s.text(j, dim))
			if !normalise(row) {
				return fmt.Errorf("model %s: the vector of text %d is not finite; its weights are damaged", m.info.Name, i)
			}
		}
		if progress != nil {
			mu.Lock()
			defer mu.Unlock()
			done += len(tile)
			progress(done, len(ids))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	repeat(res.Vectors, first, dim)
	return res, nil
}

// repeat gives each text that equals an earlier one its vector.
func repeat(vectors []float32, first []int, dim int) {
	for i, f := range first {
		if f != i {
			copy(vectors[i*dim:(i+1)*dim], vectors[f*dim:(f+1)*dim])
		}
	}
}

// normalise scales v to unit length; it reports false for a vector of length
// zero or with an element that is not finite. The sum is in fp64, in order, so
// the result depends on v alone.
func normalise(v []float32) bool {
	var sum float64
	for _, x := range v {
		sum += float64(x) * float64(x)
	}
	if !(sum > 0) || math.IsInf(sum, 0) {
		return false
	}
	inv := 1 / math.Sqrt(sum)
	for i, x := range v {
		v[i] = float32(float64(x) * inv)
	}
	return true
}

func threads(n int) int {
	if n <= 0 {
		return runtime.GOMAXPROCS(0)
	}
	return n
}
