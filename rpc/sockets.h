// rpc/sockets.h: facts about a connection's socket and about the descriptors of this process. Any
// thread may call these functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace fathom::rpc {

size_t DescriptorLimit();

// The peer's address as grpc::ServerContext::peer() spells it: ipv4:127.0.0.1:5000,
// ipv6:%5B::1%5D:5000. "": the peer has already disconnected.
std::string PeerOf(int fd);
// `peer` without its port.
std::string AddressOf(const std::string& peer);

int64_t BytesReceived(int fd);

// Drops received and queued bytes and sends a reset to the peer. After a shutdown(), gRPC would
// still read and parse megabytes.
void Disconnect(int fd);

}  // namespace fathom::rpc
