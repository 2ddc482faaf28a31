package selftest

// EncodesAll is what the simulator leaves out.
var EncodesAll = encodesAll
