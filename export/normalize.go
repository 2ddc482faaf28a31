package export

import (
	"crypto/sha256"
	"encoding/hex"
	"regexp"
	"strings"
	"unicode"

	"github.com/nyaruka/phonenumbers"
)

// rules are the settings of normalisation.
type rules struct {
	region string // of phone numbers without a calling code
}

var (
	emailShape = regexp.MustCompile(`^[^@\s]+@[^@\s]+\.[^@\s.]+$`)
	hashShape  = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

func isHash(s string) bool { return hashShape.MatchString(s) }

// digest is the SHA-256 of a normalised value, "" of none.
func digest(s string) string {
	if s == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

// plainEmail has no white space and no capitals; "" when it is no address.
func plainEmail(s string) string {
	s = strings.ToLower(without(s, unicode.IsSpace))
	if !emailShape.MatchString(s) {
		return ""
	}
	return s
}

// googleEmail is plainEmail, at Google's own domains without the dots and the
// tag of the name, which do not tell accounts apart there.
func googleEmail(s string) string {
	s = plainEmail(s)
	user, host, _ := strings.Cut(s, "@")
	if host != "gmail.com" && host != "googlemail.com" {
		return s
	}
	user, _, _ = strings.Cut(user, "+")
	if user = strings.ReplaceAll(user, ".", ""); user == "" {
		return ""
	}
	return user + "@" + host
}

// e164 is a phone number as + and digits from the calling code on, "" when it
// cannot be one or lacks a calling code that nothing else tells.
func (r rules) e164(c *Contact) string {
	region := r.country(c)
	if region == "" {
		region = r.region
	}
	if region == "" {
		region = phonenumbers.UNKNOWN_REGION
	}
	raw := strings.TrimSpace(c.Phone)
	if region == phonenumbers.UNKNOWN_REGION && strings.HasPrefix(raw, "00") {
		raw = "+" + raw[2:]
	}
	n, err := phonenumbers.Parse(raw, region)
	if err != nil || !phonenumbers.IsPossibleNumber(n) {
		return ""
	}
	return phonenumbers.Format(n, phonenumbers.E164)
}

// country is the two-letter code in capitals, "" when it is none.
func (r rules) country(c *Contact) string {
	code := strings.ToUpper(strings.TrimSpace(c.Country))
	if !isCountry(code) {
		return ""
	}
	return code
}

// name has no capitals, no punctuation and one space between words.
func name(s string) string {
	s = without(strings.ToLower(s), func(r rune) bool {
		return unicode.IsPunct(r) || unicode.IsSymbol(r) || unicode.IsControl(r) && !unicode.IsSpace(r)
	})
	return strings.Join(strings.Fields(s), " ")
}

// letters are a place's letters in lower case.
func letters(s string) string {
	return without(strings.ToLower(s), func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsMark(r) })
}

// postal is a postal code with no more than letters, digits, spaces and hyphens
// inside.
func postal(s string) string {
	s = without(s, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) && r != ' ' && r != '-' })
	return strings.Trim(s, " -")
}

// shortPostal is a postal code in lower case without spaces, of the American
// nine digits the first five.
func shortPostal(s string) string {
	s, _, _ = strings.Cut(postal(s), "-")
	return strings.ToLower(without(s, unicode.IsSpace))
}

func without(s string, drop func(rune) bool) string {
	return strings.Map(func(r rune) rune {
		if drop(r) {
			return -1
		}
		return r
	}, s)
}
