// Package audience turns seeds into an audience: a list of the customers most
// like them, of any size, with a measure of how good it is and reasons.
//
// Flow: Build resolves the seeds on a snapshot (resolve.go), prepares features
// (features.go), fits heads (fit.go), compares methods by hold-out (auto.go),
// scans everyone once, selects exactly, measures (quality.go) and explains
// (explain.go). A method always ends as an index.HeadSet over bins, the Model,
// which can score any customer later.
//
// The same request on the same customers gives the same bytes: samples are
// drawn by a hash of the id, sums run in a fixed order, nothing looks at the
// clock.
package audience

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/profile"
)

// ErrTooFewSeeds means that fewer seeds than the minimum match customers. It
// matches index.ErrInvalid as well.
var ErrTooFewSeeds = errors.New("too few seeds")

// The methods.
const (
	Auto       = "auto"       // the others and their blends, compared by hold-out
	Centroid   = "centroid"   // seeds' mean minus everyone's mean, and weights of evidence a column
	Clusters   = "clusters"   // several centroids, the best counts
	Classifier = "classifier" // positive-unlabelled logistic regression
	Trees      = "trees"      // positive-unlabelled boosted trees over the columns
	Neighbours = "knn"        // mean similarity to the nearest few seeds; one product a seed and customer
	// Description scores by the description in Seeds.Text alone; ids beside it are
	// what it is judged by.
	Description = "text"
)

// Methods returns all of them.
func Methods() []string {
	return []string{Auto, Centroid, Clusters, Classifier, Trees, Neighbours, Description}
}

// Request asks for an audience.
type Request struct {
	Name      string        `json:"name,omitempty"`
	Seeds     Seeds         `json:"seeds"`
	Negatives Negatives     `json:"negatives,omitzero"`
	Exclude   Exclude       `json:"exclude,omitzero"`
	Filter    *index.Filter `json:"filter,omitempty"` // who may be a member
	Within    Within        `json:"within,omitzero"`  // who may be a member, by groups
	Size      Size          `json:"size"`
	Method    string        `json:"method,omitempty" enum:"auto,centroid,clusters,classifier,trees,knn,text"`
	Features  Features      `json:"features,omitzero"`
	Holdout   Holdout       `json:"holdout,omitzero"`
	Explain   Explain       `json:"explain,omitzero"`
	Fairness  *Fairness     `json:"fairness,omitempty"` // how uneven the list may be; nil: as the scores have it
	// Prevalence is the share of customers who are of the seeds' kind, seeds included,
	// where that is known: probabilities and expected precision then have its level.
	Prevalence *float64 `json:"prevalence,omitempty"`
	Seed       uint64   `json:"seed,omitempty"` // of the random draws
	Lifecycle
}

// Within limits members, and everyone whom they are ranked among, to the customers of a
// segment and to those who have a label of a tag; given both, to those of both.
type Within struct {
	Segment int      `json:"segment,omitempty" minimum:"0" doc:"by its number"`
	Tag     *SeedTag `json:"tag,omitempty"`
}

// Each calls do with each of the groups, as seeds that name it, until it fails.
func (w Within) Each(do func(Seeds) error) error {
	if w.Segment != 0 {
		if err := do(Seeds{Segment: w.Segment}); err != nil {
			return err
		}
	}
	if w.Tag != nil {
		return do(Seeds{Tag: w.Tag})
	}
	return nil
}

// Seeds says who the audience should be like. Ids, filter and audience add up to
// one list of customers. A text beside them weighs at least a quarter of the
// score, more where held-out seeds agree with it.
type Seeds struct {
	IDs      []SeedRef     `json:"ids,omitempty"`
	Filter   *index.Filter `json:"filter,omitempty"`
	Text     string        `json:"text,omitempty"`     // a description; alone, it is the whole head
	Audience string        `json:"audience,omitempty"` // a stored one of the collection
	Segment  int           `json:"segment,omitempty" minimum:"0" doc:"the customers of a segment, by its number"`
	Tag      *SeedTag      `json:"tag,omitempty" doc:"the customers that have a label of a tag"`
	Value    *SeedValue    `json:"value,omitempty"` // what seeds weigh by
}

