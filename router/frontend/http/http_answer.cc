#include "router/frontend/http/http_answer.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "common/process.h"
#include "common/reason.h"
#include "router/api/identity.h"

namespace fathom::router {
namespace {

constexpr std::chrono::seconds kSilence{1};

bool IsLast(const ClientEvent& event) {
  const auto* finish = std::get_if<FinishEvent>(&event);
  return (finish != nullptr && finish->last) || std::holds_alternative<EndEvent>(event);
}

std::string IdOfPrompt(const std::string& request_id, size_t prompt, size_t prompts) {
  return prompts == 1 ? request_id : fmt::format("{}-{}", request_id, prompt);
}

// The text before the choices of a prompt, if it is known from the request.
std::string EchoOf(const OpenAiRequest& request, const Prompt& prompt) {
  const auto* text = std::get_if<std::string>(&prompt);
  const bool known = request.answer.echo && text != nullptr && !request.truncate_prompt_tokens;
  return known ? *text : "";
}

GenerateRequest RequestOf(const OpenAiRequest& request, size_t prompt) {
  return {request.params, request.prompts[prompt], request.truncate_prompt_tokens};
}

// The id of a request of several prompts: the client's, or one that follows from its key, or drawn.
std::string IdOfList(const OpenAiRequest& request, const CallContext& call) {
  if (!request.params.request_id.empty()) return request.params.request_id;
  if (request.params.idempotency_key.empty()) return RandomId();
  return IdentityOf(call.tenant, RequestOf(request, 0)).key.request_id;
}

}  // namespace

// ---- Begin

void HttpAnswer::Part::Write(const ClientEvent& event) {
  const bool started = std::holds_alternative<StartedEvent>(event);
  std::vector<TokenId> prompt_ids;
  if (started && answer_->options_.needs_prompt_ids()) prompt_ids = PromptIds();
  answer_->OnEvent(prompt_, event, std::move(prompt_ids));
}

HttpAnswer::HttpAnswer(std::shared_ptr<http::Exchange> exchange, AnswerParts parts, AnswerForm form,
                       bool prompt_list)
    : exchange_(std::move(exchange)),
      options_(parts.options),
      form_(std::move(form)),
      prompt_list_(prompt_list),
      started_(parts.echoes.size(), false),
      ended_(parts.echoes.size(), false),
      answer_(form_.writer(std::move(parts))) {}

void HttpAnswer::Start(std::shared_ptr<http::Exchange> exchange, const InferenceApi* api,
                       const CallContext& call, FormRequest read, std::optional<LastEvent> last) {
  OpenAiRequest& request = read.request;
  const size_t prompts = request.prompts.size();
  AnswerParts parts{.options = request.answer,
                    .tokenizer = api->tokenizer(),
                    .created_unix_s = call.received_unix_s};
  for (const Prompt& prompt : request.prompts) {
    parts.echoes.push_back(EchoOf(request, prompt));
  }
  if (last) {
    parts.request_id = last->request_id;
    parts.positions = last->positions;
  } else if (prompts > 1) {
    parts.request_id = IdOfList(request, call);
    request.params.request_id = parts.request_id;
  }
  const std::shared_ptr<HttpAnswer> answer(new HttpAnswer(
      std::move(exchange), std::move(parts), std::move(read.form), request.prompt_list));
  for (size_t i = 0; i < prompts; ++i) {
    answer->parts_.push_back(std::make_shared<Part>(api->sessions(), answer, static_cast<int>(i)));
  }
  answer->exchange_->SetSink(answer);
  answer->Launch(api, call, std::move(request), last);
}

bool HttpAnswer::failed() const {
  const std::lock_guard lock(mutex_);
  return !failure_.ok();
}

void HttpAnswer::Launch(const InferenceApi* api, const CallContext& call, OpenAiRequest request,
                        const std::optional<LastEvent>& last) {
  const size_t prompts = request.prompts.size();
  const std::vector<PartPtr> parts = parts_;  // OnDone may come while this function runs.
  for (size_t i = 0; i < prompts; ++i) {
    if (failed()) {
      parts[i]->Refuse(Cancelled("another prompt of the request was refused"));
    } else if (last) {
      const auto from = last->positions.begin() + static_cast<ptrdiff_t>(i) * request.answer.n;
      api->Resume(
          call,
          ResumeRequest{IdOfPrompt(last->request_id, i, prompts), {from, from + request.answer.n}},
          parts[i]);
    } else {
      GenerateRequest one{request.params, std::move(request.prompts[i]),
                          request.truncate_prompt_tokens};
      one.params.request_id = IdOfPrompt(request.params.request_id, i, prompts);
      if (prompts > 1 && !one.params.idempotency_key.empty()) {
        one.params.idempotency_key += fmt::format("#{}", i);
      }
      // The caller has found a thread for it already.
      const auto read = [&one]() -> absl::StatusOr<GenerateRequest> { return std::move(one); };
      api->Generate(call, /*bytes=*/0, read, parts[i]);
    }
  }
}

// ---- Events of the sessions

void HttpAnswer::OnEvent(int prompt, const ClientEvent& event, std::vector<TokenId> prompt_ids) {
  std::unique_lock lock(mutex_);
  if (const auto* end = std::get_if<EndEvent>(&event)) {
    TakeEnd(prompt, end->status);
  } else {
    const bool dropped = left_ || !failure_.ok();
    if (!dropped) pending_ += Convert(prompt, event, std::move(prompt_ids));
    if (IsLast(event)) {
      ended_[prompt] = true;
    } else {
      owed_.push_back(prompt);
    }
  }
  Proceed();
  const std::vector<PartPtr> cancels = TakeCancels();
  lock.unlock();
  for (const PartPtr& part : cancels) part->Cancelled();
}

std::string HttpAnswer::Convert(int prompt, const ClientEvent& event,
                                std::vector<TokenId> prompt_ids) {
  if (const auto* started = std::get_if<StartedEvent>(&event)) {
    // A resume may name a request that had another n than its body.
    if (started->request.sequences != options_.n) {
      Fail(prompt, WithReason(Invalid("n is {}, but the request that Last-Event-ID names has {} "
                                      "choices of a prompt; send the same body as before",
                                      options_.n, started->request.sequences),
                              Reason::kOutOfRange, "n"));
      return {};
    }
    started_[prompt] = true;
    return answer_->OnStarted(prompt, *started, std::move(prompt_ids));
  }
  if (const auto* logprobs = std::get_if<PromptLogprobs>(&event)) {
    return answer_->OnPromptLogprobs(prompt, *logprobs);
  }
  if (const auto* tokens = std::get_if<TokensEvent>(&event)) {
    std::string chunk = answer_->OnTokens(prompt, *tokens);
    // The session does not know that tokens may show nothing, for example of reasoning that is left
    // out, so the silence is measured here too.
    const auto now = std::chrono::steady_clock::now();
    if (options_.stream && chunk.empty() && now - last_bytes_ >= kSilence)
      chunk = answer_->Heartbeat();
    if (!chunk.empty()) last_bytes_ = now;
    return chunk;
  }
  if (const auto* finish = std::get_if<FinishEvent>(&event)) {
    return answer_->OnFinish(prompt, *finish);
  }
  return options_.stream ? answer_->Heartbeat() : "";
}

void HttpAnswer::TakeEnd(int prompt, const absl::Status& status) {
  ended_[prompt] = true;
  if (!status.ok() && !left_) Fail(prompt, status);
}

void HttpAnswer::Fail(int prompt, const absl::Status& status) {
  if (!failure_.ok()) return;
  failure_ = status;
  failed_prompt_ = prompt;
  cancels_ = true;
}

std::vector<HttpAnswer::PartPtr> HttpAnswer::TakeCancels() {
  std::vector<PartPtr> cancels;
  if (!std::exchange(cancels_, false)) return cancels;
  for (size_t i = 0; i < parts_.size(); ++i) {
    if (!ended_[i]) cancels.push_back(parts_[i]);
  }
  return cancels;
}

// Tells the sessions that their events are written, on the server's thread: a session must not be
// told before Write has returned.
void HttpAnswer::Release(std::vector<int> prompts, bool ok) {
  if (prompts.empty()) return;
  std::vector<PartPtr> parts;
  for (const int prompt : prompts) parts.push_back(parts_[prompt]);
  exchange_->Post([parts = std::move(parts), ok] {
    for (const PartPtr& part : parts) part->Written(ok);
  });
}

// Sends what can be sent now.
void HttpAnswer::Proceed() {
  if (finished_ || writing_) return;
  if (std::ranges::all_of(ended_, [](bool ended) { return ended; })) return End();
  const bool over = left_ || !failure_.ok();
  if (!options_.stream || over) {
    if (over && !begun_) pending_.clear();
    return Release(std::exchange(owed_, {}), !left_);
  }
  if (!begun_) {
    // What the first prompts say waits until every prompt was accepted.
    if (!std::ranges::all_of(started_, [](bool started) { return started; })) return;
    begun_ = true;
    http::Response head{200, "text/event-stream; charset=utf-8", "", IdHeaders()};
    head.headers.emplace_back("X-Accel-Buffering", "no");
    exchange_->Begin(std::move(head));
  }
  if (pending_.empty()) return Release(std::exchange(owed_, {}), true);
  writing_ = true;
  in_flight_ = std::exchange(owed_, {});
  exchange_->Write(std::exchange(pending_, {}));
}

std::vector<std::pair<std::string, std::string>> HttpAnswer::IdHeaders() const {
  std::vector<std::pair<std::string, std::string>> headers;
  if (answer_->request_id().empty()) return headers;
  headers.emplace_back("X-Request-Id", answer_->request_id());
  if (!form_.id_header.empty()) headers.emplace_back(form_.id_header, answer_->request_id());
  return headers;
}

void HttpAnswer::End() {
  finished_ = true;
  FieldNames names = form_.names;
  if (prompt_list_) names.prompt = fmt::format("prompt[{}]", failed_prompt_);
  absl::Status failure =
      left_ ? Cancelled("the client left before the end of the answer") : failure_;
  if (failure.ok() && !options_.stream && !answer_->complete()) {
    failure = Internal("the answer ended without the end of each choice; send the request again");
  }
  if (begun_) {
    if (failure.ok()) return exchange_->End(pending_ + answer_->StreamEnd());
    return exchange_->End(pending_ + answer_->StreamError(failure, names));
  }
  http::Response answer =
      failure.ok() ? http::Response{200, "application/json", "", {}} : form_.error(failure, names);
  for (auto& header : IdHeaders()) answer.headers.push_back(std::move(header));
  if (failure.ok()) answer.body = answer_->Whole();
  exchange_->Answer(std::move(answer));
}

// ---- Events of the connection

void HttpAnswer::OnWritten(bool ok) {
  std::vector<PartPtr> parts;
  {
    const std::lock_guard lock(mutex_);
    writing_ = false;
    for (const int prompt : std::exchange(in_flight_, {})) parts.push_back(parts_[prompt]);
    Proceed();
  }
  for (const PartPtr& part : parts) part->Written(ok);
}

void HttpAnswer::OnHangUp() {
  std::unique_lock lock(mutex_);
  left_ = true;
  cancels_ = true;
  Proceed();
  const std::vector<PartPtr> cancels = TakeCancels();
  lock.unlock();
  for (const PartPtr& part : cancels) part->Cancelled();
}

void HttpAnswer::OnDone() {
  std::vector<PartPtr> parts;
  {
    const std::lock_guard lock(mutex_);
    parts = std::exchange(parts_, {});
  }
  for (const PartPtr& part : parts) part->Closed();
}

}  // namespace fathom::router
