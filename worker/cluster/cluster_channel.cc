#include "worker/cluster/cluster_channel.h"

#include <grpcpp/grpcpp.h>

namespace fathom::worker {

std::shared_ptr<grpc::Channel> DialScheduler(const std::string& address) {
  constexpr int kMessageBytesMax = 64 << 20;
  grpc::ChannelArguments args;
  // gRPC's own first back-off is a second; a scheduler that starts beside us would cost it
  // (docs/DECISIONS.md).
  args.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  args.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 1000);  // The connect time-out, too.
  args.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 100);
  args.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  args.SetInt(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, 8 << 20);
  args.SetMaxReceiveMessageSize(kMessageBytesMax);
  args.SetMaxSendMessageSize(kMessageBytesMax);
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), args);
}

}  // namespace fathom::worker
