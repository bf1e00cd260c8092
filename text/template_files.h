// text/template_files.h: what the files of a model folder say about its chat template.
#pragma once

#include <optional>
#include <string>

#include "common/status.h"
#include "text/jinja/eval.h"

namespace fathom::router {

struct TemplateSource {
  std::string origin;  // Path of its file.
  std::string text;
};

struct TemplateFiles {
  TemplateSource main;
  std::optional<TemplateSource> tool_use;  // For conversations with tools.
};

// The first that there is, as transformers looks for it: `file` (where not empty);
// chat_template.jinja, with additional_chat_templates/tool_use.jinja; chat_template of
// tokenizer_config.json, which may be a list of named ones (`default` and `tool_use` are read);
// chat_template of chat_template.json. NOT_FOUND: there is none. INVALID_ARGUMENT names the file.
absl::StatusOr<TemplateFiles> ReadTemplateFiles(const std::string& folder, const std::string& file);

// The special tokens of tokenizer_config.json (bos_token, pad_token and so on) as variables of a
// template; one that the file does not name is undefined there, as in transformers.
absl::StatusOr<jinja::Variables> ReadSpecialTokens(const std::string& folder);

}  // namespace fathom::router
