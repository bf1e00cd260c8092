// cluster/channel.h: how a process of a cluster, or a client, makes a gRPC channel. A channel
// allows large messages (cluster/protocol.h), reconnects quickly, and has a connection of its own:
// the address is resolved again each time, and no stream polls another stream's socket. Thread:
// any.
//
// A channel uses no proxy unless the caller asks for it. gRPC's default would take http_proxy from
// the environment, also for 127.0.0.1, and the cluster would never become ready.
#pragma once

#include <memory>
#include <string>

namespace grpc {
class Channel;
}

namespace fathom {

struct ChannelOptions {
  int reconnect_ms_max = 100;  // The longest wait between two attempts to connect.
  // Whether to use the proxy that grpc_proxy, https_proxy or http_proxy names; no_proxy is obeyed.
  bool use_proxy = false;
};

// `address` is host:port or another target that gRPC accepts.
std::shared_ptr<grpc::Channel> MakeChannel(const std::string& address,
                                           const ChannelOptions& options = {});

}  // namespace fathom
