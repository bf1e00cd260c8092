#include "router/frontend/http/responses_answer.h"

#include <utility>

namespace fathom::router {
namespace {

using Kind = AnswerItem::Kind;

}  // namespace

ResponsesAnswer::ResponsesAnswer(AnswerParts parts, std::string echo)
    : options_(parts.options),
      echo_(std::move(echo)),
      created_unix_s_(parts.created_unix_s),
      request_id_(std::move(parts.request_id)),
      items_(parts.tokenizer) {}

// ---- Objects

std::string ResponsesAnswer::IdOf(size_t index) const {
  const Kind kind = items_.items()[index].kind;
  const char* prefix = kind == Kind::kCall ? "fc" : kind == Kind::kText ? "msg" : "rs";
  return fmt::format("{}_{}_{}", prefix, request_id_, index);
}

void ResponsesAnswer::WritePart(const AnswerItem& item, View view, JsonWriter* json) const {
  const bool text = item.kind == Kind::kText;
  json->BeginObject().Key("type").String(text ? "output_text" : "reasoning_text");
  json->Key("text").String(view == View::kNow ? item.text : "");
  if (text) json->Key("annotations").BeginArray().EndArray();
  if (text) json->Key("logprobs").BeginArray().EndArray();
  json->EndObject();
}

void ResponsesAnswer::WriteItem(size_t index, View view, JsonWriter* json) const {
  const AnswerItem& item = items_.items()[index];
  const bool begun = view == View::kBegun;
  json->BeginObject().Key("id").String(IdOf(index));
  json->Key("status").String(begun ? "in_progress" : item.whole ? "completed" : "incomplete");
  if (item.kind == Kind::kCall) {
    json->Key("type").String("function_call").Key("call_id").String(item.call_id);
    json->Key("name").String(item.name).Key("arguments").String(begun ? "" : item.text);
    json->EndObject();
    return;
  }
  if (item.kind == Kind::kText) {
    json->Key("type").String("message").Key("role").String("assistant");
  } else {
    json->Key("type").String("reasoning").Key("summary").BeginArray().EndArray();
    json->Key("encrypted_content").Null();
  }
  json->Key("content").BeginArray();
  if (!begun) WritePart(item, view, json);
  json->EndArray().EndObject();
}

void ResponsesAnswer::WriteUsage(JsonWriter* json) const {
  json->BeginObject().Key("input_tokens").Int(prompt_tokens_);
  json->Key("input_tokens_details").BeginObject().Key("cached_tokens").Int(cached_tokens_);
  json->Key("cache_write_tokens").Int(0).EndObject();
  json->Key("output_tokens").Int(tokens_).Key("output_tokens_details").BeginObject();
  json->Key("reasoning_tokens").Int(items_.reasoning_tokens()).EndObject();
  json->Key("total_tokens").Int(int64_t{prompt_tokens_} + tokens_).EndObject();
}

std::string_view ResponsesAnswer::FinalStatus() const {
  return EndedByItself(finish_->reason) ? "completed" : "incomplete";
}

void ResponsesAnswer::WriteResponse(std::string_view status, const ErrorParts* error,
                                    JsonWriter* json) const {
  json->Raw(echo_).Key("id").String("resp_" + request_id_).Key("object").String("response");
  json->Key("created_at").Int(created_unix_s_).Key("status").String(status);
  json->Key("error");
  if (error == nullptr) {
    json->Null();
  } else {
    json->BeginObject().Key("code").String(error->code).Key("message").String(error->message);
    json->Key("param");
    error->param.empty() ? json->Null() : json->String(error->param);
    json->EndObject();
  }
  json->Key("incomplete_details");
  if (status == "incomplete") {
    // OpenAI has no name for a deadline.
    const bool deadline = finish_->reason == FinishReason::kDeadline;
    json->BeginObject().Key("reason").String(deadline ? "deadline" : "max_output_tokens");
    json->EndObject();
  } else {
    json->Null();
  }
  json->Key("model").String(model_).Key("temperature").Real(temperature_);
  json->Key("top_p").Real(top_p_).Key("output").BeginArray();
  const bool in_progress = status == "in_progress";
  for (size_t i = 0; i < items_.items().size() && !in_progress; ++i) WriteItem(i, View::kNow, json);
  json->EndArray().Key("usage");
  if (in_progress) {
    json->Null();
  } else {
    WriteUsage(json);
  }
  json->Key("previous_response_id").Null().Key("store").Bool(false).Key("background").Bool(false);
  json->Key("truncation").String("disabled").Key("service_tier").String("default");
  json->Key("text").Raw(R"({"format":{"type":"text"},"verbosity":"medium"})");
  json->Key("top_logprobs").Int(0).EndObject();
}

// ---- Events

JsonWriter ResponsesAnswer::Begin(std::string_view type) {
  JsonWriter json;
  json.BeginObject().Key("type").String(type).Key("sequence_number").Int(sequence_number_++);
  return json;
}

std::string ResponsesAnswer::End(std::string_view type, JsonWriter* json) {
  json->EndObject();
  return fmt::format("event: {}\ndata: {}\n\n", type, json->text());
}

JsonWriter ResponsesAnswer::BeginOf(std::string_view type, size_t index) {
  JsonWriter json = Begin(type);
  json.Key("item_id").String(IdOf(index)).Key("output_index").Int(static_cast<int64_t>(index));
  if (items_.items()[index].kind != Kind::kCall) json.Key("content_index").Int(0);
  return json;
}

std::string ResponsesAnswer::ResponseEvent(std::string_view type, std::string_view status,
                                           const ErrorParts* error) {
  JsonWriter json = Begin(type);
  json.Key("response");
  WriteResponse(status, error, &json);
  return End(type, &json);
}

std::string ResponsesAnswer::OpenEvents(size_t index) {
  constexpr char kItem[] = "response.output_item.added";
  constexpr char kPart[] = "response.content_part.added";
  const AnswerItem& item = items_.items()[index];
  JsonWriter json = Begin(kItem);
  json.Key("output_index").Int(static_cast<int64_t>(index)).Key("item");
  WriteItem(index, View::kBegun, &json);
  const std::string added = End(kItem, &json);
  if (item.kind == Kind::kCall) return added;
  JsonWriter part = BeginOf(kPart, index);
  part.Key("part");
  WritePart(item, View::kBegun, &part);
  return added + End(kPart, &part);
}

std::string ResponsesAnswer::DeltaEvent(size_t index, const std::string& text) {
  const Kind kind = items_.items()[index].kind;
  const std::string_view type = kind == Kind::kCall   ? "response.function_call_arguments.delta"
                                : kind == Kind::kText ? "response.output_text.delta"
                                                      : "response.reasoning_text.delta";
  JsonWriter json = BeginOf(type, index);
  json.Key("delta").String(text);
  if (kind == Kind::kText) json.Key("logprobs").BeginArray().EndArray();
  return End(type, &json);
}

std::string ResponsesAnswer::CloseEvents(size_t index) {
  constexpr char kPart[] = "response.content_part.done";
  constexpr char kItem[] = "response.output_item.done";
  const AnswerItem& item = items_.items()[index];
  const std::string_view type = item.kind == Kind::kCall   ? "response.function_call_arguments.done"
                                : item.kind == Kind::kText ? "response.output_text.done"
                                                           : "response.reasoning_text.done";
  JsonWriter json = BeginOf(type, index);
  if (item.kind == Kind::kCall) {
    json.Key("name").String(item.name).Key("arguments").String(item.text);
  } else {
    json.Key("text").String(item.text);
  }
  if (item.kind == Kind::kText) json.Key("logprobs").BeginArray().EndArray();
  std::string events = End(type, &json);
  if (item.kind != Kind::kCall) {
    JsonWriter part = BeginOf(kPart, index);
    part.Key("part");
    WritePart(item, View::kNow, &part);
    events += End(kPart, &part);
  }
  JsonWriter done = Begin(kItem);
  done.Key("output_index").Int(static_cast<int64_t>(index)).Key("item");
  WriteItem(index, View::kNow, &done);
  return events + End(kItem, &done);
}

std::string ResponsesAnswer::Events(const std::vector<ItemStep>& steps) {
  std::string events;
  if (!options_.stream) return events;
  for (const ItemStep& step : steps) {
    switch (step.kind) {
      case ItemStep::Kind::kOpen:
        events += OpenEvents(step.item);
        break;
      case ItemStep::Kind::kDelta:
        events += DeltaEvent(step.item, step.text);
        break;
      case ItemStep::Kind::kClose:
        events += CloseEvents(step.item);
        break;
    }
  }
  return events;
}

// ---- Events of the session

std::string ResponsesAnswer::OnStarted(int /*prompt*/, const StartedEvent& event,
                                       std::vector<TokenId> /*prompt_ids*/) {
  if (request_id_.empty()) request_id_ = event.request_id;
  model_ = event.model;
  temperature_ = event.request.sampling.temperature;
  top_p_ = event.request.sampling.top_p;
  prompt_tokens_ = event.prompt_tokens;
  cached_tokens_ = event.cached_tokens;
  if (!options_.stream) return {};
  std::string events = ResponseEvent("response.created", "in_progress");
  return events += ResponseEvent("response.in_progress", "in_progress");
}

std::string ResponsesAnswer::OnTokens(int /*prompt*/, TokensEvent event) {
  tokens_ = event.position + static_cast<int32_t>(event.ids.size());
  return Events(items_.OnTokens(event));
}

std::string ResponsesAnswer::OnFinish(int /*prompt*/, FinishEvent event) {
  tokens_ = event.position;
  const std::vector<ItemStep> steps = items_.OnFinish(event);
  finish_ = std::move(event);
  return Events(steps);
}

std::string ResponsesAnswer::StreamEnd() {
  const std::string_view status = FinalStatus();
  return ResponseEvent(fmt::format("response.{}", status), status);
}

std::string ResponsesAnswer::StreamError(const absl::Status& status, const FieldNames& names) {
  const ErrorParts error = PartsOf(status, names);
  return ResponseEvent("response.failed", "failed", &error);
}

std::string ResponsesAnswer::Whole() const {
  JsonWriter json;
  WriteResponse(FinalStatus(), nullptr, &json);
  return json.Take() + "\n";
}

}  // namespace fathom::router
