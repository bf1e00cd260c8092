#include "router/frontend/http/conversation.h"

#include <algorithm>
#include <utility>

#include "common/reason.h"
#include "common/sampling_fields.h"
#include "router/frontend/http/chat_messages.h"

namespace fathom::router {
namespace {

constexpr char kReadsText[] = "this server's models read text only";

// A part of a content that is a list.
void ReadTextPart(const JsonValue& value, const std::string& path,
                  std::initializer_list<std::string_view> types,
                  std::initializer_list<std::string_view> accepted, FieldReader* body,
                  std::vector<std::string>* texts) {
  FieldReader part(value, path);
  std::string type, text;
  part.Take("type", &type);
  if (part.ok() && std::ranges::find(types, type) == types.end()) {
    return body->Fail(
        WithReason(Unimplemented("{} has the type {}; {}, so send parts of the type {}", path,
                                 JsonValue(type).Brief(), kReadsText, fmt::join(types, " or ")),
                   Reason::kNotImplemented, path + ".type"));
  }
  part.Take(type == "refusal" ? "refusal" : "text", &text);
  for (const std::string_view name : accepted) part.Accept(name);
  if (const absl::Status status = part.Finish(); !status.ok()) return body->Fail(status);
  texts->push_back(std::move(text));
}

}  // namespace

// ---- Messages

void Conversation::Add(ChatMessage message, std::string path) {
  messages_.push_back(std::move(message));
  paths_.push_back(std::move(path));
}

ChatMessage* Conversation::LastAssistant() {
  if (messages_.empty() || messages_.back().role != "assistant") return nullptr;
  return &messages_.back();
}

ChatMessage* Conversation::Assistant(const std::string& path, bool fits) {
  if (LastAssistant() == nullptr || !fits) Add({.role = "assistant"}, path);
  return &messages_.back();
}

void SetContent(std::vector<std::string> texts, ChatMessage* message) {
  if (texts.size() == 1) {
    message->content = std::move(texts.front());
  } else {
    message->content_parts = std::move(texts);
  }
}

std::vector<std::string> ReadTexts(const JsonValue& value, const std::string& path,
                                   std::initializer_list<std::string_view> types,
                                   std::initializer_list<std::string_view> accepted,
                                   FieldReader* body) {
  std::vector<std::string> texts;
  if (const std::string* text = value.AsString()) {
    texts.push_back(*text);
  } else if (const JsonValue::Array* parts = value.AsArray()) {
    for (size_t i = 0; i < parts->size() && body->ok(); ++i) {
      ReadTextPart((*parts)[i], fmt::format("{}[{}]", path, i), types, accepted, body, &texts);
    }
    if (parts->empty()) texts.emplace_back();
  } else {
    body->Fail(
        WithReason(Invalid("{} is {}; it must be a string or a list of parts", path, value.Brief()),
                   Reason::kOutOfRange, path));
  }
  return texts;
}

// ---- Fields of this server

void ReadServerFields(FieldReader* body, OpenAiRequest* request, ChatPrompt* chat) {
  PublicRequest& params = request->params;
  PublicSampling& sampling = params.sampling;
  body->Take("model", &params.model);
  body->Take("request_id", &params.request_id);
  ForEachSamplingField([&](const SamplingField& row, auto, auto option) {
    body->Take(row.name(), &(sampling.*option));
  });
  if (sampling.top_k == -1) sampling.top_k = 0;  // vLLM's value for off.
  std::optional<int64_t> seed, deadline_ms;
  body->Take("seed", &seed);
  if (seed) sampling.seed = static_cast<uint64_t>(*seed);
  body->Take("stop_token_ids", &params.stop.token_ids);
  body->Take("min_tokens", &params.stop.min_tokens);
  body->Take("ignore_eos", &params.stop.ignore_eos);
  body->Take("deadline_ms", &deadline_ms);
  params.deadline_ms = deadline_ms.value_or(0);
  body->Take("priority", &params.priority);
  body->Take("cache_salt", &params.cache.salt);
  body->Take("stream", &request->answer.stream);
  ReadTemplateVariables(body, chat);
  request->answer.chat = true;
  // Items are divided, and the tokens of the reasoning counted, by ids.
  params.output.ids = true;
  params.output.text = true;
}

// ---- Tools

void ToolList::Add(const std::string& name, const std::string& description,
                   const JsonValue* parameters, const JsonValue* strict) {
  if (names_.empty()) json_.BeginArray();
  names_.push_back(name);
  json_.BeginObject().Key("type").String("function").Key("function").BeginObject();
  json_.Key("name").String(name);
  if (!description.empty()) json_.Key("description").String(description);
  if (parameters != nullptr) json_.Key("parameters").Raw(ToJsonText(*parameters));
  if (strict != nullptr) json_.Key("strict").Raw(ToJsonText(*strict));
  json_.EndObject().EndObject();
}

bool ToolList::Has(std::string_view name) const {
  return std::ranges::find(names_, name) != names_.end();
}

std::string ToolList::TakeJson() {
  if (names_.empty()) return {};
  json_.EndArray();
  return json_.Take();
}

void CheckChoice(const ChatPrompt& chat, const ToolList& tools, std::string_view field,
                 FieldReader* body) {
  const ToolChoice& choice = chat.tool_choice;
  const bool named = choice.kind == ToolChoice::Kind::kNamed;
  if (named && !tools.Has(choice.name)) {
    body->Fail(WithReason(Invalid("{} names the tool {}, which tools does not have; name one of "
                                  "its functions",
                                  field, JsonValue(choice.name).Brief()),
                          Reason::kOutOfRange, field));
  } else if (choice.kind == ToolChoice::Kind::kRequired && tools.empty()) {
    body->Fail(WithReason(Invalid("{} asks for a call, but tools has no function; send one, or "
                                  "leave {} out",
                                  field, field),
                          Reason::kOutOfRange, field));
  }
}

}  // namespace fathom::router
