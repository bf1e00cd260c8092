#include "router/frontend/grpc/handler.h"

#include <chrono>
#include <utility>

#include "common/process.h"
#include "common/reason.h"
#include "common/retry_delay.h"
#include "router/api/field_limits.h"
#include "router/api/identity.h"
#include "router/api/readiness.h"
#include "router/api/stop_tokens.h"
#include "router/frontend/grpc/request_proto.h"

namespace fathom::router {
namespace {

absl::Status NoTokenizer(const ModelFolder& folder, const char* field, const char* way_out) {
  return WithReason(FailedPrecondition("{} needs a tokenizer, but {} has no tokenizer.json; {}",
                                       field, folder.path, way_out),
                    Reason::kNoTokenizer, field);
}

// The call's own deadline counts when it is the nearer one; both run while the call waits.
absl::Status ApplyTimeLeft(const CallInfo& call, PublicRequest* request) {
  int64_t left_ms = request->deadline_ms;
  if (call.time_left_ms > 0 && (left_ms == 0 || call.time_left_ms < left_ms)) {
    left_ms =
        std::min<int64_t>(call.time_left_ms, static_cast<int64_t>(LimitOf(Field::kDeadlineMs).max));
  }
  if (left_ms == 0) return absl::OkStatus();
  if (call.waited_ms >= left_ms) {
    return WithReason(
        DeadlineExceeded("the request waited {} ms to be tokenized, and its deadline was "
                         "{} ms; try again, or give it more time",
                         call.waited_ms, left_ms),
        Reason::kDeadline, "deadline_ms");
  }
  request->deadline_ms = left_ms - call.waited_ms;
  return absl::OkStatus();
}

int64_t UnixSeconds() {
  return std::chrono::duration_cast<std::chrono::seconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

// The serialization of what the message asks for. A client that repeats a request has less time
// left, and may add the id and the seed that Started told it: that is still the same request.
template <class Message>
std::string WorkOf(Message message) {
  message.clear_request_id();
  message.clear_deadline_ms();
  message.mutable_sampling()->clear_seed();
  if (message.sampling().ByteSizeLong() == 0) message.clear_sampling();
  return SerializeDeterministic(message);
}

template <class Message>
ChatInput InputOf(const Message& message) {
  ChatInput input = ChatInputOf(message.messages(), message.tools_json());
  if (message.has_enable_thinking()) input.enable_thinking = message.enable_thinking();
  if (message.has_add_generation_prompt())
    input.add_generation_prompt = message.add_generation_prompt();
  input.kwargs_json = message.chat_template_kwargs_json();
  input.continue_final_message = message.continue_final_message();
  input.now_unix_s = UnixSeconds();
  return input;
}

}  // namespace

absl::Status RouterService::Handler::Ready() const {
  if (draining_) {
    return WithReason(Unavailable("this router is shutting down; send the request to another one"),
                      Reason::kDraining, "", JitteredRetryMs(kDrainingRetryMs, ++refused_));
  }
  return Readiness(*parts_.folder, parts_.sessions->view());
}

absl::StatusOr<ModelFacts> RouterService::Handler::Facts() const {
  if (draining_) return Ready();
  const Sessions::View view = parts_.sessions->view();
  FATHOM_RETURN_IF_ERROR(CanAdmit(*parts_.folder, view));
  return FactsOf(*parts_.folder, parts_.served_name, parts_.chat != nullptr, view);
}

absl::StatusOr<std::vector<TokenId>> RouterService::Handler::PromptOf(
    const v1::GenerateRequest& request, const ModelFacts& facts, const CallInfo& call) const {
  switch (request.prompt_case()) {
    case v1::GenerateRequest::kTokenIds:
      return std::vector<TokenId>(request.token_ids().ids().begin(),
                                  request.token_ids().ids().end());
    case v1::GenerateRequest::kText: {
      if (parts_.tokenizer == nullptr)
        return NoTokenizer(*parts_.folder, "text", "send token_ids instead");
      FATHOM_RETURN_IF_ERROR(CheckPromptMayFit(parts_.tokenizer->MinTokens(request.text()), facts));
      return Encode(
          request.text(),
          {.parse_special = true, .add_special_tokens = true, .cancelled = call.cancelled});
    }
    default:
      return WithReason(Invalid("the request has no prompt; set text or token_ids"),
                        Reason::kEmptyPrompt, "prompt");
  }
}

// REQUIRES: there is a tokenizer.
absl::StatusOr<std::vector<TokenId>> RouterService::Handler::Encode(
    const std::string& text, const EncodeOptions& options) const {
  auto ids = parts_.tokenizer->Encode(text, options);
  if (ids.ok() || absl::IsCancelled(ids.status())) return ids;
  return WithReason(ids.status(), Reason::kInvalidText, "text");
}

absl::StatusOr<AdmittedRequest> RouterService::Handler::Generate(const std::string& bytes,
                                                                 const CallInfo& call) const {
  v1::GenerateRequest message;
  FATHOM_RETURN_IF_ERROR(ParseMessage(bytes, &message));
  FATHOM_ASSIGN_OR_RETURN(const ModelFacts facts, Facts());
  PublicRequest request = FromProto(message);
  FATHOM_RETURN_IF_ERROR(CheckFields(request, facts));
  FATHOM_RETURN_IF_ERROR(ApplyTimeLeft(call, &request));
  if (parts_.tokenizer != nullptr) {
    if (request.stop.strings.empty()) request.stop.strings = facts.defaults.stop_strings;
    FATHOM_RETURN_IF_ERROR(ResolveStopStrings(*parts_.tokenizer, /*chat=*/false, &request));
  }
  FATHOM_ASSIGN_OR_RETURN(std::vector<TokenId> ids, PromptOf(message, facts, call));
  return Admit(request, std::move(ids), facts, IdentityOf(request, WorkOf(message)));
}

absl::StatusOr<RenderedChat> RouterService::Handler::Render(ChatInput input,
                                                            const RenderOptions& options) const {
  if (parts_.tokenizer == nullptr) {
    return NoTokenizer(*parts_.folder, "messages", "use Generate with token_ids instead");
  }
  if (parts_.chat == nullptr) {
    return WithReason(
        FailedPrecondition(
            "messages need a chat template, but {} has neither chat_template.jinja nor a "
            "chat_template in tokenizer_config.json; use Generate with a text instead, or "
            "start the server with --chat-template FILE",
            parts_.folder->path),
        Reason::kNoChatTemplate, "messages");
  }
  return parts_.chat->Render(std::move(input), options);
}

absl::StatusOr<AdmittedRequest> RouterService::Handler::Chat(const std::string& bytes,
                                                             const CallInfo& call) const {
  v1::ChatRequest message;
  FATHOM_RETURN_IF_ERROR(ParseMessage(bytes, &message));
  FATHOM_ASSIGN_OR_RETURN(const ModelFacts facts, Facts());
  PublicRequest request = FromProto(message);
  FATHOM_RETURN_IF_ERROR(CheckFields(request, facts));
  FATHOM_RETURN_IF_ERROR(ApplyTimeLeft(call, &request));
  if (parts_.tokenizer != nullptr) {
    if (request.stop.strings.empty()) request.stop.strings = facts.defaults.stop_strings;
    FATHOM_RETURN_IF_ERROR(ResolveStopStrings(*parts_.tokenizer, /*chat=*/true, &request));
  }
  const RenderOptions options = {
      .allow_special = message.allow_special_in_content(),
      .cancelled = call.cancelled,
      .check_tokens_min = [&](int64_t tokens) { return CheckPromptMayFit(tokens, facts); }};
  FATHOM_ASSIGN_OR_RETURN(RenderedChat rendered, Render(InputOf(message), options));
  FATHOM_ASSIGN_OR_RETURN(AdmittedRequest admitted, Admit(request, std::move(rendered.ids), facts,
                                                          IdentityOf(request, WorkOf(message))));
  admitted.text.chat = true;
  return admitted;
}

absl::StatusOr<RouterService::Handler::ResumePoint> RouterService::Handler::Resume(
    const std::string& bytes) const {
  v1::ResumeRequest message;
  FATHOM_RETURN_IF_ERROR(ParseMessage(bytes, &message));
  FATHOM_ASSIGN_OR_RETURN(const ModelFacts facts, Facts());
  PublicRequest names;
  names.request_id = message.request_id();
  FATHOM_RETURN_IF_ERROR(CheckFields(names, facts));
  if (message.request_id().empty()) {
    return WithReason(Invalid("request_id is empty; give the one that Started told"),
                      Reason::kOutOfRange, "request_id");
  }
  ResumePoint point{{FromProto(v1::GenerateRequest()).tenant, message.request_id()}, {}};
  for (const int32_t position : message.next_positions()) {
    if (position < 0 || message.next_positions_size() > static_cast<int>(LimitOf(Field::kN).max)) {
      return WithReason(
          Invalid(
              "next_positions has {} entries, one of {}; give one of 0 or more for each sequence",
              message.next_positions_size(), position),
          Reason::kOutOfRange, "next_positions");
    }
    point.next_positions.push_back(position);
  }
  return point;
}

absl::Status RouterService::Handler::Tokenize(const std::string& bytes, const CallInfo& call,
                                              v1::TokenizeResponse* response) const {
  v1::TokenizeRequest message;
  FATHOM_RETURN_IF_ERROR(ParseMessage(bytes, &message));
  if (message.has_chat()) {
    FATHOM_ASSIGN_OR_RETURN(
        const RenderedChat rendered,
        Render(InputOf(message.chat()), {.allow_special = message.chat().allow_special_in_content(),
                                         .cancelled = call.cancelled}));
    response->mutable_ids()->Add(rendered.ids.begin(), rendered.ids.end());
    response->set_rendered(rendered.text);
    return absl::OkStatus();
  }
  if (parts_.tokenizer == nullptr)
    return NoTokenizer(*parts_.folder, "text", "serve a folder that has one");
  FATHOM_ASSIGN_OR_RETURN(
      const std::vector<TokenId> ids,
      Encode(message.text(), {.parse_special = true,
                              .add_special_tokens = message.add_special_tokens(),
                              .cancelled = call.cancelled}));
  response->mutable_ids()->Add(ids.begin(), ids.end());
  return absl::OkStatus();
}

absl::Status RouterService::Handler::Detokenize(const std::string& bytes, const CallInfo&,
                                                v1::DetokenizeResponse* response) const {
  v1::DetokenizeRequest message;
  FATHOM_RETURN_IF_ERROR(ParseMessage(bytes, &message));
  if (parts_.tokenizer == nullptr)
    return NoTokenizer(*parts_.folder, "ids", "serve a folder that has one");
  FATHOM_RETURN_IF_ERROR(CheckField(Field::kDetokenizeIds, message.ids_size(), {}));
  ModelFacts facts;
  facts.vocab = parts_.folder->vocab;
  facts.name = parts_.served_name;
  const std::vector<TokenId> ids(message.ids().begin(), message.ids().end());
  FATHOM_RETURN_IF_ERROR(CheckTokenIds(ids, facts, "ids"));
  Detokenizer detokenizer(parts_.tokenizer, message.skip_special());
  for (const TokenId id : ids) detokenizer.Append(id, response->mutable_text());
  detokenizer.Flush(response->mutable_text());
  return absl::OkStatus();
}

absl::Status RouterService::Handler::GetModel(const std::string& bytes, const CallInfo&,
                                              v1::Model* response) const {
  v1::GetModelRequest message;
  FATHOM_RETURN_IF_ERROR(ParseMessage(bytes, &message));
  const Sessions::View view = parts_.sessions->view();
  const bool known = CanAdmit(*parts_.folder, view).ok();
  ModelFacts facts;  // What the folder alone says, until the cluster is there.
  facts.name = parts_.served_name;
  facts.vocab = parts_.folder->vocab;
  facts.context_tokens = parts_.folder->context_tokens;
  if (known) facts = FactsOf(*parts_.folder, parts_.served_name, parts_.chat != nullptr, view);
  PublicRequest names;
  names.model = message.model();
  FATHOM_RETURN_IF_ERROR(CheckFields(names, facts));
  response->set_name(facts.name);
  if (known) {
    response->set_fingerprint(view.facts->fingerprint);
    response->set_device(view.facts->device_kind);
    response->set_dtype(view.facts->dtype);
  }
  response->set_context_tokens(facts.context_tokens);
  response->set_pool_tokens(static_cast<int32_t>(std::min<int64_t>(facts.pool_tokens, INT32_MAX)));
  response->set_vocab(facts.vocab);
  response->set_has_tokenizer(parts_.tokenizer != nullptr);
  response->set_has_chat_template(parts_.chat != nullptr);
  ToProto(ResolveSampling({}, parts_.folder->defaults), response->mutable_default_sampling());
  response->mutable_end_token_ids()->Add(parts_.folder->end_token_ids.begin(),
                                         parts_.folder->end_token_ids.end());
  return absl::OkStatus();
}

absl::Status RouterService::Handler::GetLimits(const std::string& bytes, const CallInfo&,
                                               v1::Limits* response) const {
  v1::GetLimitsRequest message;
  FATHOM_RETURN_IF_ERROR(ParseMessage(bytes, &message));
  for (const FieldLimit& limit : FieldLimits()) {
    v1::FieldLimit* row = response->add_fields();
    row->set_field(std::string(limit.path));
    row->set_min(limit.min);
    row->set_max(limit.upper == UpperBound::kVocabulary ? parts_.folder->vocab - 1 : limit.max);
    row->set_min_excluded(limit.min_excluded);
    row->set_fallback(std::string(limit.fallback));
    row->set_unit(std::string(limit.unit));
  }
  return absl::OkStatus();
}

absl::Status RouterService::Handler::GetStatus(const std::string& bytes, const CallInfo&,
                                               v1::ClusterStatus* response) const {
  v1::GetStatusRequest message;
  FATHOM_RETURN_IF_ERROR(ParseMessage(bytes, &message));
  const absl::Status ready = Ready();
  const Sessions::View view = parts_.sessions->view();
  response->set_ready(ready.ok());
  if (!ready.ok()) response->set_reason(std::string(Message(ready)));
  response->set_model(parts_.served_name);
  response->set_build(BuildVersion());
  response->set_sessions(static_cast<int32_t>(view.open));
  response->set_requests_running(view.stats.requests_running);
  response->set_requests_waiting(view.stats.requests_waiting);
  response->set_blocks_total(view.stats.blocks_total);
  response->set_blocks_used(view.stats.blocks_used);
  response->set_last_loss(view.stats.last_loss);
  response->set_losses_alike(view.stats.losses_alike);
  if (!view.facts) return absl::OkStatus();
  response->set_term(view.term.value);
  response->set_groups(view.facts->groups);
  response->set_fingerprint(view.facts->fingerprint);
  response->set_context_tokens(view.facts->context_tokens);
  return absl::OkStatus();
}

}  // namespace fathom::router
