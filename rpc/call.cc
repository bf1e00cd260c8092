#include "rpc/call.h"

#include <utility>

#include "rpc/credentials.h"

namespace fathom::rpc {

std::string Dump(const grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  std::string bytes;
  if (!buffer.Dump(&slices).ok()) return bytes;
  bytes.reserve(buffer.Length());
  for (const grpc::Slice& slice : slices)
    bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  return bytes;
}

grpc::ByteBuffer ToBuffer(const std::string& bytes) {
  const grpc::Slice slice(bytes);
  return {&slice, 1};
}

// The last value of a header.
static std::string HeaderOf(const grpc::GenericCallbackServerContext& context, const char* name) {
  std::string value;
  const auto [begin, end] = context.client_metadata().equal_range(name);
  for (auto it = begin; it != end; ++it) value.assign(it->second.data(), it->second.size());
  return value;
}

static std::vector<std::string> NamesOf(const grpc::GenericCallbackServerContext& context) {
  const auto auth = context.auth_context();
  return auth == nullptr ? std::vector<std::string>() : PeerNames(*auth);
}

Call::Call(Owner* owner, grpc::GenericCallbackServerContext* context)
    : owner_(owner),
      method_(context->method()),
      peer_(context->peer()),
      forwarded_for_(HeaderOf(*context, "x-forwarded-for")),
      traceparent_(HeaderOf(*context, "traceparent")),
      authorization_(HeaderOf(*context, "authorization")),
      api_key_(HeaderOf(*context, "x-api-key")),
      peer_names_(NamesOf(*context)),
      deadline_(context->deadline()),
      context_(context) {}

std::shared_ptr<Call> Call::Make(Owner* owner, grpc::GenericCallbackServerContext* context) {
  std::shared_ptr<Call> call(new Call(owner, context));
  call->self_ = call;
  return call;
}

std::shared_ptr<CallSink> Call::sink() {
  std::lock_guard lock(mutex_);
  return sink_;
}

void Call::SetSink(std::shared_ptr<CallSink> sink) {
  bool cancelled = false;
  {
    std::lock_guard lock(mutex_);
    sink_ = sink;
    cancelled = cancelled_;
  }
  if (cancelled) sink->OnCancel();
}

void Call::Write(grpc::ByteBuffer message) {
  answered_ = true;
  outgoing_ = std::move(message);
  StartWrite(&outgoing_);
}

void Call::WriteAndFinish(grpc::ByteBuffer message) {
  answered_ = answered_ || !cancelled_;
  outgoing_ = std::move(message);
  StartWriteAndFinish(&outgoing_, grpc::WriteOptions(), grpc::Status::OK);
}

void Call::End(const grpc::Status& status) {
  answered_ = answered_ || !cancelled_;
  Finish(status);
}

void Call::Break() {
  std::lock_guard lock(context_mutex_);
  if (context_ != nullptr) context_->TryCancel();
}

void Call::OnReadDone(bool ok) {
  const std::shared_ptr<Call> self = self_;
  if (std::exchange(first_, false)) {
    return ok ? owner_->OnFirstMessage(self, std::move(incoming_)) : owner_->OnNoMessage(self);
  }
  const std::shared_ptr<CallSink> sink = this->sink();
  if (sink == nullptr) return;
  ok ? sink->OnMessage(std::move(incoming_)) : sink->OnMessagesEnd();
}

void Call::OnWriteDone(bool ok) {
  if (const std::shared_ptr<CallSink> sink = this->sink()) sink->OnWriteDone(ok);
}

void Call::OnCancel() {
  std::shared_ptr<CallSink> sink;
  {
    std::lock_guard lock(mutex_);
    cancelled_ = true;
    sink = sink_;
  }
  if (sink != nullptr) sink->OnCancel();
}

void Call::OnDone() {
  const std::shared_ptr<Call> self = std::move(self_);
  {
    std::lock_guard lock(context_mutex_);
    context_ = nullptr;
  }
  std::shared_ptr<CallSink> sink;
  {
    std::lock_guard lock(mutex_);
    sink = std::move(sink_);
  }
  if (sink != nullptr) sink->OnDone();
  owner_->OnEnd(self, refused_ || (cancelled_ && !answered_));
}

}  // namespace fathom::rpc
