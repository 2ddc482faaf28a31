package milvus

import "time"

// SetBuildTime shortens what a server gets to build the index of a few rows, and returns
// how to undo that.
func SetBuildTime(d time.Duration) func() {
	was := buildTime
	buildTime = d
	return func() { buildTime = was }
}
