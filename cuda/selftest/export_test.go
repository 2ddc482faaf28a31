package selftest

// EncodesAll and ScansLong are what the simulator leaves out.
var (
	EncodesAll = encodesAll
	ScansLong  = scansLong
)
