#include "client/client.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>
#include <utility>

#include "client/convert.h"
#include "client/session.h"
#include "cluster/channel.h"
#include "common/check.h"
#include "common/clock.h"
#include "common/process.h"
#include "inference.grpc.pb.h"

namespace fathom::client {
namespace {

constexpr int64_t kBackoffFirstMs = 100;
constexpr int64_t kBackoffMaxMs = 1000;

using Response = v1::GenerateResponse;
using Reader = grpc::ClientAsyncReader<Response>;

struct Server {
  std::string address;
  std::shared_ptr<grpc::Channel> channel;
  std::unique_ptr<v1::Inference::Stub> inference;
  std::unique_ptr<v1::Admin::Stub> admin;
};

// Opens the call of one stream; the request must outlive the call.
using Opener =
    std::function<std::unique_ptr<Reader>(Server&, grpc::ClientContext*, grpc::CompletionQueue*)>;

bool IsLocal(const std::string& address) {
  return address.starts_with("127.") || address.starts_with("localhost:") ||
         address.starts_with("[::1]:") || address.starts_with("unix:");
}

Server Dial(const std::string& address, const ClientOptions& options,
            const std::shared_ptr<grpc::ChannelCredentials>& credentials) {
  // A restarted router on this machine accepts again within tenths of a second.
  auto channel = MakeChannel(address, {.reconnect_ms_max = IsLocal(address) ? 100 : 1000,
                                       .use_proxy = options.use_proxy,
                                       .credentials = credentials});
  return {address, channel, v1::Inference::NewStub(channel), v1::Admin::NewStub(channel)};
}

void AddKey(const std::string& api_key, grpc::ClientContext* context) {
  if (!api_key.empty()) context->AddMetadata("authorization", "Bearer " + api_key);
}

std::chrono::system_clock::time_point In(int64_t ms) {
  return std::chrono::system_clock::now() + std::chrono::milliseconds(ms);
}

// One server stream that the calling thread reads with a limit on silence. No other thread polls
// the queue.
class Stream {
 public:
  Stream(const Opener& open, Server& server, const std::string& api_key) {
    AddKey(api_key, &context_);
    reader_ = open(server, &context_, &queue_);
    reader_->StartCall(this);
  }
  ~Stream() { queue_.Shutdown(); }

  enum class Read { kFrame, kEnd, kSilent };
  // REQUIRES: the last result was kFrame, or this is the first call.
  Read Next(Response* frame, int64_t silence_ms) {
    const auto deadline = In(silence_ms);
    if (!opened_) {
      if (const auto got = Wait(deadline); got != Read::kFrame) return got;
      opened_ = true;
    }
    reader_->Read(frame, this);
    return Wait(deadline);
  }

  // Ends the call and returns its status. `cancel`: does not wait for the remaining frames.
  grpc::Status Finish(bool cancel) {
    if (cancel) context_.TryCancel();
    if (pending_) Drain();
    grpc::Status status;
    reader_->Finish(&status, this);
    Drain();
    return status;
  }

 private:
  // Waits for the one pending operation.
  Read Wait(std::chrono::system_clock::time_point deadline) {
    void* tag = nullptr;
    bool ok = false;
    pending_ = queue_.AsyncNext(&tag, &ok, deadline) == grpc::CompletionQueue::TIMEOUT;
    if (pending_) return Read::kSilent;
    return ok ? Read::kFrame : Read::kEnd;
  }
  void Drain() {
    void* tag = nullptr;
    bool ok = false;
    FATHOM_CHECK(queue_.Next(&tag, &ok));
    pending_ = false;
  }

