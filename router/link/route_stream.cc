#include "router/link/route_stream.h"

#include <utility>

namespace fathom::router {

std::shared_ptr<RouteStream> RouteStream::Make(size_t outbox_bytes_max, Handler handler) {
  std::shared_ptr<RouteStream> stream(new RouteStream(outbox_bytes_max, std::move(handler)));
  stream->self_ = stream;
  return stream;
}

void RouteStream::Begin(cluster::v1::Scheduler::StubInterface* stub, Up hello) {
  stub->async()->Route(&context_, this);
  AddHold();
  StartRead(&incoming_);
  Send(std::move(hello), /*bounded=*/false);
  StartCall();
}

bool RouteStream::Send(Up message, bool bounded) {
  const size_t bytes = message.ByteSizeLong();
  {
    std::lock_guard lock(mutex_);
    if (closed_) return false;
    if (bounded && outbox_bytes_ > 0 && outbox_bytes_ + bytes > outbox_bytes_max_) {
      wants_room_ = true;
      return false;
    }
    outbox_bytes_ += bytes;
    if (writing_) {
      outbox_.push_back(std::move(message));
      return true;
    }
    writing_ = true;
  }
  outgoing_ = std::move(message);
  outgoing_bytes_ = bytes;
  StartWrite(&outgoing_);
  return true;
}

void RouteStream::OnWriteDone(bool ok) {
  bool next = false;
  bool over = false;
  bool room = false;
  {
    std::lock_guard lock(mutex_);
    outbox_bytes_ -= outgoing_bytes_;
    next = ok && !closed_ && !outbox_.empty();
    if (next) {
      outgoing_ = std::move(outbox_.front());
      outbox_.pop_front();
      outgoing_bytes_ = outgoing_.ByteSizeLong();
    } else {
      writing_ = false;
      closed_ = closed_ || !ok;
      over = read_ended_;
    }
    if (!closed_ && outbox_bytes_ < outbox_bytes_max_ / 2) room = std::exchange(wants_room_, false);
  }
  if (next) StartWrite(&outgoing_);
  if (room) handler_.writable(this);
  if (over) return RemoveHold();
  if (!ok) context_.TryCancel();  // Then the read ends, and OnReadDone removes the hold.
}

void RouteStream::OnReadDone(bool ok) {
  if (ok) {
    handler_.message(this, incoming_);
    incoming_.Clear();
    return StartRead(&incoming_);
  }
  {
    std::lock_guard lock(mutex_);
    closed_ = true;
    read_ended_ = true;
    outbox_.clear();
    if (writing_) return;  // OnWriteDone removes the hold.
  }
  RemoveHold();
}

void RouteStream::OnDone(const grpc::Status& status) {
  const std::shared_ptr<RouteStream> self = std::move(self_);
  handler_.done(this, status);
}

}  // namespace fathom::router
