package collection

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/kindred-search/kindred/embed"
	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/index/memory"
)

// stamped is words under another stamp, as a model opened in another precision.
type stamped struct {
	words
	info embed.Info
}

func (s *stamped) Info() embed.Info { return s.info }

// TestOtherPrecisionIsRefused: a collection made in int16 neither takes vectors
// of fp32 nor is searched by them.
func TestOtherPrecisionIsRefused(t *testing.T) {
	store := memory.Open()
	enc := &stamped{info: (&words{}).Info()}
	enc.info.Stamp, enc.info.Precision = "words@1+int16", embed.Int16
	s, err := New(t.Context(), Options{
		Store: store, KV: store.KV(),
		OpenModel: func(context.Context, string) (Encoder, error) { return enc, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	mustPut(t, s)
	search := func() error {
		_, err := s.encodeQuery(t.Context(), mustConfig(t, s), "sailing")
		return err
	}
	if err := search(); err != nil {
		t.Fatal(err)
	}
	enc.info.Stamp, enc.info.Precision = "words@1", embed.FP32
	in := []Input{{Line: 1, Record: record(t, s, `{"id":"a","fields":{"note":"sailing"}}`)}}
	_, upsert := s.Upsert(t.Context(), "c", in)
	for what, err := range map[string]error{"search": search(), "upsert": upsert} {
		if !errors.Is(err, index.ErrInvalid) || !strings.Contains(err.Error(), "KINDRED_PRECISION=int16") {
			t.Errorf("%s in another precision: %v", what, err)
		}
	}
}

func mustConfig(t *testing.T, s *Service) Config {
	t.Helper()
	cfg, err := s.config("c")
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}
