package buildinfo

import "testing"

func TestReadSaysWhatRuns(t *testing.T) {
	got := Read()
	if got.Version == "" || got.Go == "" || got.Platform == "" {
		t.Fatalf("Read() = %+v: version, toolchain and platform must be there", got)
	}
}
