#include "router/api/inference_api.h"

#include <algorithm>
#include <utility>

#include "common/log.h"
#include "common/process.h"
#include "common/reason.h"
#include "common/retry_delay.h"
#include "router/api/client_address.h"
#include "router/api/forbidden_tokens.h"
#include "router/api/guided_thinking.h"
#include "router/api/identity.h"
#include "router/api/readiness.h"
#include "router/api/stop_tokens.h"
#include "router/api/thinking.h"
#include "text/detokenizer.h"

namespace fathom::router {
namespace {

// Another router can take the request at once. The delay only spreads the clients over time.
constexpr int64_t kDrainingRetryMs = 200;
// What --log-requests prompts shows of a prompt.
constexpr size_t kPromptLogBytes = 4096;

absl::Status NoTokenizer(const ModelFolder& folder, const char* field, const char* way_out) {
  return WithReason(FailedPrecondition("{} needs a tokenizer, but the folder {} has no "
                                       "tokenizer.json; {}",
                                       field, folder.name, way_out),
                    Reason::kNoTokenizer, field);
}

// Sets the request's deadline to what is left of the shorter one of the two deadlines, the
// request's and the call's. The time that the call waited for the pool counts.
absl::Status ApplyDeadline(const CallContext& call, int64_t waited_ms, PublicRequest* request) {
  int64_t left_ms = request->deadline_ms;
  if (call.deadline_ms > 0 && (left_ms == 0 || call.deadline_ms < left_ms)) {
    left_ms =
        std::min<int64_t>(call.deadline_ms, static_cast<int64_t>(LimitOf(Field::kDeadlineMs).max));
  }
  if (left_ms == 0) return absl::OkStatus();
  if (waited_ms >= left_ms) {
    return WithReason(
        DeadlineExceeded("the request waited {} ms to be tokenized, and its deadline was "
                         "{} ms; try again, or give it more time",
                         waited_ms, left_ms),
        Reason::kDeadline, "deadline_ms");
  }
  request->deadline_ms = left_ms - waited_ms;
  return absl::OkStatus();
}

// Keeps the last tokens of the prompt; see GenerateRequest.
absl::Status Truncate(const std::optional<int32_t>& tokens, const PublicStop& stop,
                      const ModelFacts& facts, std::vector<TokenId>* ids) {
  if (!tokens) return absl::OkStatus();
  int64_t kept = *tokens;
  if (kept == -1) {
    const int64_t room = std::min<int64_t>(facts.context_tokens, facts.pool_tokens);
    kept = std::max<int64_t>(1, room - stop.max_tokens.value_or(1));
  }
  if (kept < 1) {
    return WithReason(Invalid("truncate_prompt_tokens is {}; it must be -1 (as many tokens as fit) "
                              "or from 1 on; leave it out to keep the whole prompt",
                              *tokens),
                      Reason::kOutOfRange, "truncate_prompt_tokens");
  }
  const auto size = static_cast<int64_t>(ids->size());
  if (size > kept) ids->erase(ids->begin(), ids->begin() + (size - kept));
  return absl::OkStatus();
}

// If the answer begins with the model's thinking, the grammar begins after it.
void GuideAfterThinking(const Tokenizer& tokenizer, const std::optional<ThinkingForm>& thinking,
                        const std::vector<TokenId>& prompt, PublicGuided* guided) {
  if (!thinking || !thinking->end.id) return;
  if (thinking->from_start || PromptOpensThinking(tokenizer, *thinking, prompt)) {
    guided->spec = AfterThinking(guided->spec, *thinking->end.id);
  }
}

absl::Status CheckPositions(const std::vector<int32_t>& positions) {
  for (const int32_t position : positions) {
    if (position >= 0 && positions.size() <= static_cast<size_t>(LimitOf(Field::kN).max)) continue;
    return WithReason(
        Invalid("next_positions has {} entries, one of {}; give one of 0 or more for each sequence",
                positions.size(), position),
        Reason::kOutOfRange, "next_positions");
  }
  return absl::OkStatus();
}

}  // namespace

// ---- Readiness ----

absl::Status InferenceApi::Draining() const {
  return WithReason(Unavailable("this router is shutting down; send the request to another one"),
                    Reason::kDraining, "", JitteredRetryMs(kDrainingRetryMs, ++refused_));
}

absl::Status InferenceApi::Ready() const {
  if (draining_) return Draining();
  return Readiness(*parts_.folder, parts_.sessions->view());
}

absl::StatusOr<ModelFacts> InferenceApi::Facts() const {
  if (draining_) return Draining();
  const Sessions::View view = parts_.sessions->view();
  FATHOM_RETURN_IF_ERROR(CanAdmit(*parts_.folder, view));
  return FactsOf(*parts_.folder, parts_.served_name, parts_.chat != nullptr, view);
}

// ---- Streams ----

SpanContext InferenceApi::Trace(const CallContext& call) const {
  if (parts_.begin_span) return parts_.begin_span(call.trace);
  return {.context = call.trace};  // Others may record; the client's span is sent on.
}

absl::Status InferenceApi::Dropped(WorkDrop why, int64_t retry_after_ms) const {
  switch (why) {
    case WorkDrop::kFull:
      break;
    case WorkDrop::kCancelled:
      return Cancelled("the call was cancelled, or its deadline passed, before its text's turn");
    case WorkDrop::kStopping:
      return Draining();
  }
  return WithReason(Exhausted("this router tokenizes as many long texts as it may; try again"),
                    Reason::kTokenizerBusy, "", retry_after_ms);
}

void InferenceApi::Run(const CallContext& call, size_t bytes, std::function<void()> work,
                       std::function<void(const absl::Status&)> refuse) const {
  if (bytes < parts_.inline_bytes_max) return work();
  parts_.pool->Run({.client = parts_.behind_proxy ? ClientBehindProxy(call.peer, call.forwarded_for)
                                                  : ClientOfPeer(call.peer),
                    .cancelled = call.cancelled,
                    .run = std::move(work),
                    .drop = [this, refuse = std::move(refuse)](WorkDrop why, int64_t ms) {
                      refuse(Dropped(why, ms));
                    }});
}

void InferenceApi::Refuse(const std::shared_ptr<SessionStream>& stream,
                          const absl::Status& status) const {
  parts_.observer->Refused(status.code());
  stream->Refuse(status);
}

void InferenceApi::Refuse(const std::shared_ptr<SessionStream>& stream, const SessionKey& key,
                          const absl::Status& status) const {
  const auto id_max = static_cast<size_t>(LimitOf(Field::kRequestIdBytes).max);
  if (!key.request_id.empty() && key.request_id.size() <= id_max) {
    parts_.sessions->NoteRefused(key, status);
  }
  Refuse(stream, status);
}

void InferenceApi::Launch(const std::shared_ptr<SessionStream>& stream,
                          absl::StatusOr<std::shared_ptr<Session>> session) const {
  if (!session.ok()) return Refuse(stream, session.status());
  stream->Begin(*std::move(session));
}

void InferenceApi::Generate(const CallContext& call, size_t bytes,
                            std::function<absl::StatusOr<GenerateRequest>()> read,
                            const std::shared_ptr<SessionStream>& stream) const {
  auto work = [this, call, bytes, stream, read = std::move(read),
               received_us = parts_.clock->Now()] {
    absl::StatusOr<GenerateRequest> request = read();
    if (!request.ok()) return Refuse(stream, request.status());
    const std::optional<PublicGuided>& guided = request->params.guided;
    if (bytes >= parts_.inline_bytes_max || !guided || parts_.grammars->Has(guided->spec)) {
      return AdmitAndBegin(call, received_us, *std::move(request), stream);
    }
    // Compiling takes too long for the front end's own thread, however short the message is.
    auto compile = [this, call, stream, received_us,
                    shared = std::make_shared<GenerateRequest>(*std::move(request))] {
      AdmitAndBegin(call, received_us, std::move(*shared), stream);
    };
    Run(call, parts_.inline_bytes_max, std::move(compile),
        [this, stream](const absl::Status& status) { Refuse(stream, status); });
  };
  Run(call, bytes, std::move(work),
      [this, stream](const absl::Status& status) { Refuse(stream, status); });
}

std::optional<ThinkingForm> InferenceApi::ReasoningForm() const {
  if (parts_.tokenizer == nullptr || parts_.forms.reasoning == "none") return std::nullopt;
  if (parts_.forms.reasoning.empty()) return DetectThinkingForm(*parts_.tokenizer);
  auto form = FindThinkingForm(parts_.forms.reasoning, *parts_.tokenizer);
  return form.ok() ? std::optional(*std::move(form)) : std::nullopt;
}

void InferenceApi::AdmitAndBegin(const CallContext& call, TimeUs received_us,
                                 GenerateRequest request,
                                 const std::shared_ptr<SessionStream>& stream) const {
  SessionKey key{call.tenant, request.params.request_id};
  absl::StatusOr<AdmittedRequest> admitted =
      Admit(call, received_us, std::move(request), /*compile=*/true);
  if (!admitted.ok()) return Refuse(stream, key, admitted.status());
  key = admitted->record.key;
  absl::StatusOr<std::shared_ptr<Session>> session =
      parts_.sessions->Create(*std::move(admitted), stream);
  if (!session.ok()) return Refuse(stream, key, session.status());
  stream->Begin(*std::move(session));
}

absl::StatusOr<AdmittedRequest> InferenceApi::Admit(const CallContext& call, TimeUs received_us,
                                                    GenerateRequest request, bool compile) const {
  FATHOM_ASSIGN_OR_RETURN(const ModelFacts facts, Facts());
  PublicRequest& params = request.params;
  FATHOM_RETURN_IF_ERROR(CheckFields(params, facts));
  if (params.guided) FATHOM_RETURN_IF_ERROR(parts_.grammars->CheckEngine(params.guided->field));
  // Before the lines below change the request, or a repetition could get another id.
  const Identity identity = IdentityOf(call.tenant, request);
  const int64_t waited_ms = (parts_.clock->Now() - received_us) / 1000;
  FATHOM_RETURN_IF_ERROR(ApplyDeadline(call, waited_ms, &params));
  auto* chat_prompt = std::get_if<ChatPrompt>(&request.prompt);
  const bool chat = chat_prompt != nullptr;
  TextOptions answer{.reasoning_form = parts_.forms.reasoning};
  if (chat) {
    FATHOM_RETURN_IF_ERROR(ApplyTools(*chat_prompt, parts_.forms, &answer));
    if (!chat_prompt->enable_thinking) {
      chat_prompt->enable_thinking = ThinkingByEffort(params.thinking);
    }
  }
  if (parts_.tokenizer != nullptr) {
    if (params.stop.strings.empty()) params.stop.strings = facts.defaults.stop_strings;
    FATHOM_RETURN_IF_ERROR(ResolveStopStrings(*parts_.tokenizer, chat, &params));
  }
  FATHOM_RETURN_IF_ERROR(ResolveForbidden(parts_.tokenizer, facts, &params.sampling));
  FATHOM_ASSIGN_OR_RETURN(std::vector<TokenId> ids,
                          PromptIds(call, std::move(request.prompt), facts,
                                    request.truncate_prompt_tokens.has_value()));
  FATHOM_RETURN_IF_ERROR(Truncate(request.truncate_prompt_tokens, params.stop, facts, &ids));
  FATHOM_ASSIGN_OR_RETURN(AdmittedRequest admitted,
                          router::Admit(params, std::move(ids), facts, identity));
  FATHOM_ASSIGN_OR_RETURN(
      admitted.record.request.thinking,
      ResolveThinking(params.thinking, parts_.folder->thinking, parts_.tokenizer, ReasoningForm(),
                      admitted.record.prompt_ids, admitted.record.request.stop.max_tokens));
  if (params.guided && compile) {
    if (chat) {
      GuideAfterThinking(*parts_.tokenizer, ReasoningForm(), admitted.record.prompt_ids,
                         &*params.guided);
    }
    FATHOM_ASSIGN_OR_RETURN(admitted.record.grammar,
                            parts_.grammars->Get(params.guided->spec, params.guided->field));
  }
  admitted.text.chat = chat;
  admitted.text.reasoning_form = std::move(answer.reasoning_form);
  admitted.text.call_form = std::move(answer.call_form);
  admitted.text.tool_names = std::move(answer.tool_names);
  admitted.text.parallel_calls = answer.parallel_calls;
  admitted.trace = Trace(call);
  LogRequest(LogLevel::kDebug, identity.key.request_id, "of tenant {}: {} prompt tokens; trace {}",
             call.tenant, admitted.record.prompt_ids.size(),
             admitted.trace.context.trace_id.empty() ? "none" : admitted.trace.context.trace_id);
  if (parts_.log_prompts) LogPrompt(admitted.record);
  return admitted;
}

void InferenceApi::LogPrompt(const Record& record) const {
  std::string text;
  if (parts_.tokenizer == nullptr) {
    for (const TokenId id : record.prompt_ids) {
      if (text.size() >= kPromptLogBytes) break;
      text += fmt::format(" {}", id);
    }
    text = "ids" + text;
  } else {
    Detokenizer detokenizer(parts_.tokenizer, /*skip_special=*/false);
    for (const TokenId id : record.prompt_ids) {
      if (text.size() >= kPromptLogBytes) break;
      detokenizer.Append(id, &text);  // Whole characters only.
    }
  }
  LogLine(LogLevel::kInfo, fmt::format("prompt of {} tokens: {}", record.prompt_ids.size(), text),
          record.key.request_id);
}

absl::StatusOr<StartedEvent> InferenceApi::Validate(const CallContext& call,
                                                    GenerateRequest request) const {
  FATHOM_ASSIGN_OR_RETURN(const AdmittedRequest admitted,
                          Admit(call, parts_.clock->Now(), std::move(request), /*compile=*/false));
  StartedEvent started = StartedOf(admitted.record, admitted.text);
  const Sessions::View view = parts_.sessions->view();
  if (view.facts) started.fingerprint = view.facts->fingerprint;
  return started;
}

void InferenceApi::Resume(const CallContext& call, const absl::StatusOr<ResumeRequest>& request,
                          const std::shared_ptr<SessionStream>& stream) const {
  const auto check = [&]() -> absl::Status {
    FATHOM_RETURN_IF_ERROR(request.status());
    FATHOM_ASSIGN_OR_RETURN(const ModelFacts facts, Facts());
    PublicRequest names;
    names.request_id = request->request_id;
    FATHOM_RETURN_IF_ERROR(CheckFields(names, facts));
    if (names.request_id.empty()) {
      return WithReason(Invalid("request_id is empty; give the one that Started told"),
                        Reason::kOutOfRange, "request_id");
    }
    return CheckPositions(request->next_positions);
  };
  if (const absl::Status status = check(); !status.ok()) return Refuse(stream, status);
  Launch(stream, parts_.sessions->Resume({call.tenant, request->request_id},
                                         request->next_positions, stream, Trace(call)));
}

// ---- Text ----

absl::StatusOr<std::vector<TokenId>> InferenceApi::PromptIds(const CallContext& call, Prompt prompt,
                                                             const ModelFacts& facts,
                                                             bool any_length) const {
  if (auto* ids = std::get_if<std::vector<TokenId>>(&prompt)) return std::move(*ids);
  if (const auto* text = std::get_if<std::string>(&prompt)) {
    if (parts_.tokenizer == nullptr) {
      return NoTokenizer(*parts_.folder, "text", "send token_ids instead");
    }
    if (!any_length) {
      FATHOM_RETURN_IF_ERROR(CheckPromptMayFit(parts_.tokenizer->MinTokens(*text), facts));
    }
    return Encode(*text,
                  {.parse_special = true, .add_special_tokens = true, .cancelled = call.cancelled});
  }
  if (auto* chat = std::get_if<ChatPrompt>(&prompt)) {
    FATHOM_ASSIGN_OR_RETURN(RenderedChat rendered,
                            Render(std::move(*chat), {.now_unix_s = call.received_unix_s,
                                                      .cancelled = call.cancelled,
                                                      .check_tokens_min = [&](int64_t n) {
                                                        return any_length
                                                                   ? absl::OkStatus()
                                                                   : CheckPromptMayFit(n, facts);
                                                      }}));
    return std::move(rendered.ids);
  }
  return WithReason(Invalid("the request has no prompt; set text or token_ids"),
                    Reason::kEmptyPrompt, "prompt");
}

// REQUIRES: the model has a tokenizer.
absl::StatusOr<std::vector<TokenId>> InferenceApi::Encode(const std::string& text,
                                                          const EncodeOptions& options) const {
  auto ids = parts_.tokenizer->Encode(text, options);
  if (ids.ok() || absl::IsCancelled(ids.status())) return ids;
  return WithReason(ids.status(), Reason::kInvalidText, "text");
}

absl::StatusOr<RenderedChat> InferenceApi::Render(ChatPrompt chat,
                                                  const RenderOptions& options) const {
  if (parts_.tokenizer == nullptr) {
    return NoTokenizer(*parts_.folder, "messages", "use Generate with token_ids instead");
  }
  if (parts_.chat == nullptr) {
    return WithReason(
        FailedPrecondition(
            "messages need a chat template, but the folder {} has neither chat_template.jinja nor "
            "a "
            "chat_template in tokenizer_config.json; use Generate with a text instead, or "
            "start the server with --chat-template FILE",
            parts_.folder->name),
        Reason::kNoChatTemplate, "messages");
  }
  return parts_.chat->Render(std::move(chat), options);
}

absl::StatusOr<TokenizeAnswer> InferenceApi::Tokenize(const CallContext& call,
                                                      TokenizeRequest request) const {
  if (auto* chat = std::get_if<ChatPrompt>(&request.input)) {
    FATHOM_ASSIGN_OR_RETURN(RenderedChat rendered,
                            Render(std::move(*chat), {.now_unix_s = call.received_unix_s,
                                                      .cancelled = call.cancelled}));
    return TokenizeAnswer{std::move(rendered.ids), std::move(rendered.text)};
  }
  if (parts_.tokenizer == nullptr) {
    return NoTokenizer(*parts_.folder, "text", "serve a folder that has one");
  }
  FATHOM_ASSIGN_OR_RETURN(std::vector<TokenId> ids,
                          Encode(std::get<std::string>(request.input),
                                 {.parse_special = true,
                                  .add_special_tokens = request.add_special_tokens,
                                  .cancelled = call.cancelled}));
  return TokenizeAnswer{std::move(ids), std::nullopt};
}

absl::StatusOr<std::string> InferenceApi::Detokenize(const DetokenizeRequest& request) const {
  if (parts_.tokenizer == nullptr) {
    return NoTokenizer(*parts_.folder, "ids", "serve a folder that has one");
  }
  FATHOM_RETURN_IF_ERROR(
      CheckField(Field::kDetokenizeIds, static_cast<double>(request.ids.size()), {}));
  ModelFacts facts;
  facts.vocab = parts_.folder->vocab;
  facts.name = parts_.served_name;
  FATHOM_RETURN_IF_ERROR(CheckTokenIds(request.ids, facts, "ids"));
  Detokenizer detokenizer(parts_.tokenizer, request.skip_special);
  std::string text;
  for (const TokenId id : request.ids) detokenizer.Append(id, &text);
  detokenizer.Flush(&text);
  return text;
}

// ---- What is served ----

absl::StatusOr<ModelAnswer> InferenceApi::GetModel(const std::string& name) const {
  const Sessions::View view = parts_.sessions->view();
  const bool known = CanAdmit(*parts_.folder, view).ok();
  ModelFacts facts;  // From the folder alone, until a worker has registered.
  facts.name = parts_.served_name;
  facts.vocab = parts_.folder->vocab;
  facts.context_tokens = parts_.folder->context_tokens;
  if (known) facts = FactsOf(*parts_.folder, parts_.served_name, parts_.chat != nullptr, view);
  PublicRequest names;
  names.model = name;
  FATHOM_RETURN_IF_ERROR(CheckFields(names, facts));
  ModelAnswer answer{.name = facts.name,
                     .context_tokens = facts.context_tokens,
                     .pool_tokens = facts.pool_tokens,
                     .vocab = facts.vocab,
                     .has_tokenizer = parts_.tokenizer != nullptr,
                     .has_chat_template = parts_.chat != nullptr,
                     .default_sampling = ResolveSampling({}, parts_.folder->defaults),
                     .end_token_ids = parts_.folder->end_token_ids};
  if (known) {
    answer.fingerprint = view.facts->fingerprint;
    answer.device = view.facts->device_kind;
    answer.dtype = view.facts->dtype;
  }
  return answer;
}

std::vector<FieldLimit> InferenceApi::GetLimits() const {
  std::vector<FieldLimit> limits(FieldLimits().begin(), FieldLimits().end());
  for (FieldLimit& limit : limits) {
    if (limit.upper == UpperBound::kVocabulary) limit.max = parts_.folder->vocab - 1;
  }
  return limits;
}

void InferenceApi::Explain(const CallContext& call, const std::string& request_id,
                           Sessions::ExplainFn done) const {
  if (request_id.empty()) {
    return done(WithReason(Invalid("request_id is empty; give the one that Started told"),
                           Reason::kOutOfRange, "request_id"));
  }
  parts_.sessions->Explain({call.tenant, request_id}, std::move(done));
}

StatusAnswer InferenceApi::GetStatus() const {
  return {Ready(), parts_.served_name, BuildVersion(), parts_.sessions->view()};
}

}  // namespace fathom::router
