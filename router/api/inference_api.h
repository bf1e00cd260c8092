// router/api/inference_api.h: what the router does for its clients, without any protocol. It takes
// plain requests (requests.h) and gives sessions and plain answers. A front end converts the
// messages of its protocol to requests, and events and answers to messages; it has no policy of its
// own.
//
// Thread: any. No method blocks its caller: a request of inline_bytes_max bytes or more goes to the
// work pool, and a full pool gives RESOURCE_EXHAUSTED at once. Errors have
// ErrorDetail{reason, field}; fields are named as in proto/inference.proto.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "common/clock.h"
#include "common/status.h"
#include "common/trace_context.h"
#include "router/api/chat_renderer.h"
#include "router/api/field_limits.h"
#include "router/api/grammar_cache.h"
#include "router/api/model_folder.h"
#include "router/api/requests.h"
#include "router/api/tool_use.h"
#include "router/api/work_pool.h"
#include "router/sessions/session_stream.h"
#include "text/tokenizer.h"

namespace fathom::router {

// Counts for /metrics what no session sees. Any thread may call it.
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
  AnswerForms forms;                     // Of a chat's answers.
  GrammarCache* grammars = nullptr;
  WorkPool* pool = nullptr;
  const Clock* clock = nullptr;
  ApiObserver* observer = nullptr;
  size_t inline_bytes_max = 4 << 10;
  // Makes the span of a request whose client has the given one; null: nothing is traced here. Any
  // thread may call it.
  std::function<SpanContext(const TraceContext&)> begin_span;
  bool log_prompts = false;   // The first 4 KiB of each prompt, at info.
  bool behind_proxy = false;  // Clients are distinguished by "x-forwarded-for", not by their peers.
};

class InferenceApi {
 public:
  // REQUIRES: everything that `parts` points to outlives this object.
  explicit InferenceApi(ApiParts parts) : parts_(std::move(parts)) {}

  Sessions* sessions() const { return parts_.sessions; }
  // Null: token ids only.
  const Tokenizer* tokenizer() const { return parts_.tokenizer; }

  // Makes a new session for the request, or one more stream of the existing session if the request
  // repeats an earlier one. Then `stream` begins or is refused, now or later. `read` parses the
  // call's message, which has `bytes` bytes. It runs in the pool too if the message is long,
  // because parsing a long message takes long.
  void Generate(const CallContext& call, size_t bytes,
                std::function<absl::StatusOr<GenerateRequest>()> read,
                const std::shared_ptr<SessionStream>& stream) const;
  // Continues a session of this or another router. Then `stream` begins or is refused.
  void Resume(const CallContext& call, const absl::StatusOr<ResumeRequest>& request,
              const std::shared_ptr<SessionStream>& stream) const;

  // Runs `work` at once if the call's message has fewer than inline_bytes_max bytes, else in the
  // pool. If the pool drops the work, `refuse` is called. Front ends run the calls below in it.
  void Run(const CallContext& call, size_t bytes, std::function<void()> work,
           std::function<void(const absl::Status&)> refuse) const;

  // What Started would say if the request were sent now. Nothing is computed, and no session is
  // made. Errors: those that Generate gives before the scheduler sees the request.
  absl::StatusOr<StartedEvent> Validate(const CallContext& call, GenerateRequest request) const;
  absl::StatusOr<TokenizeAnswer> Tokenize(const CallContext& call, TokenizeRequest request) const;
  absl::StatusOr<std::string> Detokenize(const DetokenizeRequest& request) const;
  // NOT_FOUND: `name` is neither empty nor the name of the served model.
  absl::StatusOr<ModelAnswer> GetModel(const std::string& name) const;
  // The table of limits (field_limits.h), with the model's vocabulary filled in.
  std::vector<FieldLimit> GetLimits() const;
  StatusAnswer GetStatus() const;
  // A front end refused a request itself, because it could not read it.
  void CountRefused(const absl::Status& status) const { parts_.observer->Refused(status.code()); }
  // See Sessions::Explain. `done` is called now or later, by any thread.
  void Explain(const CallContext& call, const std::string& request_id,
               Sessions::ExplainFn done) const;

  // See Sessions::Recent.
  std::vector<RequestReport> Recent(const CallContext& call, size_t most) const {
    return parts_.sessions->Recent(call.tenant, most);
  }

  // OK: a request would be answered now. Else the errors of Readiness, or DRAINING.
  absl::Status Ready() const;
  // From now on new requests are refused; sessions continue.
  void Drain() { draining_ = true; }

 private:
  void LogPrompt(const Record& record) const;
  absl::StatusOr<ModelFacts> Facts() const;
  std::optional<ThinkingForm> ReasoningForm() const;
  SpanContext Trace(const CallContext& call) const;
  // `compile`: the grammar of a guided request is compiled. False: its limits are checked only.
  absl::StatusOr<AdmittedRequest> Admit(const CallContext& call, TimeUs received_us,
                                        GenerateRequest request, bool compile) const;
  void AdmitAndBegin(const CallContext& call, TimeUs received_us, GenerateRequest request,
                     const std::shared_ptr<SessionStream>& stream) const;
  // `any_length`: a prompt that is too long is no error yet.
  absl::StatusOr<std::vector<TokenId>> PromptIds(const CallContext& call, Prompt prompt,
                                                 const ModelFacts& facts, bool any_length) const;
  absl::StatusOr<std::vector<TokenId>> Encode(const std::string& text,
                                              const EncodeOptions& options) const;
  absl::StatusOr<RenderedChat> Render(ChatPrompt chat, const RenderOptions& options) const;
  absl::Status Dropped(WorkDrop why, int64_t retry_after_ms) const;
  absl::Status Draining() const;
  void Launch(const std::shared_ptr<SessionStream>& stream,
              absl::StatusOr<std::shared_ptr<Session>> session) const;
  void Refuse(const std::shared_ptr<SessionStream>& stream, const absl::Status& status) const;
  // The same for a request whose id, if it has one, is known.
  void Refuse(const std::shared_ptr<SessionStream>& stream, const SessionKey& key,
              const absl::Status& status) const;

  const ApiParts parts_;
  std::atomic<bool> draining_{false};
  // Counts refusals, so that each client gets another retry delay.
  mutable std::atomic<uint64_t> refused_{0};
};

}  // namespace fathom::router
