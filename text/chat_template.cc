#include "text/chat_template.h"

#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <utility>

#include "text/jinja/eval.h"
#include "text/jinja/json.h"
#include "text/jinja/parser.h"

namespace fathom::router {
namespace {

using Json = nlohmann::json;  // For files; a client's JSON is read by jinja::ReadJson.

jinja::Value ToValue(const std::string& text, bool literal) {
  return literal ? jinja::Str::Literal(text) : jinja::Str(text);
}

absl::StatusOr<jinja::Value> ParseJson(const std::string& text, std::string_view field,
                                       bool literal) {
  try {
    return jinja::ReadJson(text, literal);
  } catch (const jinja::JsonError& error) {
    if (!error.too_deep) {
      return WithDetail(Invalid("{} is not valid JSON: {}", field, error.what()),
                        {"INVALID_JSON", std::string(field), 0});
    }
    return WithDetail(Invalid("{} is nested deeper than {} levels; send a flatter value", field,
                              jinja::kJsonDepthMax),
                      {"JSON_TOO_DEEP", std::string(field), 0});
  }
}

jinja::Value ToValue(const ChatMessage& message) {
  const auto text = [&](const std::string& value) { return ToValue(value, message.literal); };
  jinja::Map map;
  map.emplace_back("role", message.role);
  // Content that is null is the empty text, but for calls: templates ask whether it is none there.
  if (message.content) {
    map.emplace_back("content", text(*message.content));
  } else if (message.tool_calls.empty()) {
    map.emplace_back("content", "");
  } else {
    map.emplace_back("content", jinja::None{});
  }
  if (!message.name.empty()) map.emplace_back("name", text(message.name));
  if (message.reasoning) map.emplace_back("reasoning_content", text(*message.reasoning));
  if (!message.tool_call_id.empty()) map.emplace_back("tool_call_id", text(message.tool_call_id));
  if (!message.tool_calls.empty()) {
    jinja::List calls;
    for (const ChatToolCall& call : message.tool_calls) {
      calls.emplace_back(jinja::Map{
          {"id", text(call.id)},
          {"type", "function"},
          {"function",
           jinja::Map{{"name", text(call.name)}, {"arguments", text(call.arguments_json)}}}});
    }
    map.emplace_back("tool_calls", std::move(calls));
  }
  return map;
}

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return NotFound("{} cannot be opened", path);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

absl::StatusOr<std::string> TemplateOfConfig(const std::string& path, const std::string& text) {
  const Json config = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (config.is_discarded() || !config.is_object()) {
    return Invalid("{} is not a JSON object; restore it from the model's publisher", path);
  }
  const auto entry = config.find("chat_template");
  if (entry == config.end() || entry->is_null()) return NotFound("{} has no chat_template", path);
  if (entry->is_string()) return entry->get<std::string>();
  if (entry->is_array()) {
    for (const Json& item : *entry) {
      if (item.is_object() && item.value("name", "") == "default" && item.contains("template") &&
          item["template"].is_string()) {
        return item["template"].get<std::string>();
      }
    }
  }
  return Invalid("{}: chat_template is neither a text nor a list with a template named 'default'",
                 path);
}

}  // namespace

class ChatTemplate::Impl {
 public:
  Impl(jinja::Block parsed, const std::string& origin)
      : block_(std::move(parsed)), file_(origin.substr(origin.rfind('/') + 1)) {}

  // `messages` makes the variable of this name.
  template <class Messages>
  absl::StatusOr<RenderedText> Render(const Messages& messages, const ChatInput& input) const {
    try {
      FATHOM_ASSIGN_OR_RETURN(const jinja::Variables globals, Globals(messages(), input));
      const jinja::Str rendered =
          jinja::Render(block_, globals, input.now_unix_s, {.cancelled = input.cancelled});
      return RenderedText{rendered.str(), rendered.LiteralSpans()};
    } catch (const jinja::RenderCancelled&) {
      return Cancelled("nobody waits for this rendering any more");
    } catch (const jinja::TemplateError& error) {
      return WithDetail(Invalid("{}: chat template, {}", file_, error.what()),
                        {"CHAT_TEMPLATE", "messages", 0});
    }
  }

