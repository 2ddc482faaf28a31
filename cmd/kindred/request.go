package main

import (
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/kindred-search/kindred/audience"
)

// fairFlags are what lookalike and audience create may say of evenness and level.
type fairFlags struct {
	fair       string
	allow      []string
	prevalence float64
}

func (f *fairFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.fair, "fair", "", "COLUMN=RATIO: no group of the column is selected at less than this share of the highest group's rate, such as sex=0.8")
	flags.StringSliceVar(&f.allow, "allow-sensitive", nil, "sensitive columns to score by all the same")
	flags.Float64Var(&f.prevalence, "prevalence", 0, "share of customers who are of the seeds' kind, where it is known: probabilities then have its level")
}

// apply writes the flags into a request.
func (f *fairFlags) apply(req *audience.Request) error {
	req.Features.AllowSensitive = slices.Clone(f.allow)
	if f.fair != "" {
		at := strings.LastIndexByte(f.fair, '=')
		ratio, err := strconv.ParseFloat(f.fair[at+1:], 64)
		if at < 1 || err != nil || !(ratio > 0 && ratio <= 1) {
			return usagef("--fair %q: want COLUMN=RATIO with a ratio above 0 and up to 1, such as sex=0.8", f.fair)
		}
		req.Fairness = &audience.Fairness{Column: f.fair[:at], MinRatio: ratio}
	}
	if f.prevalence != 0 {
		if !(f.prevalence > 0 && f.prevalence < 1) {
			return usagef("--prevalence %v: want a share above 0 and below 1", f.prevalence)
		}
		req.Prevalence = &f.prevalence
	}
	return nil
}
