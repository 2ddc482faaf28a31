//go:build race

package tokenize

// raceSlack: under the race detector sync.Pool drops items at random, and a new scanner costs a handful.
const raceSlack = 12
