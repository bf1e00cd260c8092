// router/api/inference_api.h: what the router does for its clients, apart from any protocol: plain
// requests in (requests.h), sessions and plain answers out. A front end reads its protocol's
// messages into requests, writes events and answers in it, and has no policy of its own.
//
// Thread: any. Nothing blocks in the caller: what may take long (a request beyond inline_bytes_max)
// goes to the work pool, and a full pool is RESOURCE_EXHAUSTED at once. Errors carry
// ErrorDetail{reason, field}; a field is named as in proto/inference.proto.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "common/clock.h"
#include "common/status.h"
#include "router/api/chat_renderer.h"
#include "router/api/field_limits.h"
#include "router/api/model_folder.h"
#include "router/api/requests.h"
#include "router/api/work_pool.h"
#include "router/sessions/session_stream.h"
#include "text/tokenizer.h"

namespace fathom::router {

// What /metrics counts beside sessions. From any thread.
class ApiObserver {
 public:
  virtual ~ApiObserver() = default;
  virtual void Refused(absl::StatusCode) {}  // Before a session was made.
};

struct ApiParts {
  Sessions* sessions = nullptr;
  const ModelFolder* folder = nullptr;
  std::string served_name;
  const Tokenizer* tokenizer = nullptr;  // Null: token ids only.
  const ChatRenderer* chat = nullptr;    // Null: no chat template.
  WorkPool* pool = nullptr;
  const Clock* clock = nullptr;
  ApiObserver* observer = nullptr;
  size_t inline_bytes_max = 4 << 10;
  bool behind_proxy = false;  // Clients are told apart by "x-forwarded-for", not by their peers.
};

class InferenceApi {
 public:
  // What `parts` points to outlives this.
  explicit InferenceApi(ApiParts parts) : parts_(std::move(parts)) {}

  Sessions* sessions() const { return parts_.sessions; }

  // A new session, or one more stream of one that a repeated request attaches to; `stream` begins
  // or is refused, now or later. `read` makes the request of the call's message, which has `bytes`
  // bytes; it runs where the rest does, for reading may take long too.
  void Generate(const CallContext& call, size_t bytes,
                std::function<absl::StatusOr<GenerateRequest>()> read,
                const std::shared_ptr<SessionStream>& stream) const;
  // Goes on with a session of this or another router; `stream` begins or is refused.
  void Resume(const CallContext& call, const absl::StatusOr<ResumeRequest>& request,
              const std::shared_ptr<SessionStream>& stream) const;

  // Runs `work` at once when the call's message has few bytes, else on the pool, which may drop it:
  // `refuse` is called then. For the calls below where they read a text.
  void Run(const CallContext& call, size_t bytes, std::function<void()> work,
           std::function<void(const absl::Status&)> refuse) const;

  absl::StatusOr<TokenizeAnswer> Tokenize(const CallContext& call, TokenizeRequest request) const;
  absl::StatusOr<std::string> Detokenize(const DetokenizeRequest& request) const;
  // `name` is checked against the model's; empty: any.
  absl::StatusOr<ModelAnswer> GetModel(const std::string& name) const;
  // The table of limits (field_limits.h), the vocabulary's filled in.
  std::vector<FieldLimit> GetLimits() const;
  StatusAnswer GetStatus() const;

  // OK: a request would be answered now.
  absl::Status Ready() const;
  // From now on new requests are refused.
  void Drain() { draining_ = true; }

 private:
  absl::StatusOr<ModelFacts> Facts() const;
  absl::StatusOr<AdmittedRequest> Admit(const CallContext& call, TimeUs received_us,
                                        GenerateRequest request) const;
  absl::StatusOr<std::vector<TokenId>> PromptIds(const CallContext& call, Prompt prompt,
                                                 const ModelFacts& facts) const;
  absl::StatusOr<std::vector<TokenId>> Encode(const std::string& text,
                                              const EncodeOptions& options) const;
  absl::StatusOr<RenderedChat> Render(ChatPrompt chat, const RenderOptions& options) const;
  absl::Status Dropped(WorkDrop why, int64_t retry_after_ms) const;
  absl::Status Draining() const;
  void Launch(const std::shared_ptr<SessionStream>& stream,
              absl::StatusOr<std::shared_ptr<Session>> session) const;
  void Refuse(const std::shared_ptr<SessionStream>& stream, const absl::Status& status) const;

  const ApiParts parts_;
  std::atomic<bool> draining_{false};
  mutable std::atomic<uint64_t> refused_{0};  // Makes retry delays differ.
};

}  // namespace fathom::router
