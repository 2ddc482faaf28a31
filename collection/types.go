// Package collection ties the parts together: a Service keeps collections of
// customers (schema, model, engine), takes records in, composes and encodes
// their text, answers searches, and runs imports and audiences as jobs that
// survive a restart. Package api renders it over HTTP and cmd/kindred on a
// terminal; neither holds logic of its own.
//
// Flow of a record: Upsert -> profile.Compose -> Encoder -> profile.Pool ->
// index.Engine.Upsert. Flow of an audience: CreateAudience -> job ->
// audience.Build on a snapshot -> stored result and member pages.
package collection

import (
	"context"
	"log/slog"
	"time"

	"github.com/kindred-search/kindred/audience"
	"github.com/kindred-search/kindred/embed"
	"github.com/kindred-search/kindred/index"
	"github.com/kindred-search/kindred/ingest"
	"github.com/kindred-search/kindred/profile"
)

// Encoder turns texts into unit vectors. *embed.Model and *embed.Queue are ones.
type Encoder interface {
	Info() embed.Info
	Encode(ctx context.Context, texts []string, opt embed.EncodeOptions) (*embed.Result, error)
}

// Options is what a Service is made of. Store and KV are required.
type Options struct {
	Store index.Store
	KV    index.KV
	// OpenModel returns the encoder of a model by name. It may be slow the
	// first time; the Service calls it once a model. nil: no models.
	OpenModel func(ctx context.Context, name string) (Encoder, error)
	// ImportRoot is the folder that imports by path must lie in; "" forbids
	// them on Service.StartImport.
	ImportRoot string
	Limits     Limits
	// MaxMemory is how many bytes the customers of all open collections may take
	// in memory; more are refused with ErrMemory. 0: any.
	MaxMemory int64
	// Schedule makes the Service refresh audiences when they are due and delete
	// those that have expired. Without it, an expired audience is hidden only.
	Schedule bool
	// Shared says that other processes work on the same store: what they changed is looked
	// for, and their jobs are left to them while they live.
	Shared bool
	// Outside is for stores that are a copy of a server's: what lists of a collection
	// ask of it. nil: the store is what it has.
	Outside func(coll string) *audience.Outside
	Clock   func() time.Time // nil: time.Now
	Logger  *slog.Logger     // nil: discarded

	claimTimes claimTimes // of tests; zero: the constants
}

// Limits are the refusals at the door. Zero values take the default named.
type Limits struct {
	MinSeeds    int // fewest matched seeds of an audience; default 20
	MinAudience int // fewest members of an audience; default 100
	MaxBatch    int // records of one Upsert; default 10,000
	MaxTextLen  int // bytes of one text; default 1 MiB
	MaxTexts    int // texts of one customer; default 256
	MaxHits     int // limit + offset of a search; default 10,000
	MaxJobs     int // jobs waiting; default 64
	// An ended job is forgotten once KeepJobs others have ended later and it
	// ended KeepJobsFor ago; defaults 1,000 and 7 days.
	KeepJobs    int
	KeepJobsFor time.Duration
}

// Config is one collection as its owner declares it.
type Config struct {
	Name      string          `json:"name"`
	Model     string          `json:"model,omitempty"` // "": columns only, or vectors brought along
	Dim       int             `json:"dim,omitempty"`   // of brought vectors; with a model, the model's
	Precision index.Precision `json:"precision,omitempty"`
	Schema    profile.Schema  `json:"schema"`
	Stamp     string          `json:"stamp,omitempty"` // model and template that made the vectors
	Created   time.Time       `json:"created"`
	Customers int             `json:"customers"` // filled on reading
	// Generation counts how often the customers were embedded anew; see Reembed.
	Generation int `json:"generation,omitempty"`
}

// Input is a record with its place in what the caller sent.
type Input struct {
	Line   int // from 1
	Record profile.Record
}

// Verdict is one refused record.
type Verdict struct {
	Line   int    `json:"line"`
	ID     string `json:"id"`
	Reason string `json:"reason"`
}

// Outcome of an Upsert: valid records are kept, the others are named.
type Outcome struct {
	Accepted int       `json:"accepted"`
	Refused  []Verdict `json:"refused"`
	// Unnamed counts the refused records beyond those that Refused names.
	Unnamed int `json:"unnamed,omitempty" doc:"refused beyond those named"`
}

// Customer is one stored customer as it came in.
type Customer struct {
	ID      string         `json:"id"`
	Fields  map[string]any `json:"fields"`
	Texts   []profile.Text `json:"texts,omitempty"`
	Updated time.Time      `json:"updated"`
}

