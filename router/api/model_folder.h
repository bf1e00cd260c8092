// router/api/model_folder.h: what a router needs of a model folder: config.json,
// generation_config.json and whether there is a tokenizer. Weights are the worker's. Pure besides
// reading the files. Errors: INVALID_ARGUMENT or NOT_FOUND naming file, key, found, expected and
// the way out (exit 66 in main).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/status.h"
#include "common/types.h"

namespace fathom::router {

// Sampling fields of generation_config.json; what is absent there is OpenAI's default.
struct SamplingDefaults {
  std::optional<float> temperature;
  std::optional<int32_t> top_k;
  std::optional<float> top_p;
  std::optional<float> min_p;
  std::optional<float> repetition_penalty;
  bool operator==(const SamplingDefaults&) const = default;
};

struct ModelFolder {
  std::string path;
  std::string name;  // The folder's own name; clients see it unless --served-model-name is given.
  std::string
      config_digest;  // Hex SHA-256 of config.json, overrides included; the workers have the same.
  int32_t vocab = 0;
  int32_t context_tokens = 0;  // max_position_embeddings.
  std::vector<TokenId>
      end_token_ids;  // generation_config.json's, else config.json's; ascending, each once.
  SamplingDefaults defaults;
  bool has_tokenizer = false;  // tokenizer.json is there; without it the router serves token ids.
};

// `overrides`: as the workers have them (modeling/config/model_config.h, ReadModelConfig).
absl::StatusOr<ModelFolder> ReadModelFolder(const std::string& path,
                                            std::string_view overrides = {});

}  // namespace fathom::router
