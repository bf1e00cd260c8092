#include "router/api/model_folder.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>

#include "common/process.h"
#include "modeling/config/model_config.h"

namespace fathom::router {
namespace {

using Json = nlohmann::json;
namespace fs = std::filesystem;

constexpr int64_t kConfigBytesMax = 16 << 20;

absl::StatusOr<std::string> ReadText(const fs::path& path) {
  std::error_code error;
  const auto bytes = fs::file_size(path, error);
  if (error) {
    return NotFound("{}: cannot be read ({}); --model must name a Hugging Face model folder",
                    path.string(), error.message());
  }
  if (static_cast<int64_t>(bytes) > kConfigBytesMax) {
    return Invalid(
        "{}: has {} bytes, more than the {} a configuration may have; is it the right file?",
        path.string(), bytes, kConfigBytesMax);
  }
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  if (!file) return Invalid("{}: cannot be read to its end", path.string());
  return text.str();
}

absl::StatusOr<Json> ParseObject(const fs::path& path, const std::string& text) {
  Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) {
    return Invalid("{}: is not a JSON object; copy the file again from where the model came",
                   path.string());
  }
  return json;
}

// eos_token_id: a number, a list of numbers, or nothing.
absl::StatusOr<std::vector<TokenId>> EndTokens(const fs::path& path, const Json& json,
                                               int32_t vocab) {
  std::vector<TokenId> ids;
  const auto it = json.find("eos_token_id");
  if (it == json.end() || it->is_null()) return ids;
  const Json list = it->is_array() ? *it : Json::array({*it});
  for (const Json& id : list) {
    if (!id.is_number_unsigned() || id.get<uint64_t>() >= static_cast<uint64_t>(vocab)) {
      return Invalid("{}: eos_token_id has {}; expected token ids of 0 to {} (vocab_size - 1)",
                     path.string(), id.dump(), vocab - 1);
    }
    ids.push_back(id.get<TokenId>());
  }
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  return ids;
}

template <class T>
absl::Status OptionalNumber(const fs::path& path, const Json& json, const char* key, double min,
                            double max, std::optional<T>* value) {
  const auto it = json.find(key);
  if (it == json.end() || it->is_null()) return absl::OkStatus();
  if (!it->is_number() || !(it->get<double>() >= min && it->get<double>() <= max)) {
    return Invalid("{}: {} is {}; expected a number of {} to {}, or no such key", path.string(),
                   key, it->dump(), min, max);
  }
  *value = static_cast<T>(it->get<double>());
  return absl::OkStatus();
}

absl::Status ReadDefaults(const fs::path& path, const Json& json, int32_t vocab,
                          SamplingDefaults* defaults) {
  FATHOM_RETURN_IF_ERROR(OptionalNumber(path, json, "temperature", 0, 2, &defaults->temperature));
  FATHOM_RETURN_IF_ERROR(OptionalNumber(path, json, "top_k", 0, vocab, &defaults->top_k));
  FATHOM_RETURN_IF_ERROR(
      OptionalNumber(path, json, "top_p", std::numeric_limits<float>::min(), 1, &defaults->top_p));
  FATHOM_RETURN_IF_ERROR(OptionalNumber(path, json, "min_p", 0, 1, &defaults->min_p));
  return OptionalNumber(path, json, "repetition_penalty", 0.001, 2, &defaults->repetition_penalty);
}

}  // namespace

absl::StatusOr<ModelFolder> ReadModelFolder(const std::string& path, std::string_view overrides) {
  ModelFolder folder;
  folder.path = path;
  fs::path normal = fs::path(path).lexically_normal();
  if (normal.filename().empty()) normal = normal.parent_path();  // "models/x/".
  std::error_code error;
  if (normal.filename() == "." || normal.filename() == "..") normal = fs::canonical(normal, error);
  folder.name = normal.filename().string();

  // Also a configuration file alone (models/shapes/*.json): token ids in and out, random weights.
  FATHOM_ASSIGN_OR_RETURN(const worker::ModelConfig config,
                          worker::ReadModelConfig(path, overrides));
  folder.config_digest = Sha256Hex(config.source.text);
  folder.vocab = config.vocab;
  folder.context_tokens = config.context;
  folder.end_token_ids = config.end_ids;
  std::sort(folder.end_token_ids.begin(), folder.end_token_ids.end());

  const fs::path generation_path = fs::path(path) / "generation_config.json";
  if (fs::exists(generation_path, error)) {
    FATHOM_ASSIGN_OR_RETURN(const std::string text, ReadText(generation_path));
    FATHOM_ASSIGN_OR_RETURN(const Json generation, ParseObject(generation_path, text));
    FATHOM_ASSIGN_OR_RETURN(std::vector<TokenId> ends,
                            EndTokens(generation_path, generation, folder.vocab));
    if (!ends.empty()) folder.end_token_ids = std::move(ends);
    FATHOM_RETURN_IF_ERROR(
        ReadDefaults(generation_path, generation, folder.vocab, &folder.defaults));
  }
  folder.has_tokenizer = fs::exists(fs::path(path) / "tokenizer.json", error);
  return folder;
}

}  // namespace fathom::router
