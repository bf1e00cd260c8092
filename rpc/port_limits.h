// rpc/port_limits.h: the limits of one gRPC port, the same in every process: plain values, and the
// function that gives them to gRPC.
#pragma once

#include <grpcpp/server_builder.h>

#include <cstddef>
#include <cstdint>
#include <string>

namespace fathom::rpc {

struct PortLimits {
  int streams_per_connection_max = 1024;
  int message_bytes_max = 4 << 20;  // The longest message that is received.
  int metadata_bytes_max = 16 << 10;
  // gRPC's buffers and calls of all connections. Beyond it gRPC stops reading and cancels calls.
  size_t memory_bytes_max = size_t{256} << 20;
  // A connection is closed after this time without a call.
  int connection_idle_ms = 300'000;
  // A connection's first HTTP/2 frames must come within this time.
  int handshake_ms = 10'000;
  // Ends a connection whose peer does not answer a ping, for example a machine that vanished.
  int keepalive_ms = 60'000;
  int keepalive_timeout_ms = 20'000;
};

// Compression is refused: a message of 0.5 MB may unpack to 512 MiB, and gRPC unpacks it before it
// checks any limit. `name` is the name of the memory quota.
void Apply(const PortLimits& limits, const std::string& name, grpc::ServerBuilder* builder);

}  // namespace fathom::rpc
