#include "text/chat_template.h"

#include <algorithm>
#include <filesystem>
#include <iterator>
#include <utility>

#include "common/reason.h"
#include "common/utf8.h"
#include "text/jinja/builtins.h"
#include "text/jinja/eval.h"
#include "text/jinja/json.h"
#include "text/jinja/parser.h"
#include "text/jinja/string_methods.h"
#include "text/template_files.h"
#include "text/template_traits.h"

namespace fathom {
namespace {

using jinja::Value;

// Variables for which a request has its own fields.
constexpr std::string_view kOwnVariables[] = {"messages", "tools", "add_generation_prompt",
                                              "enable_thinking"};

Value ToValue(const std::string& text, bool literal) {
  return literal ? jinja::Str::Literal(text) : jinja::Str(text);
}

absl::Status BadJson(const absl::Status& status, std::string_view field) {
  return WithReason(status, Reason::kInvalidJson, field);
}

absl::StatusOr<Value> ParseJson(const std::string& text, std::string_view field, bool literal) {
  try {
    return jinja::ReadJson(text, literal);
  } catch (const jinja::JsonError& error) {
    if (!error.too_deep)
      return BadJson(Invalid("{} is not valid JSON: {}", field, error.what()), field);
    return WithReason(Invalid("{} is nested deeper than {} levels; send a flatter value", field,
                              jinja::kJsonDepthMax),
                      Reason::kJsonTooDeep, field);
  }
}

// Makes the template's value of one message.
class MessageMaker {
 public:
  MessageMaker(const ChatMessage& message, size_t place, const TemplateTraits& traits)
      : message_(message), place_(place), traits_(traits) {}

  absl::StatusOr<Value> Make() const {
    jinja::Map map;
    FATHOM_ASSIGN_OR_RETURN(const std::string role, Role());
    map.emplace_back("role", role);
    map.emplace_back("content", Content(role));
    if (!message_.name.empty()) map.emplace_back("name", Text(message_.name));
    if (message_.reasoning) map.emplace_back("reasoning_content", Text(*message_.reasoning));
    if (!message_.tool_call_id.empty())
      map.emplace_back("tool_call_id", Text(message_.tool_call_id));
    if (!message_.tool_calls.empty()) {
      FATHOM_ASSIGN_OR_RETURN(Value calls, Calls());
      map.emplace_back("tool_calls", std::move(calls));
    }
    return Value(std::move(map));
  }

 private:
  Value Text(const std::string& text) const { return ToValue(text, message_.literal); }

  // The role that the template sees.
  absl::StatusOr<std::string> Role() const {
    const bool stands_for = message_.role == "developer" && !traits_.knows_developer;
    const std::string role = stands_for ? "system" : message_.role;
    // Only these roles are checked for content that is dropped.
    const bool checked = role == "system" || role == "tool";
    if (!checked || !traits_.roles_left_out.contains(role)) return role;
    return WithReason(
        Invalid("messages[{}].role is \"{}\", and this model's chat template leaves such messages "
                "out; put the text into a message of the user",
                place_, message_.role),
        Reason::kRoleLeftOut, fmt::format("messages[{}].role", place_));
  }

  Value Content(const std::string& role) const {
    const std::vector<std::string>& parts = message_.content_parts;
    if (parts.empty() && message_.content) return Text(*message_.content);
    // Content that is null becomes the empty text. In a message with tool calls it stays None,
    // because templates test for that.
    if (parts.empty()) return message_.tool_calls.empty() ? Value("") : Value(jinja::None{});
    if (!traits_.roles_with_parts.contains(role)) {
      std::string joined = parts[0];
      for (size_t i = 1; i < parts.size(); ++i) joined += "\n" + parts[i];
      return Text(joined);
    }
    jinja::List list;
    for (const std::string& part : parts)
      list.emplace_back(jinja::Map{{"type", "text"}, {"text", Text(part)}});
    return Value(std::move(list));
  }

  absl::StatusOr<Value> Calls() const {
    jinja::List calls;
    for (size_t i = 0; i < message_.tool_calls.size(); ++i) {
      const ChatToolCall& call = message_.tool_calls[i];
      Value arguments = Text(call.arguments_json);
      if (traits_.arguments_as_map) {
        const std::string field =
            fmt::format("messages[{}].tool_calls[{}].arguments_json", place_, i);
        const std::string json = call.arguments_json.empty() ? "{}" : call.arguments_json;
        FATHOM_ASSIGN_OR_RETURN(arguments, ParseJson(json, field, message_.literal));
        if (arguments.map() == nullptr)
          return BadJson(Invalid("{} is not a JSON object; send {{\"name\": value, ...}}", field),
                         field);
      }
      calls.emplace_back(jinja::Map{
          {"id", Text(call.id)},
          {"type", "function"},
          {"function", jinja::Map{{"name", Text(call.name)}, {"arguments", arguments}}}});
    }
    return Value(std::move(calls));
  }

