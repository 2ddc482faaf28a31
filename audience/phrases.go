package audience

import (
	"context"

	"github.com/RoaringBitmap/roaring/v2"

	"github.com/kindred-search/kindred/phrases"
)

// Phrases are the words and phrases that the audience's members, and its seeds,
// write more than everyone does, the surest first. Texts of personal and sensitive
// fields are not read.
type Phrases struct {
	Audience []phrases.Phrase `json:"audience"`
	Seeds    []phrases.Phrase `json:"seeds"`
	// Read is how many customers' texts were counted: at most 5,000 of each group,
	// drawn at random.
	Read Readers `json:"read"`
}

// Readers counts customers.
type Readers struct {
	Audience int `json:"audience"`
	Seeds    int `json:"seeds"`
	Everyone int `json:"everyone"`
}

const (
	phraseSample = 5000
	maxPhrases   = 15
)

// phrases contrasts texts of members and seeds with everyone's.
func (b *build) phrases(ctx context.Context, members []uint32) error {
	b.res.Phrases = Phrases{Audience: []phrases.Phrase{}, Seeds: []phrases.Phrase{}}
	if b.pop.Texts == nil || b.req.Explain.Phrases != nil && !*b.req.Explain.Phrases {
		return nil
	}
	seeds := make([]uint32, len(b.r.seeds))
	for i, s := range b.r.seeds {
		seeds[i] = s.row
	}
	everyone, n, err := b.count(ctx, b.r.everyone, 5)
	if err != nil {
		return err
	}
	out := &b.res.Phrases
	out.Read.Everyone = n
	if n == 0 {
		return nil
	}
	in, n, err := b.count(ctx, roaring.BitmapOf(members...), 6)
	if err != nil {
		return err
	}
	out.Read.Audience, out.Audience = n, phrases.Contrast(in, everyone, phrases.Options{Max: maxPhrases})
	if in, n, err = b.count(ctx, roaring.BitmapOf(seeds...), 7); err != nil {
		return err
	}
	out.Read.Seeds, out.Seeds = n, phrases.Contrast(in, everyone, phrases.Options{Max: maxPhrases})
	return nil
}

// count reads the texts of a sample of a group; n counts those who have any.
func (b *build) count(ctx context.Context, group *roaring.Bitmap, salt uint64) (c *phrases.Counter, n int, err error) {
	c = phrases.NewCounter()
	rows := draw(b.pop.Snap, group, phraseSample, b.req.Seed+salt)
	const block = 500
	for from := 0; from < len(rows); from += block {
		part := rows[from:min(from+block, len(rows))]
		ids := make([]string, len(part))
		for i, row := range part {
			ids[i] = b.pop.Snap.ID(row)
		}
		texts, err := b.pop.Texts(ctx, ids)
		if err != nil {
			return nil, 0, err
		}
		for _, of := range texts {
			if len(of) > 0 {
				n++
				c.Add(of...)
			}
		}
	}
	return c, n, nil
}