// SeedTag names the customers whose likeliest label of a tag it is.
type SeedTag struct {
	Name  string   `json:"name"`
	Label string   `json:"label"`
	Above *float64 `json:"above,omitempty" minimum:"0" maximum:"1" doc:"least confidence; default the tag's"`
}

// SeedRef is an id with a weight; in JSON also just the id.
type SeedRef struct {
	ID     string  `json:"id"`
	Weight float64 `json:"weight,omitempty"` // 0 means 1; JSON leaves it out for that
}

// UnmarshalJSON takes "id" or {"id", "weight"}.
func (r *SeedRef) UnmarshalJSON(raw []byte) error {
	if bytes.HasPrefix(bytes.TrimSpace(raw), []byte{'"'}) {
		*r = SeedRef{}
		return json.Unmarshal(raw, &r.ID)
	}
	in := struct {
		ID     string   `json:"id"`
		Weight *float64 `json:"weight"`
	}{}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&in); err != nil {
		return err
	}
	*r = SeedRef{ID: in.ID}
	if in.Weight != nil {
		if *in.Weight == 0 {
			return fmt.Errorf("weight 0 of %q: want more than 0, or leave the customer out: %w", in.ID, index.ErrInvalid)
		}
		r.Weight = *in.Weight
	}
	return nil
}

// Negatives are customers the audience should not be like.
type Negatives struct {
	IDs []SeedRef `json:"ids,omitempty"`
}

// Exclude keeps customers off the list.
type Exclude struct {
	IDs       []string `json:"ids,omitempty"`
	Seeds     *bool    `json:"seeds,omitempty"` // default true
	Audiences []string `json:"audiences,omitempty"`
	Lists     []string `json:"lists,omitempty"` // stored suppression lists, by name; those that always apply need no naming
}

// Size is exactly one of its fields.
type Size struct {
	Count        *int     `json:"count,omitempty"`
	Ratio        *float64 `json:"ratio,omitempty"` // of who may be a member
	Threshold    *float64 `json:"threshold,omitempty"`
	MinPrecision *float64 `json:"min_precision,omitempty"`
}

// Features limits what heads may look at.
type Features struct {
	Text           *bool    `json:"text,omitempty"`            // default true
	Columns        []string `json:"columns,omitzero"`          // nil: all that are allowed; empty: none
	AllowSensitive []string `json:"allow_sensitive,omitempty"` // sensitive columns allowed in writing
}

// Holdout says how the list is judged.
type Holdout struct {
	Folds int `json:"folds,omitempty"` // default 5
}

// Explain says what to explain.
type Explain struct {
	Members *bool `json:"members,omitempty"` // default true
	Phrases *bool `json:"phrases,omitempty"` // default true
}

// Limits are the refusals. Zero values take the defaults.
type Limits struct {
	MinSeeds    int // default 20
	MinAudience int // default 100; a smaller list is warned about here and refused at export by who exports
}

// Population is what an audience is built on.
type Population struct {
	Snap      index.Snapshot
	Spec      index.Spec
	Schema    profile.Schema
	Limits    Limits
	Encode    func(ctx context.Context, text string) ([]float32, error) // nil: no model
	MembersOf func(ctx context.Context, name string) ([]string, error)  // of a stored audience; nil: none
	// Grouped returns the rows of Snap that Seeds.Segment and Seeds.Tag name; nil:
	// there are no segments and tags.
	Grouped func(ctx context.Context, seeds Seeds) ([]uint32, error)
	// Texts reads what customers wrote, without personal and sensitive fields, in the
	// order of the ids; an unknown customer has none. nil: phrases are not counted.
	Texts func(ctx context.Context, ids []string) ([][]string, error)
	// Suppressed tells of the stored suppression lists that apply to a request that
	// names some whether a customer is on one; nil: there are none.
	Suppressed func(ctx context.Context, names []string) (func(id string) bool, error)
	// ValuesOf are the outcomes of a stored audience by id, for SeedValue; nil: none.
	ValuesOf  func(ctx context.Context, name string) (map[string]float64, error)
	Observed  *Observed  // what outcomes of an earlier list say of scores; nil: nothing
	Incumbent *Incumbent // the list that is refreshed; nil: none
	Outside   *Outside   // where the customers are kept, if not here; nil: here
}

