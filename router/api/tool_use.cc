#include "router/api/tool_use.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "common/reason.h"
#include "common/utf8.h"
#include "router/api/chat_renderer.h"

namespace fathom::router {
namespace {

using Json = nlohmann::json;

constexpr size_t kToolsMax = 128;
constexpr size_t kToolNameBytesMax = 128;

absl::Status Refused(absl::Status status, std::string field) {
  return WithReason(std::move(status), Reason::kOutOfRange, std::move(field));
}

// A name stands in the model's text as it is, also inside of JSON.
bool IsToolName(const std::string& name) {
  return !name.empty() && name.size() <= kToolNameBytesMax && std::ranges::all_of(name, [](char c) {
    return c > 0x20 && c < 0x7f && c != '"' && c != '\\';
  });
}

absl::StatusOr<std::vector<std::string>> ToolNames(const std::string& tools_json) {
  const Json tools = Json::parse(tools_json, nullptr, /*allow_exceptions=*/false);
  if (!tools.is_array()) return Refused(Invalid("tools_json is no JSON array"), "tools_json");
  if (tools.size() > kToolsMax) {
    return Refused(
        Invalid("tools_json has {} tools; the limit is {}; send fewer", tools.size(), kToolsMax),
        "tools_json");
  }
  std::vector<std::string> names;
  for (size_t i = 0; i < tools.size(); ++i) {
    const std::string path = fmt::format("tools_json[{}]", i);
    const auto function = tools[i].is_object() ? tools[i].find("function") : tools[i].end();
    const bool has = tools[i].is_object() && function != tools[i].end() && function->is_object();
    const auto name = has ? function->find("name") : tools[i].end();
    if (!has || name == function->end() || !name->is_string()) {
      return Refused(Invalid("{}.function.name is missing; send {{\"type\": \"function\", "
                             "\"function\": {{\"name\": ...}}}}",
                             path),
                     path + ".function.name");
    }
    names.push_back(name->get<std::string>());
    if (IsToolName(names.back())) continue;
    return Refused(Invalid("{}.function.name is '{}'; it must have 1 to {} printable ASCII "
                           "characters without spaces, quotes and backslashes",
                           path, Shortened(names.back(), 64), kToolNameBytesMax),
                   path + ".function.name");
  }
  return names;
}

}  // namespace

absl::StatusOr<AnswerForms> ResolveForms(const std::string& reasoning,
                                         const std::string& tool_calls,
                                         const std::optional<ToolCallForm>& detected,
                                         const Tokenizer& tokenizer) {
  AnswerForms forms{.reasoning = "none"};
  if (reasoning == "auto") {
    if (DetectThinkingForm(tokenizer)) forms.reasoning = "qwen3";
  } else if (reasoning != "none") {
    const auto form = FindThinkingForm(reasoning, tokenizer);
    if (!form.ok()) {
      return Annotate(form.status(), "--reasoning-parser (besides \"auto\" and \"none\")");
    }
    forms.reasoning = reasoning;
  }
  if (tool_calls == "auto") {
    if (detected) forms.tool_calls = detected->name;
  } else if (tool_calls != "none") {
    const auto form = FindToolCallForm(tool_calls, tokenizer);
    if (!form.ok()) {
      return Annotate(form.status(), "--tool-call-parser (besides \"auto\" and \"none\")");
    }
    forms.tool_calls = form->name;
  }
  return forms;
}

absl::Status ApplyTools(const ChatPrompt& chat, const AnswerForms& forms, TextOptions* text) {
  const ToolChoice& choice = chat.tool_choice;
  const bool has_tools = !chat.tools_json.empty();
  const bool must =
      choice.kind == ToolChoice::Kind::kRequired || choice.kind == ToolChoice::Kind::kNamed;
  if (must && !has_tools) {
    return Refused(Invalid("tool_choice asks for a call, but there are no tools; send tools_json"),
                   "tool_choice");
  }
  if (!has_tools || choice.kind == ToolChoice::Kind::kNone) return absl::OkStatus();
  if (const absl::Status status = ChatRenderer::CheckTools(chat.tools_json); !status.ok()) {
    return WithReason(status, Reason::kChatTemplateRefused, "tools_json");
  }
  FATHOM_ASSIGN_OR_RETURN(text->tool_names, ToolNames(chat.tools_json));
  if (text->tool_names.empty()) return absl::OkStatus();
  if (choice.kind == ToolChoice::Kind::kNamed &&
      std::ranges::find(text->tool_names, choice.name) == text->tool_names.end()) {
    return Refused(Invalid("tool_choice names the tool '{}', which tools_json does not have",
                           Shortened(choice.name, 64)),
                   "tool_choice");
  }
  if (must) {
    return WithReason(
        Unimplemented("tool_choice \"{}\" is not available in this version; send "
                      "\"auto\", and ask for the call in a message",
                      choice.kind == ToolChoice::Kind::kNamed ? "function" : "required"),
        Reason::kNotImplemented, "tool_choice");
  }
  if (forms.tool_calls == "none") {
    return WithReason(
        Unimplemented("tools_json needs a model whose tool calls this router reads, and the "
                      "model's chat template shows none that it knows; send tool_choice \"none\" "
                      "to get the model's text, or start the router with --tool-call-parser"),
        Reason::kNotImplemented, "tools_json");
  }
  text->call_form = forms.tool_calls;
  text->parallel_calls = choice.parallel;
  return absl::OkStatus();
}

}  // namespace fathom::router
