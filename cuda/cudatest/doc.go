// Package cudatest opens devices for the tests of the packages below cuda.
package cudatest
