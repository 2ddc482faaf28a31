package fake

import (
	"context"

	"github.com/milvus-io/milvus-proto/go-api/v2/milvuspb"
)

// GetMetrics is Milvus's call, with the fields of 2.3.5's answer that anyone reads.
func (s *Server) GetMetrics(context.Context, *milvuspb.GetMetricsRequest) (*milvuspb.GetMetricsResponse, error) {
	return &milvuspb.GetMetricsResponse{Status: ok(), ComponentName: "proxy1", Response: `{"nodes_info":[
{"identifier":1,"infos":{"has_error":false,"error_reason":"","name":"querynode1","hardware_infos":{"ip":"127.0.0.1:1","cpu_core_count":2,"memory":8589934592,"memory_usage":123456789,"disk":104857600,"disk_usage":2097152},"system_info":{"deploy_mode":"STANDALONE","build_version":"v2.3.5-fake"},"type":"querynode","id":1,"system_configurations":{"simd_type":"auto"}}},
{"identifier":1,"infos":{"has_error":false,"error_reason":"","name":"datacoord1","hardware_infos":{"cpu_core_count":2,"memory":8589934592,"memory_usage":1073741824},"type":"datacoord","id":1,"system_configurations":{"segment_max_size":512}}}]}`}, nil
}

// ListDatabases is Milvus's call.
func (s *Server) ListDatabases(context.Context, *milvuspb.ListDatabasesRequest) (*milvuspb.ListDatabasesResponse, error) {
	return &milvuspb.ListDatabasesResponse{Status: ok(), DbNames: []string{"default"}}, nil
}
