package export

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"hash"
	"io"
	"time"

	"github.com/kindred-search/kindred/audience"
)

// Plain is the layout of ids, scores and reasons, without contact data.
const Plain = "plain"

// ManifestEnd is what a manifest is called after its file's name.
const ManifestEnd = ".manifest.json"

// FileManifest says what a file of an audience is and how it was made. It lies beside the
// file, so that who receives both can tell that the file is whole, and which list it is.
type FileManifest struct {
	File       string    `json:"file"`
	SHA256     string    `json:"sha256"` // of the file, hexadecimal
	Bytes      int64     `json:"bytes"`
	Collection string    `json:"collection"`
	Audience   string    `json:"audience"`
	Version    int       `json:"version,omitempty"` // of the list
	Built      time.Time `json:"built,omitzero"`    // when the customers of the list were looked at
	Members    int       `json:"members"`           // of the audience
	Rows       int       `json:"rows"`              // of the file
	Minimum    int       `json:"minimum"`           // of both
	Layout     string    `json:"layout"`
	Contacts   *Contacts `json:"contacts,omitempty"` // of hashed layouts
	// Control is who was held back: no member of the file.
	Control *audience.Holdback `json:"control,omitempty"`
	// List is what made the list: method, model, seeds' hash, data.
	List *audience.Manifest `json:"list,omitempty"`
	Tool string             `json:"tool"`
}

// Contacts is what became of the contact data of a hashed layout.
type Contacts struct {
	Summary
	Absent int `json:"absent"` // members that the contacts do not name
}

// Write writes a manifest, indented.
func (m *FileManifest) Write(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(m)
}

// Sealed passes a file on and takes its checksum and length on the way.
type Sealed struct {
	to  io.Writer
	sum hash.Hash
	n   int64
}

// Seal returns a writer to w.
func Seal(w io.Writer) *Sealed { return &Sealed{to: w, sum: sha256.New()} }

// Write passes p on.
func (s *Sealed) Write(p []byte) (int, error) {
	n, err := s.to.Write(p)
	_, herr := s.sum.Write(p[:n])
	s.n += int64(n)
	if err == nil {
		err = herr
	}
	return n, err
}

// Sum is the SHA-256 of what was passed on so far.
func (s *Sealed) Sum() []byte { return s.sum.Sum(nil) }

// Describe writes the checksum and the length of what was passed on into a manifest.
func (s *Sealed) Describe(m *FileManifest) { m.SHA256, m.Bytes = hex.EncodeToString(s.Sum()), s.n }