// Result is a finished audience.
type Result struct {
	Manifest   Manifest    `json:"manifest"`
	Model      Model       `json:"model"`
	Members    []Member    `json:"members,omitempty"`
	Threshold  float32     `json:"threshold"`       // the last member's score; bound to be even, groups end at scores of their own; after a refresh, what it takes to enter
	Floor      *float32    `json:"floor,omitempty"` // what it takes to stay, where a refresh's budget kept members below Threshold
	Churn      *Churn      `json:"churn,omitempty"` // of the refresh that made the list
	Quality    Quality     `json:"quality"`
	Doctor     Doctor      `json:"doctor"`
	Curve      []Point     `json:"curve"`
	Reasons    []Reason    `json:"reasons"`   // what the audience has more of than everyone
	Phrases    Phrases     `json:"phrases"`   // what members and seeds write more than everyone
	Interests  []Interest  `json:"interests"` // the seeds' clusters, largest first
	Histograms Histograms  `json:"histograms"`
	Map        Map         `json:"map"`
	Fairness   []Disparity `json:"fairness"` // on sensitive columns
	Candidates []Candidate `json:"candidates"`
	Warnings   []string    `json:"warnings"`
}

// Manifest says what made the list.
type Manifest struct {
	Name      string   `json:"name,omitempty"`
	Method    string   `json:"method"` // as chosen, in words
	Asked     string   `json:"asked"`  // as requested
	Stamp     string   `json:"stamp,omitempty"`
	Version   uint64   `json:"version"` // of the data
	SeedsHash string   `json:"seeds_hash"`
	Customers int      `json:"customers"` // live
	Eligible  int      `json:"eligible"`  // could be a member
	Seeds     int      `json:"seeds"`
	Negatives int      `json:"negatives,omitempty"`
	Size      int      `json:"size"`
	Columns   []string `json:"columns"` // used in heads
	Text      bool     `json:"text"`    // used in heads
	Left      []string `json:"left_out,omitempty"`
	Folds     int      `json:"folds"`
	Seed      uint64   `json:"seed"`
	// Scan is how the members were found, where the customers are kept outside.
	Scan *Scanned `json:"scan,omitempty"`
	// Control is who is held back from exports.
	Control *Holdback `json:"control,omitempty"`
	// Parents are the lists that this one was combined from.
	Parents []Parent `json:"parents,omitempty"`
}

// Parent is one version of a stored audience.
type Parent struct {
	Audience string `json:"audience"`
	Version  int    `json:"version"`
	Size     int    `json:"size"`
}

// Model scores a customer: bins and the head set over them.
type Model struct {
	Bins   []index.Bins  `json:"bins"`
	Set    index.HeadSet `json:"set"`
	Center []float32     `json:"center,omitempty"` // the population's mean vector, [dim]
}

// Member is one customer of the list.
type Member struct {
	ID          string  `json:"id"`
	Score       float32 `json:"score"`
	Probability float32 `json:"probability"`
	Rank        int     `json:"rank"`
	Control     bool    `json:"control,omitempty"` // held back from exports
	Parts       []Part  `json:"reasons,omitempty"` // add up to Score
}

// Part is one addend of a score.
type Part struct {
	Of    string  `json:"of"` // "text", a column or "intercept"
	Value float32 `json:"value"`
}

// Interval is an estimate with its 95 % interval, see sheet.
type Interval struct {
	Value float64 `json:"value"`
	Low   float64 `json:"low"`
	High  float64 `json:"high"`
}

// AtSize is how a list of one size does.
type AtSize struct {
	Share  float64  `json:"share"` // of the population
	Recall Interval `json:"recall"`
	Lift   Interval `json:"lift"`
}

