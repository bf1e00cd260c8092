// rpc/port_limits.h: what one gRPC port takes from a client, the same in every process. Pure values
// and the one function that hands them to gRPC.
#pragma once

#include <grpcpp/server_builder.h>

#include <cstddef>
#include <cstdint>
#include <string>

namespace fathom::rpc {

struct PortLimits {
  int streams_per_connection_max = 1024;
  int message_bytes_max = 4 << 20;  // Received.
  int metadata_bytes_max = 16 << 10;
  // gRPC's buffers and calls of all connections together; beyond it gRPC reads no more and cancels.
  size_t memory_bytes_max = size_t{256} << 20;
  // A connection without a call for so long is closed.
  int connection_idle_ms = 300'000;
  // A connection's first HTTP/2 frames must come within this time.
  int handshake_ms = 10'000;
  // A connection whose other side does not answer a ping: a machine that vanished.
  int keepalive_ms = 60'000;
  int keepalive_timeout_ms = 20'000;
};

// Compression is refused: a message of 0.5 MB may unpack to 512 MiB, and gRPC unpacks it before it
// looks at any limit. `name` is the memory quota's name.
void Apply(const PortLimits& limits, const std::string& name, grpc::ServerBuilder* builder);

}  // namespace fathom::rpc
