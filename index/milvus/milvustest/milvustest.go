// Package milvustest finds the real Milvus that tests run against.
//
// server.py beside this file installs one without containers, starts and stops it;
// `make test-milvus` does so around the tests below index/milvus.
package milvustest

import (
	"os"
	"testing"
)

// Variable names the environment variable with host:port of a Milvus for tests. They
// write into collections of their own, whose names begin with kindredtest_, and drop
// them.
const Variable = "KINDRED_TEST_MILVUS"

// Address returns it, and skips the test where it is not set or tests are to be short;
// with CI=true a missing server is a failure.
func Address(t testing.TB) string {
	t.Helper()
	if testing.Short() {
		t.Skip("needs a real Milvus, and tests are to be short")
	}
	addr := os.Getenv(Variable)
	switch {
	case addr != "":
	case os.Getenv("CI") == "true":
		t.Fatalf("%s is not set: CI starts a Milvus by index/milvus/milvustest/server.py", Variable)
	default:
		t.Skipf("%s is not set: host:port of a Milvus for tests; or `make test-milvus`", Variable)
	}
	return addr
}
