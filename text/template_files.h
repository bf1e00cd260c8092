// text/template_files.h: reads the chat template and the special tokens of a model folder from its
// files.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "common/status.h"
#include "text/jinja/eval.h"

namespace fathom {

inline constexpr int64_t kTemplateBytesMax = 1 << 20;  // The longest template.

struct TemplateSource {
  std::string origin;  // The path of its file.
  std::string text;
};

struct TemplateFiles {
  TemplateSource main;
  std::optional<TemplateSource> tool_use;  // For conversations with tools.
};

// Reads the first source that exists, in the order of transformers: `file` (if not empty);
// chat_template.jinja, with additional_chat_templates/tool_use.jinja; chat_template of
// tokenizer_config.json, which may be a list of named templates (`default` and `tool_use` are
// read); chat_template of chat_template.json. NOT_FOUND: there is none. INVALID_ARGUMENT names the
// file.
absl::StatusOr<TemplateFiles> ReadTemplateFiles(const std::string& folder, const std::string& file);

// The special tokens of tokenizer_config.json (bos_token, pad_token and so on) as template
// variables. A token that the file does not name is undefined in the template, as in transformers.
absl::StatusOr<jinja::Variables> ReadSpecialTokens(const std::string& folder);

}  // namespace fathom