 private:
  static absl::StatusOr<jinja::Variables> Globals(jinja::Value messages, const ChatInput& input) {
    jinja::Variables globals;
    globals.emplace_back("messages", std::move(messages));
    globals.emplace_back("bos_token", input.bos_token);
    globals.emplace_back("eos_token", input.eos_token);
    globals.emplace_back("add_generation_prompt", input.add_generation_prompt);
    if (input.enable_thinking) globals.emplace_back("enable_thinking", *input.enable_thinking);
    if (!input.tools_json.empty()) {
      FATHOM_ASSIGN_OR_RETURN(jinja::Value tools,
                              ParseJson(input.tools_json, "tools_json", input.tools_literal));
      if (tools.list() == nullptr) {
        return WithDetail(
            Invalid("tools_json is not a JSON array; send [{{\"type\": \"function\", ...}}]"),
            {"INVALID_JSON", "tools_json", 0});
      }
      globals.emplace_back("tools", std::move(tools));
    }
    if (!input.options_json.empty()) {
      FATHOM_ASSIGN_OR_RETURN(const jinja::Value options,
                              ParseJson(input.options_json, "options", /*literal=*/false));
      if (options.map() == nullptr) return Invalid("options are not a JSON object");
      for (const auto& [key, value] : *options.map())
        globals.emplace_back(key.string()->str(), value);
    }
    return globals;
  }

  const jinja::Block block_;
  const std::string file_;  // Clients are told its name, not the server's folder.
};

ChatTemplate::ChatTemplate(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ChatTemplate::~ChatTemplate() = default;

absl::StatusOr<std::unique_ptr<const ChatTemplate>> ChatTemplate::Parse(std::string_view source,
                                                                        const std::string& origin) {
  std::string text;
  for (size_t i = 0; i < source.size(); ++i) {  // "\r\n" and "\r" are newlines too.
    if (source[i] != '\r') {
      text += source[i];
    } else if (i + 1 >= source.size() || source[i + 1] != '\n') {
      text += '\n';
    }
  }
  try {
    return std::unique_ptr<const ChatTemplate>(
        new ChatTemplate(std::make_unique<Impl>(jinja::Parse(text), origin)));
  } catch (const jinja::TemplateError& error) {
    return Invalid("{}: chat template, {}", origin, error.what());
  }
}

absl::StatusOr<std::unique_ptr<const ChatTemplate>> ChatTemplate::Load(const std::string& folder) {
  const std::string own = folder + "/chat_template.jinja";
  if (auto source = ReadFile(own); source.ok()) return Parse(*source, own);
  const std::string config = folder + "/tokenizer_config.json";
  FATHOM_ASSIGN_OR_RETURN(const std::string text, ReadFile(config));
  FATHOM_ASSIGN_OR_RETURN(const std::string source, TemplateOfConfig(config, text));
  return Parse(source, config);
}

absl::StatusOr<RenderedText> ChatTemplate::Render(const ChatInput& input) const {
  const auto messages = [&] {
    jinja::List list;
    for (const ChatMessage& message : input.messages) list.push_back(ToValue(message));
    return jinja::Value(std::move(list));
  };
  return impl_->Render(messages, input);
}

absl::StatusOr<std::string> ChatTemplate::RenderJson(const std::string& messages_json,
                                                     const ChatInput& rest) const {
  FATHOM_ASSIGN_OR_RETURN(const jinja::Value messages,
                          ParseJson(messages_json, "messages", /*literal=*/false));
  FATHOM_ASSIGN_OR_RETURN(RenderedText rendered, impl_->Render([&] { return messages; }, rest));
  return std::move(rendered.text);
}

}  // namespace fathom::router
