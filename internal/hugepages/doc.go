// Package hugepages asks the system for large pages under memory that is read from one
// end to the other.
package hugepages
