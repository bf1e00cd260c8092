#include "router/api/chat_renderer.h"

#include <functional>
#include <nlohmann/json.hpp>
#include <utility>

#include "router/api/field_limits.h"

namespace fathom::router {
namespace {

using Json = nlohmann::ordered_json;  // Key order is part of a rendering.

absl::Status Refuse(const absl::Status& status, const char* field) {
  const bool theirs = status.code() == absl::StatusCode::kInvalidArgument;
  return WithDetail(status,
                    {.reason = theirs ? "CHAT_TEMPLATE_REFUSED" : "INTERNAL", .field = field});
}

Json MapStrings(const Json& json, const std::function<std::string(const std::string&)>& map) {
  if (json.is_string()) return map(json.get<std::string>());
  if (json.is_array()) {
    Json result = Json::array();
    for (const Json& item : json) result.push_back(MapStrings(item, map));
    return result;
  }
  if (json.is_object()) {
    Json result = Json::object();
    for (const auto& [key, value] : json.items()) result[map(key)] = MapStrings(value, map);
    return result;
  }
  return json;
}

// JSON deeper than this is refused before anything recursive sees it.
constexpr int kToolsDepthMax = 64;

bool TooDeep(const std::string& json) {
  int depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < json.size(); ++i) {
    if (in_string) {
      if (json[i] == '\\')
        ++i;
      else if (json[i] == '"')
        in_string = false;
    } else if (json[i] == '"') {
      in_string = true;
    } else if (json[i] == '[' || json[i] == '{') {
      if (++depth > kToolsDepthMax) return true;
    } else if (json[i] == ']' || json[i] == '}') {
      --depth;
    }
  }
  return false;
}

}  // namespace

ChatRenderer::ChatRenderer(const Tokenizer* tokenizer,
                           std::unique_ptr<const ChatTemplate> chat_template)
    : tokenizer_(tokenizer), template_(std::move(chat_template)), literal_(*tokenizer) {}

absl::StatusOr<std::unique_ptr<const ChatRenderer>> ChatRenderer::Load(const std::string& folder,
                                                                       const Tokenizer* tokenizer) {
  auto chat_template = ChatTemplate::Load(folder);
  if (chat_template.status().code() == absl::StatusCode::kNotFound) return nullptr;
  if (!chat_template.ok()) return chat_template.status();
  return std::unique_ptr<const ChatRenderer>(
      new ChatRenderer(tokenizer, *std::move(chat_template)));
}

std::string ChatRenderer::Guard(const std::string& value, bool allow_special) const {
  return allow_special ? LiteralText::Escape(value) : literal_.Mark(value);
}

// The strings inside are guarded one by one: a mark must not fall among JSON's own characters.
absl::StatusOr<std::string> ChatRenderer::GuardTools(const std::string& tools_json) const {
  if (TooDeep(tools_json)) {
    return Invalid("tools_json is nested deeper than {} levels; flatten it", kToolsDepthMax);
  }
  const Json tools = Json::parse(tools_json, nullptr, /*allow_exceptions=*/false);
  if (!tools.is_array()) {
    return Invalid(
        "tools_json is not a JSON array; send OpenAI's form: [{{\"type\": \"function\", ...}}]");
  }
  if (literal_.Mark(tools_json) == tools_json)
    return tools_json;  // Nothing in it could be a token.
  return MapStrings(tools, [this](const std::string& text) { return literal_.Mark(text); }).dump();
}

absl::Status ChatRenderer::CheckMessages(const std::vector<ChatMessage>& messages) {
  FATHOM_RETURN_IF_ERROR(CheckField(Field::kMessages, static_cast<double>(messages.size()), {}));
  for (size_t i = 0; i < messages.size(); ++i) {
    const std::string& role = messages[i].role;
    const bool known = role == "system" || role == "developer" || role == "user" ||
                       role == "assistant" || role == "tool";
    if (known) continue;
    return WithDetail(
        Invalid(
            "messages[{}].role is \"{}\"; it must be system, developer, user, assistant or tool", i,
            role.substr(0, 32)),
        {.reason = "UNKNOWN_ROLE", .field = fmt::format("messages[{}].role", i)});
  }
  return absl::OkStatus();
}

absl::StatusOr<RenderedChat> ChatRenderer::Render(ChatInput input, bool allow_special) const {
  FATHOM_RETURN_IF_ERROR(CheckMessages(input.messages));
  for (ChatMessage& message : input.messages) {
    // What the model itself wrote may hold its markers.
    const bool special = allow_special || message.role == "assistant";
    if (message.content) message.content = Guard(*message.content, special);
    if (message.reasoning) message.reasoning = Guard(*message.reasoning, special);
    message.name = Guard(message.name, special);
    message.tool_call_id = Guard(message.tool_call_id, special);
    for (ChatToolCall& call : message.tool_calls) {
      call.id = Guard(call.id, special);
      call.name = Guard(call.name, special);
      call.arguments_json = Guard(call.arguments_json, special);
    }
  }
  if (!input.tools_json.empty()) {
    auto tools = allow_special ? input.tools_json : GuardTools(input.tools_json);
    if (!tools.ok()) return Refuse(tools.status(), "tools_json");
    input.tools_json = *std::move(tools);
  }
  input.bos_token = tokenizer_->bos_token();
  input.eos_token = tokenizer_->eos_token();
  auto rendered = template_->Render(input);
  if (!rendered.ok()) return Refuse(rendered.status(), "messages");
  MarkedText marked = LiteralText::TakeMarks(*rendered);
  auto ids = tokenizer_->Encode(marked.text,
                                {.parse_special = true, .literal_spans = marked.literal_spans});
  if (!ids.ok()) return Refuse(ids.status(), "messages");
  return RenderedChat{*std::move(ids), std::move(marked.text)};
}

}  // namespace fathom::router
