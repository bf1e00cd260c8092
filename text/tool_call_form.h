// text/tool_call_form.h: how models write their reasoning and their tool calls: the markers, and
// what is between them. A form is chosen by its name (--tool-call-parser, --reasoning-parser) or by
// the model's folder: by what its chat template makes of a tool call. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "common/status.h"
#include "common/types.h"
#include "text/tokenizer.h"

namespace fathom {

// A text that is no part of what it marks. `id` is its token; nullopt: the tokenizer has none, so
// the marker is recognised in the text. An empty text: the form has no such marker.
struct Marker {
  std::string text;
  std::optional<TokenId> id;
};

struct ThinkingForm {
  Marker begin;  // <think>
  Marker end;    // </think>
  // An answer that does not begin with `begin` is reasoning too, up to `end`.
  bool from_start = false;
};

struct ToolCallForm {
  enum class Body : uint8_t {
    kNameThenJson,  // NAME separator {arguments} (DeepSeek V3.1, the bundled model)
    kFencedJson,    // function separator NAME \n ```json \n {arguments} \n ``` (DeepSeek V3, R1)
    kJsonObject,    // {"name": NAME, "arguments": {arguments}} (Qwen, Hermes)
    kBareJson,      // As kJsonObject with "parameters" too, alone or after `call_begin` (Llama 3.1)
  };
  std::string name;  // "deepseek_v3"
  Body body = Body::kJsonObject;
  Marker calls_begin, calls_end;  // Around all calls.
  Marker call_begin, call_end;    // Around one call.
  Marker separator;               // Between name and arguments.
};

// The form with this name or alias (docs/API.md has the list), its markers looked up in
// `tokenizer`. INVALID_ARGUMENT: unknown; the message has the list.
absl::StatusOr<ToolCallForm> FindToolCallForm(std::string_view name, const Tokenizer& tokenizer);
absl::StatusOr<ThinkingForm> FindThinkingForm(std::string_view name, const Tokenizer& tokenizer);

// The form of a model folder: `rendered` is what its chat template makes of an assistant's message
// that calls the tool `name` (text/template_traits.h). nullopt: it is no known form.
std::optional<ToolCallForm> DetectToolCallForm(std::string_view rendered, std::string_view name,
                                               const Tokenizer& tokenizer);
// The tokenizer has both "<think>" and "</think>" as tokens; nullopt: it has not.
std::optional<ThinkingForm> DetectThinkingForm(const Tokenizer& tokenizer);

// Whether generation after this prompt starts inside reasoning: the prompt ends with the marker
// that begins it; white space after it does not count.
bool PromptOpensThinking(const Tokenizer& tokenizer, const ThinkingForm& thinking,
                         std::span<const TokenId> prompt_ids);

}  // namespace fathom