  grpc::ClientContext context_;
  grpc::CompletionQueue queue_;
  std::unique_ptr<Reader> reader_;
  bool opened_ = false;
  bool pending_ = false;  // An operation did not end before its deadline.
};

// True if another try, perhaps at another router, may succeed: a lost connection, or a router
// without room for an answer that has begun. False for a decision of a router. Repeating a request
// is always safe, because its id and seed are fixed before it is sent.
bool Retryable(const absl::Status& status, bool started) {
  const auto detail = DetailOf(status);
  switch (status.code()) {
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDataLoss:
      return true;
    case absl::StatusCode::kResourceExhausted:
      return started && detail && detail->retry_after_ms > 0;
    case absl::StatusCode::kCancelled:  // A router that ends cancels its calls; this client did not
                                        // cancel.
    case absl::StatusCode::kUnknown:
    case absl::StatusCode::kInternal:
      return !detail;  // A reset stream; an error of a router has a detail.
    default:
      return false;
  }
}

}  // namespace

class Client::Impl {
 public:
  explicit Impl(ClientOptions options) : options_(std::move(options)) {
    FATHOM_CHECK(!options_.servers.empty());
    std::shared_ptr<grpc::ChannelCredentials> credentials;
    if (options_.tls) {
      credentials = options_.tls_unverified ? UnverifiedTls() : TlsCredentials(options_.tls_files);
    }
    for (const std::string& address : options_.servers) {
      servers_.push_back(Dial(address, options_, credentials));
    }
  }

  // `send(server, context, queue, request)` opens the stream of `request`, a message of type Wire
  // that the caller owns.
  template <class Wire, class Send>
  absl::StatusOr<Answer> Run(Wire request, int32_t sequences, const Send& send,
                             const EventFn& on_event) {
    Session session(sequences);
    v1::ResumeRequest resume;
    const Opener open_fresh = [&](Server& s, grpc::ClientContext* c, grpc::CompletionQueue* q) {
      return send(*s.inference, c, request, q);
    };
    const Opener open_resume = [&](Server& s, grpc::ClientContext* c, grpc::CompletionQueue* q) {
      return s.inference->PrepareAsyncResume(c, resume, q);
    };
    bool resuming = false;
    uint64_t progress = 0;
    TimeUs progress_at = clock_.Now();
    int64_t backoff_ms = kBackoffFirstMs;
    for (;;) {
      const size_t index = current_.load();
      session.BeginStream(resuming ? Session::From::kNextPositions : Session::From::kStart);
      bool stopped = false;
      absl::Status status = ReadStream(resuming ? open_resume : open_fresh, servers_[index],
                                       &session, on_event, &stopped);
      if (stopped) return Cancelled("the caller ended the call");
      if (status.ok()) return session.TakeAnswer();
      const bool forgotten = resuming && absl::IsNotFound(status);
      if (!forgotten && !Retryable(status, session.started())) return status;

      if (session.progress() != progress) {
        progress = session.progress();
        progress_at = clock_.Now();
        backoff_ms = kBackoffFirstMs;
      }
      const int64_t budget_ms =
          session.started() ? options_.retry_budget_ms : options_.first_budget_ms;
      if (clock_.Now() - progress_at >= budget_ms * 1000) return status;
      resuming = session.started() && !forgotten;
      if (session.started()) Pin(session, &request, &resume);
      if (forgotten) continue;  // This server answers: start again with the whole request.
      MoveOn(index);
      const auto detail = DetailOf(status);
      Pause(std::max(backoff_ms, detail ? std::min(detail->retry_after_ms, kBackoffMaxMs) : 0));
      backoff_ms = std::min(backoff_ms * 2, kBackoffMaxMs);
    }
  }

  template <class Call>
  absl::Status Unary(int64_t deadline_ms, const Call& call) {
    absl::Status status;
    for (size_t tries = 0; tries < servers_.size(); ++tries) {
      const size_t index = current_.load();
      grpc::ClientContext context;
      AddKey(options_.api_key, &context);
      context.set_deadline(In(deadline_ms));
      status = At(servers_[index], call(servers_[index], &context));
      if (status.code() != absl::StatusCode::kUnavailable) return status;
      MoveOn(index);
    }
    return status;
  }

