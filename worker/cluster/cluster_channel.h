// worker/cluster/cluster_channel.h: gRPC channels to a scheduler, the same for Control and Steps: a
// connection of its own each time (the address is resolved anew, and no stream polls another's
// socket), quick to connect again, large messages. Thread: any.
#pragma once

#include <memory>
#include <string>

namespace grpc {
class Channel;
}

namespace fathom::worker {

std::shared_ptr<grpc::Channel> DialScheduler(const std::string& address);

}  // namespace fathom::worker