  const ChatMessage& message_;
  const size_t place_;
  const TemplateTraits& traits_;
};

// Sets a variable, also if it already exists.
void SetVariable(jinja::Variables* variables, const std::string& name, Value value) {
  const auto found = std::find_if(variables->begin(), variables->end(),
                                  [&](const auto& entry) { return entry.first == name; });
  if (found != variables->end()) {
    found->second = std::move(value);
  } else {
    variables->emplace_back(name, std::move(value));
  }
}

absl::Status AddKwargs(const ChatInput& input, jinja::Variables* variables) {
  if (input.kwargs_json.empty()) return absl::OkStatus();
  constexpr const char* kField = "chat_template_kwargs_json";
  FATHOM_ASSIGN_OR_RETURN(const Value kwargs,
                          ParseJson(input.kwargs_json, kField, input.kwargs_literal));
  if (kwargs.map() == nullptr)
    return BadJson(Invalid("{} is not a JSON object; send {{\"name\": value, ...}}", kField),
                   kField);
  for (const auto& [key, value] : *kwargs.map()) {
    const std::string name = key.string()->str();
    const bool own = std::find(std::begin(kOwnVariables), std::end(kOwnVariables), name) !=
                     std::end(kOwnVariables);
    const bool given_twice = name == "enable_thinking" && input.enable_thinking.has_value();
    if ((own && name != "enable_thinking") || given_twice || jinja::FindFunction(name) != nullptr) {
      return WithReason(Invalid("{} sets \"{}\", which {}", kField, Shortened(name, 64),
                                own ? "is a field of the request; set that instead"
                                    : "is a function of every template; choose another name"),
                        Reason::kTemplateVariable, kField);
    }
    SetVariable(variables, name, value);
  }
  return absl::OkStatus();
}

// Cuts the text after the end of `content`, which the template wrote last (the template may have
// changed the white space around it).
absl::Status CutBehind(std::string_view content, RenderedText* rendered) {
  const jinja::Str whole{std::string(content)};
  const std::string text = jinja::Strip(whole, {}, jinja::kBoth).str();
  const size_t hit = rendered->text.rfind(text);
  if (text.empty() || hit == std::string::npos) {
    return WithReason(
        Invalid("continue_final_message: the last message's content does not come to the prompt; "
                "this model's chat template changes it or leaves it out"),
        Reason::kChatTemplateRefused, "continue_final_message");
  }
  size_t end = hit + text.size();
  const std::string with_rest = jinja::Strip(whole, {}, jinja::kLeft).str();
  if (rendered->text.compare(hit, with_rest.size(), with_rest) == 0) end = hit + with_rest.size();
  rendered->text.resize(end);
  std::vector<ByteSpan>& spans = rendered->literal_spans;
  while (!spans.empty() && spans.back().begin >= end) spans.pop_back();
  if (!spans.empty()) spans.back().end = std::min(spans.back().end, end);
  return absl::OkStatus();
}

absl::Status CheckContinuation(const ChatInput& input) {
  const auto refuse = [](const absl::Status& status) {
    return WithReason(status, Reason::kOutOfRange, "continue_final_message");
  };
  if (input.add_generation_prompt.value_or(false)) {
    return refuse(
        Invalid("continue_final_message and add_generation_prompt are both set; an answer goes on "
                "with the last message or begins a new one"));
  }
  if (input.messages.empty() ||
      (!input.messages.back().content && input.messages.back().content_parts.empty())) {
    return refuse(Invalid("continue_final_message: the last message has no content to go on with"));
  }
  return absl::OkStatus();
}

}  // namespace

// One parsed template with its properties.
struct ParsedTemplate {
  jinja::Block block;
  std::string name;  // The name of its file, for messages to clients.
  TemplateTraits traits;
};

class ChatTemplate::Impl {
 public:
  jinja::Variables tokens;  // The special tokens.
  ParsedTemplate main;
  std::optional<ParsedTemplate> tool_use;

  const ParsedTemplate& For(const ChatInput& input) const {
    return tool_use && !input.tools_json.empty() ? *tool_use : main;
  }

  // `make_messages` makes the value of `messages` for a template.
  template <class MakeMessages>
  absl::StatusOr<RenderedText> Render(const MakeMessages& make_messages,
                                      const ChatInput& input) const {
    const ParsedTemplate& chosen = For(input);
    try {
      FATHOM_ASSIGN_OR_RETURN(jinja::Variables variables, VariablesOf(input));
      FATHOM_ASSIGN_OR_RETURN(Value messages, make_messages(chosen));
      variables.emplace_back("messages", std::move(messages));
      const jinja::Str rendered =
          jinja::Render(chosen.block, variables, input.now_unix_s, {.cancelled = input.cancelled});
      return RenderedText{rendered.str(), rendered.LiteralSpans()};
    } catch (const jinja::RenderCancelled&) {
      return Cancelled("nobody waits for this rendering any more");
    } catch (const jinja::TemplateError& error) {
      return WithReason(Invalid("{}: chat template, {}", chosen.name, error.what()),
                        Reason::kChatTemplateRefused, "messages");
    }
  }

