#include "router/api/model_folder.h"

#include <algorithm>
#include <filesystem>
#include <utility>

#include "common/process.h"
#include "modeling/config/generation_config.h"
#include "modeling/config/model_config.h"

namespace fathom::router {
namespace {

namespace fs = std::filesystem;

// The folder's own name, for paths like "models/x/" and "." too.
std::string NameOf(const std::string& path) {
  fs::path normal = fs::path(path).lexically_normal();
  if (normal.filename().empty()) normal = normal.parent_path();
  std::error_code error;
  if (normal.filename() == "." || normal.filename() == "..") normal = fs::canonical(normal, error);
  return normal.filename().string();
}

// The value that is nearest to `value` and allowed in a request. If it differs from `value`, a note
// says so. It is not an error, because a value that a model's authors recommend must not prevent
// the model from starting.
template <class T>
std::optional<T> Clamped(const SamplingField& limit, std::optional<T> value,
                         std::vector<std::string>* notes) {
  if (!value) return value;
  const T within = std::clamp(*value, static_cast<T>(limit.min), static_cast<T>(limit.max));
  if (within != *value) {
    notes->push_back(
        fmt::format("{} {} of the model is taken as {}, the nearest value that a "
                    "request may have",
                    limit.path, *value, within));
  }
  return within;
}

RequestDefaults DefaultsOf(const GenerationConfig& generation, std::vector<std::string>* notes) {
  RequestDefaults defaults;
  ForEachSamplingField([&](const SamplingField& row, auto, auto option) {
    defaults.*option = Clamped(row, generation.*option, notes);
  });
  defaults.min_tokens = generation.min_new_tokens.value_or(0);
  defaults.stop_strings = generation.stop_strings;
  defaults.suppressed_ids = generation.suppressed_ids;
  return defaults;
}

}  // namespace

absl::StatusOr<ModelFolder> ReadModelFolder(const std::string& path, std::string_view overrides,
                                            std::string_view generation_overrides) {
  ModelFolder folder;
  folder.path = path;
  folder.name = NameOf(path);
  // `path` may also be a configuration file without a folder (models/shapes/*.json). Then there are
  // random weights and no texts.
  FATHOM_ASSIGN_OR_RETURN(const ModelConfig config, ReadModelConfig(path, overrides));
  folder.config_digest = Sha256Hex(config.source.text);
  folder.vocab = config.vocab;
  folder.context_tokens = config.context;

  FATHOM_ASSIGN_OR_RETURN(GenerationConfig generation,
                          ReadGenerationConfig(path, config.vocab, generation_overrides));
  folder.end_token_ids = EndIds(config, generation);
  folder.notes = std::move(generation.notes);
  folder.defaults = DefaultsOf(generation, &folder.notes);
  folder.thinking = generation.thinking_budgets;
  std::error_code error;
  folder.has_tokenizer = fs::exists(fs::path(path) / "tokenizer.json", error);
  if (!folder.has_tokenizer && !folder.defaults.stop_strings.empty()) {
    return Invalid(
        "{}/generation_config.json: stop_strings needs a tokenizer, but there is no "
        "tokenizer.json beside it; add the file, or start with {} '{{\"stop_strings\": null}}'",
        path, kOverrideGenerationFlag);
  }
  return folder;
}

}  // namespace fathom::router
