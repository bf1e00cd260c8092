#include "text/tool_call_form.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <vector>

#include "common/utf8.h"

namespace fathom {
namespace {

using Body = ToolCallForm::Body;

struct CallRow {
  const char* name;
  std::vector<const char*> aliases;
  Body body;
  const char *calls_begin, *calls_end, *call_begin, *call_end, *separator;
};

constexpr char kCallsBegin[] = "<｜tool▁calls▁begin｜>", kCallsEnd[] = "<｜tool▁calls▁end｜>";
constexpr char kCallBegin[] = "<｜tool▁call▁begin｜>", kCallEnd[] = "<｜tool▁call▁end｜>";
constexpr char kSeparator[] = "<｜tool▁sep｜>";

const std::vector<CallRow>& CallRows() {
  static const std::vector<CallRow> kRows = {
      {"deepseek_v3",
       {"deepseek_r1"},
       Body::kFencedJson,
       kCallsBegin,
       kCallsEnd,
       kCallBegin,
       kCallEnd,
       kSeparator},
      {"deepseek_v31",
       {"deepseek_v3_1"},
       Body::kNameThenJson,
       kCallsBegin,
       kCallsEnd,
       kCallBegin,
       kCallEnd,
       kSeparator},
      {"hermes", {"qwen", "qwen3"}, Body::kJsonObject, "", "", "<tool_call>", "</tool_call>", ""},
      {"llama3_json",
       {"llama3", "llama4_json"},
       Body::kBareJson,
       "",
       "",
       "<|python_tag|>",
       "",
       ""}};
  return kRows;
}

// `from_start`: ThinkingForm::from_start.
struct ThinkingRow {
  const char* name;
  bool from_start;
};
constexpr ThinkingRow kThinkingRows[] = {
    {"deepseek_r1", true}, {"deepseek_v3", false}, {"deepseek_v31", false}, {"qwen3", false}};

Marker MarkerOf(std::string text, const Tokenizer& tokenizer) {
  if (text.empty()) return {};
  const std::optional<TokenId> id = tokenizer.FindToken(text);
  return {std::move(text), id};
}

ToolCallForm FormOf(const CallRow& row, const Tokenizer& tokenizer) {
  return {.name = row.name,
          .body = row.body,
          .calls_begin = MarkerOf(row.calls_begin, tokenizer),
          .calls_end = MarkerOf(row.calls_end, tokenizer),
          .call_begin = MarkerOf(row.call_begin, tokenizer),
          .call_end = MarkerOf(row.call_end, tokenizer),
          .separator = MarkerOf(row.separator, tokenizer)};
}

ThinkingForm ThinkingOf(const Tokenizer& tokenizer, bool from_start) {
  return {MarkerOf("<think>", tokenizer), MarkerOf("</think>", tokenizer), from_start};
}

bool Names(const CallRow& row, std::string_view name) {
  return name == row.name || std::ranges::find(row.aliases, name) != row.aliases.end();
}

}  // namespace

absl::StatusOr<ToolCallForm> FindToolCallForm(std::string_view name, const Tokenizer& tokenizer) {
  std::string names;
  for (const CallRow& row : CallRows()) {
    if (Names(row, name)) return FormOf(row, tokenizer);
    names += fmt::format("{}{}", names.empty() ? "" : ", ", row.name);
    for (const char* alias : row.aliases) names += fmt::format(", {}", alias);
  }
  return Invalid("'{}' is no form of tool calls that this version reads; it reads {}",
                 Shortened(ToUtf8(name), 64), names);
}

absl::StatusOr<ThinkingForm> FindThinkingForm(std::string_view name, const Tokenizer& tokenizer) {
  std::string names;
  for (const ThinkingRow& row : kThinkingRows) {
    if (name == row.name) return ThinkingOf(tokenizer, row.from_start);
    names += fmt::format("{}{}", names.empty() ? "" : ", ", row.name);
  }
  return Invalid("'{}' is no form of reasoning that this version reads; it reads {}",
                 Shortened(ToUtf8(name), 64), names);
}

std::optional<ToolCallForm> DetectToolCallForm(std::string_view rendered, std::string_view name,
                                               const Tokenizer& tokenizer) {
  const auto has = [&](const std::string& text) {
    return rendered.find(text) != std::string_view::npos;
  };
  const char* form = nullptr;
  if (has(fmt::format("{}{}\n```json\n", kSeparator, name))) {
    form = "deepseek_v3";
  } else if (has(fmt::format("{}{}{}", kCallBegin, name, kSeparator))) {
    form = "deepseek_v31";
  } else if (has(fmt::format("<tool_call>\n{{\"name\": \"{}\", \"arguments\": ", name))) {
    form = "hermes";
  } else if (has(fmt::format("{{\"name\": \"{}\", \"parameters\": ", name))) {
    form = "llama3_json";
  }
  if (form == nullptr) return std::nullopt;
  return FindToolCallForm(form, tokenizer).value();
}

std::optional<ThinkingForm> DetectThinkingForm(const Tokenizer& tokenizer) {
  ThinkingForm form = ThinkingOf(tokenizer, /*from_start=*/false);
  if (!form.begin.id || !form.end.id) return std::nullopt;
  return form;
}

bool PromptOpensThinking(const Tokenizer& tokenizer, const ThinkingForm& thinking,
                         std::span<const TokenId> prompt_ids) {
  std::string tail;  // What follows the token that is looked at.
  for (size_t i = prompt_ids.size(); i > 0; --i) {
    const TokenId id = prompt_ids[i - 1];
    if (id == thinking.begin.id) return true;
    const bool known = id >= 0 && id < tokenizer.vocab_size();
    if (!known) return false;
    tail.insert(0, tokenizer.TokenBytes(id));
    const std::string whole = ToUtf8(tail);
    const std::string_view text = TrimRight(whole);
    if (thinking.begin.id ? !text.empty() : text.size() >= thinking.begin.text.size()) {
      return !thinking.begin.id && text.ends_with(thinking.begin.text);
    }
  }
  return false;
}

}  // namespace fathom
