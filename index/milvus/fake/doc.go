// Package fake is a Milvus in this process, for faults that a real one will not
// have on demand. It speaks the generated gRPC interface over a socket, keeps
// collections in memory, and does to a call what a test tells it: stall, refuse,
// answer half, answer wrong, answer after the work and lose the acknowledgement.
//
// It stands in for the real server nowhere else: whether Kindred and Milvus agree is
// tested against Milvus.
//
// Start makes a Server, Server.Fault installs a Fault, and Listen makes a port that
// is no gRPC at all. Faults of the line (cut, dropped packets) come from Proxy.
package fake