// Measure is one way of ranking, judged by held-out seeds.
type Measure struct {
	Name  string   `json:"name"`
	AUC   Interval `json:"auc"`
	Sizes []AtSize `json:"sizes"` // the asked size first, then 1, 2, 5, 10 and 20 %
}

// The verdicts.
const (
	Signal      = "signal"
	NoSignal    = "no signal"
	NotMeasured = "not measured"
)

// Quality is the sheet: how well held-out seeds rank among everyone.
type Quality struct {
	Verdict   string      `json:"verdict"`
	Words     string      `json:"words"`
	HeldOut   int         `json:"held_out"` // seeds judged
	Measure   Measure     `json:"measure"`
	Baselines []Measure   `json:"baselines"` // random, text only, columns only, centroid
	Null      Measure     `json:"null"`      // the same pipeline on random seeds
	Platt     Calibration `json:"calibration"`
	// Reliability is how well the calibration agrees with held-out seeds.
	Reliability Reliability `json:"reliability"`
}

// Calibration maps a score to an estimate of the probability of being of the
// seeds' kind, whose odds are exp(A + B score) / Norm; Norm 0: there is none. It assumes
// that the seeds are drawn at random from their kind. The level is that of the
// request's prevalence; without it, of one that is estimated, and then the order is
// surer than the level.
type Calibration struct {
	A    float64 `json:"a"`
	B    float64 `json:"b"`
	Norm float64 `json:"norm"`
	// Observed, once there are outcomes, takes the place of all that: the
	// probability is then that of the outcome.
	Observed *Observed `json:"observed,omitempty"`
}

// Doctor is what is to be said of the seeds.
type Doctor struct {
	Verdict    string   `json:"verdict"` // "go", "warn" or, of Check, "refuse"; to Build, refusals are errors
	Notes      []string `json:"notes"`
	Given      int      `json:"given"`
	Matched    int      `json:"matched"`
	Duplicates int      `json:"duplicates"`
	Both       int      `json:"contradictory,omitempty"` // seeds that are negatives too: they count as neither
	Unmatched  []string `json:"unmatched,omitempty"`     // the first ten
	Cold       int      `json:"cold"`                    // seeds without text
	Coherence  float64  `json:"coherence,omitempty"`     // length of the mean of the seeds' unit vectors: 1 when all are alike
	Background float64  `json:"background,omitempty"`    // the same of as many random customers, the mean of 20 sets

	BackgroundLow  float64   `json:"background_low,omitempty"`  // the least of the sets
	BackgroundHigh float64   `json:"background_high,omitempty"` // the most
	OutlierCount   int       `json:"outlier_count,omitempty"`
	Outliers       []Outlier `json:"outliers,omitempty"` // the first ten, farthest first
}

// Point is one point of the reach curve.
type Point struct {
	Size      int     `json:"size"`
	Score     float32 `json:"score"`
	Precision float64 `json:"precision"` // expected share of the seeds' kind, see Calibration
	Low       float64 `json:"low"`       // of Precision, its 95 % interval over the draw of seeds
	High      float64 `json:"high"`
	Recall    float64 `json:"recall"` // expected share of that kind that is reached
}

// Reason is a value that the audience has more of (or less) than everyone.
type Reason struct {
	Column     string  `json:"column"`
	Label      string  `json:"label"`
	Audience   float64 `json:"audience"`   // share of members
	Population float64 `json:"population"` // share of customers
	Lift       float64 `json:"lift"`
	Z          float64 `json:"z"` // log-odds ratio over its standard deviation
}

// Histograms are counts of scores over equal steps from Low to High.
type Histograms struct {
	Low        float64 `json:"low"`
	High       float64 `json:"high"`
	Seeds      []int   `json:"seeds"`
	Population []int   `json:"population"`
	Audience   []int   `json:"audience"`
}

// Candidate is one method that was compared, with its hold-out AUC and, in a
// blend, its weight.
type Candidate struct {
	Name   string  `json:"name"`
	AUC    float64 `json:"auc"`
	Weight float64 `json:"weight,omitempty"`
	Chosen bool    `json:"chosen,omitempty"`
}

