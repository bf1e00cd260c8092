// router/link/route_stream.h: one Route call to one scheduler address, as a callback reactor with a
// bounded outbox. Thread: any. The reactor keeps itself alive until gRPC's last callback.
// Invariants: At most one write is in flight. StartWrite is never called while the mutex is held,
// and never after OnDone: the hold of the call is removed only when no write is in flight.
#pragma once

#include <grpcpp/client_context.h>

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>

#include "cluster.grpc.pb.h"

namespace fathom::router {

class RouteStream final
    : public grpc::ClientBidiReactor<cluster::v1::RouteUp, cluster::v1::RouteDown> {
 public:
  using Up = cluster::v1::RouteUp;
  using Down = cluster::v1::RouteDown;
  struct Handler {
    std::function<void(RouteStream*, Down&)> message;
    std::function<void(RouteStream*)> writable;  // There is room, after a Send that found none.
    // The last call; the stream may be destroyed after it.
    std::function<void(RouteStream*, const grpc::Status&)> done;
    // Released when the stream no longer refers to its channel, which its ClientContext does until
    // it is destroyed. If a thread of gRPC released a channel last, it would have to join itself,
    // and gRPC 1.51 then frees what the thread uses. So the owner of the channel waits for this.
    std::shared_ptr<void> channel_user;
  };

  static std::shared_ptr<RouteStream> Make(size_t outbox_bytes_max, Handler handler);
  // Starts the call; `hello` is the first message. REQUIRES: called once, before any other method.
  void Begin(cluster::v1::Scheduler::StubInterface* stub, Up hello);

  // False: the stream is closed, or there is no room. The limit holds only for `bounded` messages.
  bool Send(Up message, bool bounded);
  void Cancel() { context_.TryCancel(); }

  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnDone(const grpc::Status& status) override;

 private:
  RouteStream(size_t outbox_bytes_max, Handler handler)
      : outbox_bytes_max_(outbox_bytes_max), handler_(std::move(handler)) {}

  const size_t outbox_bytes_max_;
  const Handler handler_;  // Before context_, so that it is destroyed after it.
  grpc::ClientContext context_;
  Down incoming_;  // Owned by the read in flight.
  Up outgoing_;    // Owned by the write in flight.
  size_t outgoing_bytes_ = 0;
  std::shared_ptr<RouteStream> self_;

  std::mutex mutex_;  // Guards all below.
  std::deque<Up> outbox_;
  size_t outbox_bytes_ = 0;  // The message in flight included.
  bool writing_ = false;
  bool closed_ = false;  // Send takes no more messages.
  bool read_ended_ = false;
  bool wants_room_ = false;
};

}  // namespace fathom::router
