#include "router/frontend/http/anthropic_answer.h"

#include <algorithm>
#include <utility>

#include "router/frontend/http/anthropic_error.h"

namespace fathom::router {
namespace {

using Kind = AnswerItem::Kind;

// Clients give thinking back with its signature, which this server does not need.
constexpr char kSignature[] = "unsigned";

std::string NamedEvent(std::string_view type, const std::string& json) {
  return fmt::format("event: {}\ndata: {}\n\n", type, json);
}

JsonWriter BeginEvent(std::string_view type) {
  JsonWriter json;
  json.BeginObject().Key("type").String(type);
  return json;
}

JsonWriter BeginBlockEvent(std::string_view type, size_t index) {
  JsonWriter json = BeginEvent(type);
  json.Key("index").Int(static_cast<int64_t>(index));
  return json;
}

}  // namespace

AnthropicAnswer::AnthropicAnswer(AnswerParts parts, std::vector<std::string> stops)
    : options_(parts.options),
      texts_(parts.tokenizer, /*as_ids=*/false),
      stops_(std::move(stops)),
      request_id_(std::move(parts.request_id)),
      items_(parts.tokenizer) {}

// ---- Objects

void AnthropicAnswer::WriteHead(JsonWriter* json) const {
  json->BeginObject().Key("id").String("msg_" + request_id_).Key("type").String("message");
  json->Key("role").String("assistant").Key("model").String(model_);
}

// Anthropic's `input_tokens` are those that no cache had.
void AnthropicAnswer::WriteUsage(JsonWriter* json) const {
  json->BeginObject().Key("input_tokens").Int(prompt_tokens_ - cached_tokens_);
  json->Key("cache_creation_input_tokens").Int(0);
  json->Key("cache_read_input_tokens").Int(cached_tokens_);
  json->Key("output_tokens").Int(tokens_).Key("output_tokens_details").BeginObject();
  json->Key("thinking_tokens").Int(items_.reasoning_tokens()).EndObject().EndObject();
}

std::string AnthropicAnswer::StopSequence() const {
  std::string stop = finish_->stop_string.value_or("");
  // A stop sequence that is one special token is found as its id.
  if (finish_->reason == FinishReason::kStopToken && finish_->stop_token) {
    stop = texts_.Text(*finish_->stop_token);
  }
  return std::ranges::find(stops_, stop) == stops_.end() ? "" : stop;
}

void AnthropicAnswer::WriteStop(JsonWriter* json) const {
  const std::string stop = StopSequence();
  const bool ended = EndedByItself(finish_->reason);
  // A deadline cuts an answer as a length does.
  const char* reason = !ended              ? "max_tokens"
                       : !stop.empty()     ? "stop_sequence"
                       : items_.has_call() ? "tool_use"
                                           : "end_turn";
  json->Key("stop_reason").String(reason).Key("stop_sequence");
  stop.empty() ? json->Null() : json->String(stop);
}

void AnthropicAnswer::WriteBlock(const AnswerItem& item, JsonWriter* json) const {
  switch (item.kind) {
    case Kind::kText:
      json->BeginObject().Key("type").String("text").Key("text").String(item.text);
      json->Key("citations").Null().EndObject();
      return;
    case Kind::kReasoning:
      json->BeginObject().Key("type").String("thinking").Key("thinking");
      json->String(options_.include_reasoning ? item.text : "");
      json->Key("signature").String(kSignature).EndObject();
      return;
    case Kind::kCall:
      json->BeginObject().Key("type").String("tool_use").Key("id").String(item.call_id);
      json->Key("name").String(item.name).Key("input");
      if (item.whole) {
        json->Raw(item.text);
      } else {
        // The input must be an object, and this text is none.
        json->BeginObject().Key("INVALID_JSON").String(item.text).EndObject();
      }
      json->EndObject();
      return;
  }
}

// ---- Events

std::string AnthropicAnswer::OpenEvent(size_t index) const {
  JsonWriter json = BeginBlockEvent("content_block_start", index);
  json.Key("content_block").BeginObject().Key("type");
  const AnswerItem& item = items_.items()[index];
  switch (item.kind) {
    case Kind::kText:
      json.String("text").Key("text").String("").Key("citations").Null();
      break;
    case Kind::kReasoning:
      json.String("thinking").Key("thinking").String("").Key("signature").String("");
      break;
    case Kind::kCall:
      json.String("tool_use").Key("id").String(item.call_id).Key("name").String(item.name);
      json.Key("input").BeginObject().EndObject();
      break;
  }
  json.EndObject().EndObject();
  return NamedEvent("content_block_start", json.text());
}

std::string AnthropicAnswer::DeltaEvent(size_t index, const std::string& text) const {
  const Kind kind = items_.items()[index].kind;
  if (kind == Kind::kReasoning && !options_.include_reasoning) return {};
  JsonWriter json = BeginBlockEvent("content_block_delta", index);
  json.Key("delta").BeginObject().Key("type");
  switch (kind) {
    case Kind::kText:
      json.String("text_delta").Key("text");
      break;
    case Kind::kReasoning:
      json.String("thinking_delta").Key("thinking");
      break;
    case Kind::kCall:
      json.String("input_json_delta").Key("partial_json");
      break;
  }
  json.String(text).EndObject().EndObject();
  return NamedEvent("content_block_delta", json.text());
}

std::string AnthropicAnswer::CloseEvents(size_t index) const {
  std::string events;
  if (items_.items()[index].kind == Kind::kReasoning) {
    JsonWriter json = BeginBlockEvent("content_block_delta", index);
    json.Key("delta").BeginObject().Key("type").String("signature_delta");
    json.Key("signature").String(kSignature).EndObject().EndObject();
    events = NamedEvent("content_block_delta", json.text());
  }
  JsonWriter json = BeginBlockEvent("content_block_stop", index);
  json.EndObject();
  return events += NamedEvent("content_block_stop", json.text());
}

std::string AnthropicAnswer::Events(const std::vector<ItemStep>& steps) const {
  std::string events;
  if (!options_.stream) return events;
  for (const ItemStep& step : steps) {
    switch (step.kind) {
      case ItemStep::Kind::kOpen:
        events += OpenEvent(step.item);
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

std::string AnthropicAnswer::Heartbeat() const { return NamedEvent("ping", R"({"type":"ping"})"); }

// ---- Events of the session

std::string AnthropicAnswer::OnStarted(int /*prompt*/, const StartedEvent& event,
                                       std::vector<TokenId> /*prompt_ids*/) {
  if (request_id_.empty()) request_id_ = event.request_id;
  model_ = event.model;
  prompt_tokens_ = event.prompt_tokens;
  cached_tokens_ = event.cached_tokens;
  if (!options_.stream) return {};
  JsonWriter json = BeginEvent("message_start");
  json.Key("message");
  WriteHead(&json);
  json.Key("content").BeginArray().EndArray();
  json.Key("stop_reason").Null().Key("stop_sequence").Null().Key("usage");
  WriteUsage(&json);
  json.EndObject().EndObject();
  return NamedEvent("message_start", json.text()) + Heartbeat();
}

std::string AnthropicAnswer::OnTokens(int /*prompt*/, TokensEvent event) {
  tokens_ = event.position + static_cast<int32_t>(event.ids.size());
  return Events(items_.OnTokens(event));
}

std::string AnthropicAnswer::OnFinish(int /*prompt*/, FinishEvent event) {
  tokens_ = event.position;
  const std::vector<ItemStep> steps = items_.OnFinish(event);
  finish_ = std::move(event);
  return Events(steps);
}

std::string AnthropicAnswer::StreamEnd() {
  JsonWriter json = BeginEvent("message_delta");
  json.Key("delta").BeginObject();
  WriteStop(&json);
  json.EndObject().Key("usage");
  WriteUsage(&json);
  json.EndObject();
  return NamedEvent("message_delta", json.text()) +
         NamedEvent("message_stop", R"({"type":"message_stop"})");
}

std::string AnthropicAnswer::StreamError(const absl::Status& status, const FieldNames& names) {
  return NamedEvent("error", AnthropicErrorObject(status, names));
}

std::string AnthropicAnswer::Whole() const {
  JsonWriter json;
  WriteHead(&json);
  json.Key("content").BeginArray();
  for (const AnswerItem& item : items_.items()) WriteBlock(item, &json);
  json.EndArray();
  WriteStop(&json);
  json.Key("usage");
  WriteUsage(&json);
  json.EndObject();
  return json.Take() + "\n";
}

}  // namespace fathom::router
