//go:build !race

package tokenize

const raceSlack = 0