// Validate reports all faults of a request that can be seen without data.
func (r *Request) Validate() error {
	var faults []error
	bad := func(format string, args ...any) {
		faults = append(faults, fmt.Errorf(format+": %w", append(args, index.ErrInvalid)...))
	}
	if len(r.Seeds.IDs) == 0 && r.Seeds.Filter == nil && r.Seeds.Text == "" && r.Seeds.Audience == "" && r.Seeds.Segment == 0 && r.Seeds.Tag == nil {
		bad("seeds: empty: give ids, a filter, a text, an audience, a segment or a tag")
	}
	if r.Seeds.Text != "" && strings.TrimSpace(r.Seeds.Text) == "" {
		bad("seeds.text: blank: describe who is wanted, or leave it out")
	}
	for at, g := range []Within{{r.Seeds.Segment, r.Seeds.Tag}, r.Within} {
		what := []string{"seeds", "within"}[at]
		if g.Segment < 0 {
			bad("%s.segment %d: want the number of a segment, from 1 up", what, g.Segment)
		}
		if t := g.Tag; t != nil && t.Above != nil && !(*t.Above >= 0 && *t.Above <= 1) {
			bad("%s.tag.above %v: want 0 to 1", what, *t.Above)
		}
	}
	for at, list := range [][]SeedRef{r.Seeds.IDs, r.Negatives.IDs} {
		what := []string{"seeds", "negatives"}[at]
		for i, ref := range list {
			if ref.ID == "" {
				bad("%s.ids[%d]: the id is empty", what, i)
			}
			if math.IsNaN(ref.Weight) || math.IsInf(ref.Weight, 0) || ref.Weight < 0 {
				bad("%s.ids[%d]: weight %v: want a finite number of 0 or more", what, i, ref.Weight)
			}
		}
	}
	given := 0
	if r.Size.Count != nil {
		given++
		if *r.Size.Count < 1 {
			bad("size.count %d: want 1 or more", *r.Size.Count)
		}
	}
	if r.Size.Ratio != nil {
		given++
		if !(*r.Size.Ratio > 0 && *r.Size.Ratio <= 1) {
			bad("size.ratio %v: want a share above 0 and up to 1", *r.Size.Ratio)
		}
	}
	if r.Size.Threshold != nil {
		given++
		if math.IsNaN(*r.Size.Threshold) {
			bad("size.threshold: not a number")
		}
	}
	if r.Size.MinPrecision != nil {
		given++
		if !(*r.Size.MinPrecision > 0 && *r.Size.MinPrecision <= 1) {
			bad("size.min_precision %v: want a share above 0 and up to 1", *r.Size.MinPrecision)
		}
	}
	if given != 1 {
		bad("size: give exactly one of count, ratio, threshold and min_precision")
	}
	if r.Method != "" && !slices.Contains(Methods(), r.Method) {
		bad("method %q: want one of %s", r.Method, strings.Join(Methods(), ", "))
	}
	if r.Method == Description && r.Seeds.Text == "" {
		bad("method %q: give the description in seeds.text", r.Method)
	}
	if p := r.Prevalence; p != nil && !(*p > 0 && *p < 1) {
		bad("prevalence %v: want a share above 0 and below 1", *p)
	}
	if f := r.Fairness; f != nil && (f.Column == "" || !(f.MinRatio > 0 && f.MinRatio <= 1)) {
		bad("fairness: column %q, min_ratio %v: want a column and a ratio above 0 and up to 1", f.Column, f.MinRatio)
	}
	if r.Holdout.Folds != 0 && (r.Holdout.Folds < 2 || r.Holdout.Folds > 20) {
		bad("holdout.folds %d: want 2 to 20", r.Holdout.Folds)
	}
	for _, err := range []error{r.Lifecycle.Validate(), r.Seeds.Value.Validate()} {
		if err != nil {
			faults = append(faults, err)
		}
	}
	return errors.Join(faults...)
}