  // All variables except `messages`.
  absl::StatusOr<jinja::Variables> VariablesOf(const ChatInput& input) const {
    jinja::Variables variables = tokens;
    if (!input.bos_token.empty()) SetVariable(&variables, "bos_token", input.bos_token);
    if (!input.eos_token.empty()) SetVariable(&variables, "eos_token", input.eos_token);
    variables.emplace_back("documents", jinja::None{});
    Value tools = jinja::None{};
    if (!input.tools_json.empty()) {
      FATHOM_ASSIGN_OR_RETURN(tools,
                              ParseJson(input.tools_json, "tools_json", input.tools_literal));
      if (tools.list() == nullptr) {
        return BadJson(
            Invalid("tools_json is not a JSON array; send [{{\"type\": \"function\", ...}}]"),
            "tools_json");
      }
    }
    variables.emplace_back("tools", std::move(tools));
    variables.emplace_back("add_generation_prompt",
                           input.add_generation_prompt.value_or(!input.continue_final_message));
    if (input.enable_thinking) variables.emplace_back("enable_thinking", *input.enable_thinking);
    FATHOM_RETURN_IF_ERROR(AddKwargs(input, &variables));
    return variables;
  }

  // `origin` is a file, for messages to the operator of the router.
  absl::Status Parse(std::string_view source, const std::string& origin, ParsedTemplate* to) const {
    std::string text;
    for (size_t i = 0; i < source.size(); ++i) {  // "\r\n" and "\r" are newlines too.
      if (source[i] != '\r') {
        text += source[i];
      } else if (i + 1 >= source.size() || source[i + 1] != '\n') {
        text += '\n';
      }
    }
    try {
      to->block = jinja::Parse(text);
    } catch (const jinja::TemplateError& error) {
      return Invalid("{}: chat template, {}", origin, error.what());
    }
    to->name = std::filesystem::path(origin).filename();
    FATHOM_ASSIGN_OR_RETURN(const jinja::Variables variables, VariablesOf({}));
    to->traits = FindTraits(to->block, text, variables);
    return absl::OkStatus();
  }
};

ChatTemplate::ChatTemplate(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ChatTemplate::~ChatTemplate() = default;

absl::StatusOr<std::unique_ptr<const ChatTemplate>> ChatTemplate::Parse(std::string_view source,
                                                                        const std::string& origin) {
  auto impl = std::make_unique<Impl>();
  FATHOM_RETURN_IF_ERROR(impl->Parse(source, origin, &impl->main));
  return std::unique_ptr<const ChatTemplate>(new ChatTemplate(std::move(impl)));
}

absl::StatusOr<std::unique_ptr<const ChatTemplate>> ChatTemplate::Load(const std::string& folder,
                                                                       const std::string& file) {
  FATHOM_ASSIGN_OR_RETURN(const TemplateFiles files, ReadTemplateFiles(folder, file));
  auto impl = std::make_unique<Impl>();
  FATHOM_ASSIGN_OR_RETURN(impl->tokens, ReadSpecialTokens(folder));
  FATHOM_RETURN_IF_ERROR(impl->Parse(files.main.text, files.main.origin, &impl->main));
  if (files.tool_use) {
    impl->tool_use.emplace();
    FATHOM_RETURN_IF_ERROR(
        impl->Parse(files.tool_use->text, files.tool_use->origin, &*impl->tool_use));
  }
  return std::unique_ptr<const ChatTemplate>(new ChatTemplate(std::move(impl)));
}

const std::string& ChatTemplate::ToolCallSample() const {
  return (impl_->tool_use ? *impl_->tool_use : impl_->main).traits.tool_call;
}

absl::StatusOr<RenderedText> ChatTemplate::Render(const ChatInput& input) const {
  if (input.continue_final_message) FATHOM_RETURN_IF_ERROR(CheckContinuation(input));
  const auto messages = [&](const ParsedTemplate& chosen) -> absl::StatusOr<Value> {
    jinja::List list;
    for (size_t i = 0; i < input.messages.size(); ++i) {
      FATHOM_ASSIGN_OR_RETURN(Value made, MessageMaker(input.messages[i], i, chosen.traits).Make());
      list.push_back(std::move(made));
    }
    return Value(std::move(list));
  };
  FATHOM_ASSIGN_OR_RETURN(RenderedText rendered, impl_->Render(messages, input));
  if (input.continue_final_message) {
    const ChatMessage& last = input.messages.back();
    FATHOM_RETURN_IF_ERROR(CutBehind(
        last.content_parts.empty() ? *last.content : last.content_parts.back(), &rendered));
  }
  return rendered;
}

absl::StatusOr<std::string> ChatTemplate::RenderJson(const std::string& messages_json,
                                                     const ChatInput& rest) const {
  FATHOM_ASSIGN_OR_RETURN(const Value messages,
                          ParseJson(messages_json, "messages", /*literal=*/false));
  const auto as_they_are = [&](const ParsedTemplate&) -> absl::StatusOr<Value> { return messages; };
  FATHOM_ASSIGN_OR_RETURN(RenderedText rendered, impl_->Render(as_they_are, rest));
  return std::move(rendered.text);
}

}  // namespace fathom
