#include "text/template_files.h"

#include <filesystem>
#include <fstream>
#include <iterator>
#include <utility>
#include <vector>

#include "text/json_fields.h"

namespace fathom {
namespace {

// NOT_FOUND: the file does not exist.
absl::StatusOr<std::string> ReadText(const std::string& path) {
  std::error_code error;
  if (!std::filesystem::exists(path, error)) return NotFound("{}: no such file", path);
  const auto size = std::filesystem::file_size(path, error);
  if (!error && size > static_cast<uintmax_t>(kTemplateBytesMax)) {
    return Invalid("{} has {} bytes; a chat template has at most {}", path, size,
                   kTemplateBytesMax);
  }
  std::ifstream file(path, std::ios::binary);
  std::string text(std::istreambuf_iterator<char>(file), {});
  if (!file) return Invalid("{} cannot be read; mind its type and permissions", path);
  return text;
}

// Reads the value of `chat_template` in a JSON file.
absl::StatusOr<TemplateFiles> FromJson(const JsonAt& at, const std::string& path) {
  TemplateFiles files;
  if (at.value.is_string()) {
    files.main = {path, at.value.get<std::string>()};
    return files;
  }
  if (!at.value.is_array()) return at.Refuse("expected a template or a list of named templates");
  bool has_main = false;
  std::string names;
  for (const Json& entry : at.value) {
    const bool named = entry.is_object() && entry.contains("name") && entry["name"].is_string() &&
                       entry.contains("template") && entry["template"].is_string();
    if (!named) return at.Refuse("expected objects with `name` and `template`");
    const auto name = entry["name"].get<std::string>();
    TemplateSource source{path, entry["template"].get<std::string>()};
    names += names.empty() ? name : ", " + name;
    if (name == "default") {
      files.main = std::move(source);
      has_main = true;
    } else if (name == "tool_use") {
      files.tool_use = std::move(source);
    }
  }
  if (!has_main) {
    return Invalid(
        "{} lists the templates [{}] and none named 'default'; give one in a file with "
        "--chat-template FILE",
        at.where, names);
  }
  return files;
}

// NOT_FOUND: the file or the key does not exist.
absl::StatusOr<TemplateFiles> FromJsonFile(const std::string& path) {
  FATHOM_ASSIGN_OR_RETURN(const Json json, ReadJsonFile(path));
  const std::string name = std::filesystem::path(path).filename();
  if (!json.is_object()) return JsonAt{json, path}.Refuse("expected an object");
  const auto found = json.find("chat_template");
  if (found == json.end() || found->is_null()) return NotFound("{} has no chat_template", path);
  return FromJson({*found, path + ": chat_template"}, path);
}

bool IsMissing(const absl::Status& status) { return status.code() == absl::StatusCode::kNotFound; }

}  // namespace

absl::StatusOr<TemplateFiles> ReadTemplateFiles(const std::string& folder,
                                                const std::string& file) {
  TemplateFiles files;
  if (!file.empty()) {
    auto text = ReadText(file);
    if (IsMissing(text.status()))
      return Invalid("--chat-template {}: no such file; give a template in Jinja's language", file);
    if (!text.ok()) return text.status();
    files.main = {file, *std::move(text)};
    return files;
  }
  const std::string own = folder + "/chat_template.jinja";
  auto text = ReadText(own);
  if (text.ok()) {
    files.main = {own, *std::move(text)};
    const std::string more = folder + "/additional_chat_templates/tool_use.jinja";
    auto tool_use = ReadText(more);
    if (tool_use.ok()) {
      files.tool_use = TemplateSource{more, *std::move(tool_use)};
    } else if (!IsMissing(tool_use.status())) {
      return tool_use.status();
    }
    return files;
  }
  if (!IsMissing(text.status())) return text.status();
  auto of_config = FromJsonFile(folder + "/tokenizer_config.json");
  if (!IsMissing(of_config.status())) return of_config;
  auto of_processor = FromJsonFile(folder + "/chat_template.json");
  if (!IsMissing(of_processor.status())) return of_processor;
  return NotFound("{} has no chat template", folder);
}

absl::StatusOr<jinja::Variables> ReadSpecialTokens(const std::string& folder) {
  jinja::Variables tokens;
  const std::string path = folder + "/tokenizer_config.json";
  const auto json = ReadJsonFile(path);
  if (IsMissing(json.status())) return tokens;
  if (!json.ok()) return json.status();
  const auto text_of = [](const Json& token) -> std::optional<std::string> {
    if (token.is_string()) return token.get<std::string>();
    if (token.is_object() && token.contains("content") && token["content"].is_string())
      return token["content"].get<std::string>();
    return std::nullopt;
  };
  for (const char* name : {"bos_token", "eos_token", "unk_token", "sep_token", "pad_token",
                           "cls_token", "mask_token"}) {
    if (!json->is_object() || !json->contains(name)) continue;
    if (const auto text = text_of((*json)[name])) tokens.emplace_back(name, jinja::Value(*text));
  }
  if (json->is_object() && json->contains("additional_special_tokens")) {
    jinja::List list;
    for (const Json& token : (*json)["additional_special_tokens"]) {
      if (const auto text = text_of(token)) list.emplace_back(*text);
    }
    if (!list.empty()) tokens.emplace_back("additional_special_tokens", std::move(list));
  }
  return tokens;
}

}  // namespace fathom
