// rpc/sockets.h: what a socket says of its connection, and the process of its descriptors. Any
// thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace fathom::rpc {

size_t DescriptorLimit();

// As grpc::ServerContext::peer() spells it: ipv4:127.0.0.1:5000, ipv6:%5B::1%5D:5000. "": the peer
// is gone already.
std::string PeerOf(int fd);
// `peer` without its port.
std::string AddressOf(const std::string& peer);

int64_t BytesReceived(int fd);

// What has come and what is to go is thrown away, and the peer gets a reset. After shutdown() gRPC
// would still read and parse megabytes.
void Disconnect(int fd);

}  // namespace fathom::rpc