// Receipt counts what an erasure removed, by store.
type Receipt struct {
	ID        string    `json:"id"`
	Erased    time.Time `json:"erased"`
	Records   int       `json:"records"`   // records, vectors and columns
	Audiences int       `json:"audiences"` // audiences whose lists, of any version, the customer was taken off
	Outcomes  int       `json:"outcomes"`  // of audiences
	Groups    int       `json:"groups"`    // segmentations and tags that named the customer
	Note      string    `json:"note,omitempty"`
}

// SearchRequest asks by exactly one of Text, Vector and Customer.
type SearchRequest struct {
	Text     string        `json:"text,omitempty"`
	Vector   []float32     `json:"vector,omitempty"`
	Customer string        `json:"customer,omitempty"`
	Filter   *index.Filter `json:"filter,omitempty"`
	Limit    int           `json:"limit,omitempty"` // default 10
	Offset   int           `json:"offset,omitempty"`
	Fields   []string      `json:"fields,omitzero"` // to return; nil: all, empty: none
	// Exact asks for every customer to be scored where an index would miss some.
	Exact bool `json:"exact,omitempty" doc:"score everyone where an index might miss some"`
}

// Answer is the hits of a search and how they were found.
type Answer struct {
	Hits  []Hit       `json:"hits"`
	Found index.Found `json:"found"`
}

// Hit is one answer with the fields asked for.
type Hit struct {
	ID     string         `json:"id"`
	Score  float32        `json:"score"`
	Fields map[string]any `json:"fields,omitempty"`
}

// Example is one positive or negative of a SimilarRequest: a stored id or a
// vector, with a weight (default 1).
type Example struct {
	ID     string    `json:"id,omitempty"`
	Vector []float32 `json:"vector,omitempty"`
	Weight float64   `json:"weight,omitempty"`
}

// SimilarRequest asks for customers like some and unlike others.
type SimilarRequest struct {
	Positive []Example     `json:"positive"`
	Negative []Example     `json:"negative,omitempty"`
	Strategy string        `json:"strategy,omitempty"` // "average_vector" (default) or "best_score"
	Filter   *index.Filter `json:"filter,omitempty"`
	Limit    int           `json:"limit,omitempty"`
	Offset   int           `json:"offset,omitempty"`
	Fields   []string      `json:"fields,omitempty"`
	Exact    bool          `json:"exact,omitempty"` // as of SearchRequest
}

// CountRequest counts customers exactly: those that satisfy Filter and, with a
// Query, score at least Above against it.
type CountRequest struct {
	Filter *index.Filter `json:"filter,omitempty"`
	Query  string        `json:"query,omitempty"`
	Above  *float32      `json:"above,omitempty"`
}

// JobState is where a job stands.
type JobState string

// The states. Only the last three are final.
const (
	JobQueued    JobState = "queued"
	JobRunning   JobState = "running"
	JobDone      JobState = "done"
	JobFailed    JobState = "failed"
	JobCancelled JobState = "cancelled"
)

// Final says whether the job will not change any more.
func (s JobState) Final() bool { return s == JobDone || s == JobFailed || s == JobCancelled }

// Job is long work: an import, an audience, segments, a tag or a re-embedding.
type Job struct {
	ID         string    `json:"id"`
	Kind       string    `json:"kind"` // "import", "audience", "refresh", "segments", "tag", "reembed" or "relearn"
	Collection string    `json:"collection"`
	Target     string    `json:"target,omitempty"` // the audience's or tag's name, the import's file
	State      JobState  `json:"state"`
	Stage      string    `json:"stage,omitempty"`
	Done       int64     `json:"done"`
	Total      int64     `json:"total"` // 0 when unknown
	Rate       float64   `json:"rate"`  // per second
	ETA        float64   `json:"eta_seconds"`
	Errors     []Verdict `json:"errors,omitempty"` // a sample of refused lines
	Refused    int       `json:"refused,omitempty"`
	Accepted   int       `json:"accepted,omitempty"`
	Problem    string    `json:"problem,omitempty"` // why it failed
	Created    time.Time `json:"created"`
	Updated    time.Time `json:"updated"`
}

// ImportRequest reads a file into a collection as a job.
type ImportRequest struct {
	Path    string         `json:"path"`
	Options ingest.Options `json:"options"`
	// Uploaded says that the path is the server's own: it may lie outside the
	// import root. Never take it from a client.
	Uploaded bool `json:"uploaded,omitempty"`
}