  // Asks each server once, until one answers OK. Returns the answer NOT_FOUND only if no other
  // error came.
  template <class Call>
  absl::Status UnaryAnywhere(int64_t deadline_ms, const Call& call) {
    absl::Status worst;
    for (Server& server : servers_) {
      grpc::ClientContext context;
      AddKey(options_.api_key, &context);
      context.set_deadline(In(deadline_ms));
      absl::Status status = At(server, call(server, &context));
      if (status.ok()) return status;
      if (worst.ok() || absl::IsNotFound(worst)) worst = std::move(status);
    }
    return worst;
  }

  const ClientOptions& options() const { return options_; }

 private:
  // Reads one stream to its end. OK: every sequence has its Finish.
  absl::Status ReadStream(const Opener& open, Server& server, Session* session,
                          const EventFn& on_event, bool* stopped) {
    Stream stream(open, server, options_.api_key);
    Response frame;
    int64_t silence_ms = options_.first_frame_ms;
    for (;;) {
      const auto read = stream.Next(&frame, silence_ms);
      if (read == Stream::Read::kSilent) {
        stream.Finish(/*cancel=*/true);
        return Unavailable("{} was silent for {} ms", server.address, silence_ms);
      }
      if (read == Stream::Read::kEnd) break;
      silence_ms = options_.silence_ms;
      auto event = FromWire(frame);
      if (event.ok() && event->has_value()) event = session->Apply(std::move(**event));
      if (!event.ok()) {
        stream.Finish(/*cancel=*/true);
        return event.status();
      }
      if (event->has_value() && on_event && !on_event(**event)) {
        *stopped = true;
        stream.Finish(/*cancel=*/true);
        return absl::OkStatus();
      }
    }
    FATHOM_RETURN_IF_ERROR(At(server, stream.Finish(/*cancel=*/false)));
    if (session->finished()) return absl::OkStatus();
    return Unavailable("{} ended the stream without a Finish", server.address);
  }

  // Fixes the id and the seed, so that the request is the same at every router.
  template <class Wire>
  static void Pin(const Session& session, Wire* request, v1::ResumeRequest* resume) {
    const Started& started = session.answer().started;
    request->set_request_id(started.request_id);
    request->mutable_sampling()->set_seed(started.seed);
    resume->set_request_id(started.request_id);
    const std::vector<int32_t> next = session.next_positions();
    resume->mutable_next_positions()->Assign(next.begin(), next.end());
  }

  // gRPC's text for a refused connection does not name our address, so it is added.
  static absl::Status At(const Server& server, const grpc::Status& status) {
    absl::Status result = FromGrpc(status);
    if (result.code() != absl::StatusCode::kUnavailable || DetailOf(result)) return result;
    return Annotate(result, fmt::format("router {} does not answer; start it, or name another one",
                                        server.address));
  }

  // Waits until the next server is connected, at most `ms`. It is not a plain sleep, because
  // without a call gRPC connects only while a thread polls the channel.
  void Pause(int64_t ms) {
    const auto until = In(ms);
    grpc::Channel& channel = *servers_[current_.load()].channel;
    if (channel.GetState(/*try_to_connect=*/true) == GRPC_CHANNEL_READY) {
      std::this_thread::sleep_until(until);
    } else {
      channel.WaitForConnected(until);
    }
  }

  void MoveOn(size_t from) { current_.compare_exchange_strong(from, (from + 1) % servers_.size()); }

