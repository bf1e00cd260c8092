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

#include "common/tls_files.h"

namespace grpc {
class Channel;
class ChannelCredentials;
}  // namespace grpc

namespace fathom {

struct ChannelOptions {
  int reconnect_ms_max = 100;  // The longest wait between two attempts to connect.
  // Whether to use the proxy that grpc_proxy, https_proxy or http_proxy names; no_proxy is obeyed.
  bool use_proxy = false;
  // Of TlsCredentials; null: no TLS.
  std::shared_ptr<grpc::ChannelCredentials> credentials = nullptr;
  // The name that the server's certificate must have; empty: the host of the address.
  std::string peer_name = {};
};

// TLS for the channels of a process, which share one object: it has a thread that reads the files
// again when they change. `files.cert` and `files.key` may be empty: the server then asks for none.
// files.ca has the roots of the servers' certificates; empty: those of the system. REQUIRES: the
// files were checked.
std::shared_ptr<grpc::ChannelCredentials> TlsCredentials(const TlsFiles& files);

// TLS that takes any certificate: only for a server that the caller itself started on this machine.
std::shared_ptr<grpc::ChannelCredentials> UnverifiedTls();

// How a router or worker dials its scheduler. Without files: no TLS.
ChannelOptions ToScheduler(const TlsFiles& files);

// `address` is host:port or another target that gRPC accepts.
std::shared_ptr<grpc::Channel> MakeChannel(const std::string& address,
                                           const ChannelOptions& options = {});

}  // namespace fathom
