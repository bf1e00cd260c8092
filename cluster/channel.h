// cluster/channel.h: how any process of a cluster, or a client of one, makes a gRPC channel: large
// messages (cluster/protocol.h), quick to connect again, a connection of its own each time (the
// address is resolved anew, and no stream polls another's socket). Thread: any.
//
// A channel never goes through a proxy unless the caller asks for it. Library defaults would take
// http_proxy from the environment, also for 127.0.0.1, and the cluster would never become ready.
#pragma once

#include <memory>
#include <string>

namespace grpc {
class Channel;
}

namespace fathom {

struct ChannelOptions {
  int reconnect_ms_max = 100;  // Longest wait between two tries to connect.
  // Whether the proxy that grpc_proxy, https_proxy or http_proxy names is used; no_proxy is obeyed.
  bool use_proxy = false;
};

// `address`: host:port, or what else gRPC takes for a target.
std::shared_ptr<grpc::Channel> MakeChannel(const std::string& address,
                                           const ChannelOptions& options = {});

}  // namespace fathom