  const ClientOptions options_;
  const RealClock clock_;
  std::vector<Server> servers_;
  std::atomic<size_t> current_ = 0;
};

Client::Client(ClientOptions options) : impl_(std::make_unique<Impl>(std::move(options))) {}
Client::~Client() = default;

namespace {

// The client sets id and seed before the first send, so that a try whose answer was lost can be
// repeated at any router. With an idempotency key both follow from the key.
template <class Wire>
Wire Complete(Wire request) {
  if (!request.idempotency_key().empty()) return request;
  if (request.request_id().empty()) request.set_request_id(RandomId());
  if (!request.sampling().has_seed()) request.mutable_sampling()->set_seed(RandomSeed());
  return request;
}

}  // namespace

absl::StatusOr<Answer> Client::Generate(const GenerateRequest& request, const EventFn& on_event) {
  v1::GenerateRequest wire;
  ToWire(request, &wire);
  const auto send = [](v1::Inference::Stub& stub, grpc::ClientContext* context,
                       const v1::GenerateRequest& message, grpc::CompletionQueue* queue) {
    return stub.PrepareAsyncGenerate(context, message, queue);
  };
  return impl_->Run(Complete(std::move(wire)), std::max(1, request.sampling.n.value_or(1)), send,
                    on_event);
}

absl::StatusOr<Answer> Client::Chat(const ChatRequest& request, const EventFn& on_event) {
  v1::ChatRequest wire;
  ToWire(request, &wire);
  const auto send = [](v1::Inference::Stub& stub, grpc::ClientContext* context,
                       const v1::ChatRequest& message, grpc::CompletionQueue* queue) {
    return stub.PrepareAsyncChat(context, message, queue);
  };
  return impl_->Run(Complete(std::move(wire)), std::max(1, request.sampling.n.value_or(1)), send,
                    on_event);
}

namespace {

TokenizeResult TokenizeFromWire(const v1::TokenizeResponse& from) {
  TokenizeResult result;
  result.ids.assign(from.ids().begin(), from.ids().end());
  if (from.has_rendered()) result.rendered = from.rendered();
  return result;
}

}  // namespace

absl::StatusOr<TokenizeResult> Client::Tokenize(const std::string& text, bool add_special_tokens) {
  v1::TokenizeRequest request;
  request.set_text(text);
  request.set_add_special_tokens(add_special_tokens);
  v1::TokenizeResponse response;
  FATHOM_RETURN_IF_ERROR(
      impl_->Unary(impl_->options().unary_deadline_ms, [&](Server& s, grpc::ClientContext* c) {
        return s.inference->Tokenize(c, request, &response);
      }));
  return TokenizeFromWire(response);
}

absl::StatusOr<TokenizeResult> Client::Tokenize(const Conversation& conversation) {
  v1::TokenizeRequest request;
  ToWire(conversation, request.mutable_chat());
  v1::TokenizeResponse response;
  FATHOM_RETURN_IF_ERROR(
      impl_->Unary(impl_->options().unary_deadline_ms, [&](Server& s, grpc::ClientContext* c) {
        return s.inference->Tokenize(c, request, &response);
      }));
  return TokenizeFromWire(response);
}

absl::StatusOr<std::string> Client::Detokenize(const std::vector<TokenId>& ids, bool skip_special) {
  v1::DetokenizeRequest request;
  request.mutable_ids()->Add(ids.begin(), ids.end());
  request.set_skip_special(skip_special);
  v1::DetokenizeResponse response;
  FATHOM_RETURN_IF_ERROR(
      impl_->Unary(impl_->options().unary_deadline_ms, [&](Server& s, grpc::ClientContext* c) {
        return s.inference->Detokenize(c, request, &response);
      }));
  return response.text();
}

absl::StatusOr<Model> Client::GetModel() {
  v1::Model response;
  FATHOM_RETURN_IF_ERROR(impl_->Unary(
      impl_->options().unary_deadline_ms,
      [&](Server& s, grpc::ClientContext* c) { return s.inference->GetModel(c, {}, &response); }));
  return FromWire(response);
}

absl::StatusOr<Explanation> Client::Explain(const std::string& request_id) {
  v1::ExplainRequest request;
  request.set_request_id(request_id);
  v1::Explanation response;
  FATHOM_RETURN_IF_ERROR(impl_->UnaryAnywhere(impl_->options().unary_deadline_ms,
                                              [&](Server& s, grpc::ClientContext* c) {
                                                return s.inference->Explain(c, request, &response);
                                              }));
  return FromWire(response);
}

absl::StatusOr<ClusterStatus> Client::GetStatus(int64_t deadline_ms) {
  v1::ClusterStatus response;
  FATHOM_RETURN_IF_ERROR(impl_->Unary(deadline_ms, [&](Server& s, grpc::ClientContext* c) {
    return s.admin->GetStatus(c, {}, &response);
  }));
  return FromWire(response);
}

}  // namespace fathom::client
