#include "scheduler/transport/grpc_reflection.h"

#include <fmt/format.h>
#include <grpcpp/generic/async_generic_service.h>

#include <algorithm>
#include <unordered_map>
#include <utility>

#include "grpc/reflection/v1/reflection.pb.h"
#include "rpc/reflection.h"
#include "scheduler/transport/completion.h"

namespace fathom::scheduler {
namespace {

constexpr size_t kStreamsMax = 256;

}  // namespace

class GrpcReflection::Impl {
 public:
  explicit Impl(std::vector<std::string> names) : services(std::move(names)) {
    services.push_back(grpc::reflection::v1::ServerReflectionRequest::descriptor()
                           ->file()
                           ->service(0)
                           ->full_name());
  }

  class Stream;
  void Accept();

  std::vector<std::string> services;
  grpc::AsyncGenericService service;
  grpc::ServerCompletionQueue* queue = nullptr;
  std::unordered_map<Completion*, std::unique_ptr<Stream>> streams;  // Streams remove themselves.
};

// A stream is accepted, then reads and answers in turn, then is finished. One operation is always
// pending.
class GrpcReflection::Impl::Stream final : public Completion {
 public:
  explicit Stream(Impl* impl) : impl_(*impl) {}

  void Accept() { impl_.service.RequestCall(&context_, &stream_, impl_.queue, impl_.queue, this); }

  void Done(bool ok) override {
    switch (state_) {
      case State::kAccepting:
        if (!ok) break;
        impl_.Accept();
        return OnAccepted();
      case State::kReading:
        if (!ok) return Finish(grpc::Status::OK);
        state_ = State::kWriting;
        return stream_.Write(Answer(), this);
      case State::kWriting:
        if (!ok) return Finish(grpc::Status::OK);
        return Read();
      case State::kFinishing:
        break;
    }
    impl_.streams.erase(this);
  }

 private:
  enum class State { kAccepting, kReading, kWriting, kFinishing };

  void OnAccepted() {
    const auto& methods = rpc::kReflectionMethods;
    if (std::find(std::begin(methods), std::end(methods), context_.method()) == std::end(methods)) {
      return Finish({grpc::StatusCode::UNIMPLEMENTED,
                     fmt::format("this scheduler has no method {}; is this the port of a router?",
                                 context_.method().substr(0, 200))});
    }
    if (impl_.streams.size() > kStreamsMax) {
      return Finish(
          {grpc::StatusCode::RESOURCE_EXHAUSTED,
           fmt::format("this port has {} streams of reflection, as many as may", kStreamsMax)});
    }
    Read();
  }

  void Read() {
    state_ = State::kReading;
    stream_.Read(&incoming_, this);
  }

  void Finish(const grpc::Status& status) {
    state_ = State::kFinishing;
    stream_.Finish(status, this);
  }

  grpc::ByteBuffer Answer() {
    grpc::Slice request;
    if (!incoming_.TrySingleSlice(&request).ok() && !incoming_.DumpToSingleSlice(&request).ok()) {
      request = grpc::Slice();
    }
    const grpc::Slice answer(rpc::AnswerReflection(
        std::string(reinterpret_cast<const char*>(request.begin()), request.size()),
        impl_.services));
    return {&answer, 1};
  }

  Impl& impl_;
  grpc::GenericServerContext context_;
  grpc::GenericServerAsyncReaderWriter stream_{&context_};
  grpc::ByteBuffer incoming_;
  State state_ = State::kAccepting;
};

void GrpcReflection::Impl::Accept() {
  auto stream = std::make_unique<Stream>(this);
  Stream* raw = stream.get();
  streams.emplace(raw, std::move(stream));
  raw->Accept();
}

GrpcReflection::GrpcReflection(std::vector<std::string> services)
    : impl_(std::make_unique<Impl>(std::move(services))) {}
GrpcReflection::~GrpcReflection() = default;

void GrpcReflection::Register(grpc::ServerBuilder* builder) {
  builder->RegisterAsyncGenericService(&impl_->service);
}

void GrpcReflection::Start(grpc::ServerCompletionQueue* queue) {
  impl_->queue = queue;
  impl_->Accept();
}

}  // namespace fathom::scheduler
