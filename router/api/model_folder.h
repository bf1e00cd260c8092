// router/api/model_folder.h: what a router needs of a model folder: config.json,
// generation_config.json (both read by modeling/config, as workers do) and whether there is a
// tokenizer. Weights are the worker's. Pure besides reading the files. Errors: INVALID_ARGUMENT or
// NOT_FOUND naming file, key, found, expected and the way out (exit 66 in main).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/sampling_fields.h"
#include "common/status.h"
#include "common/types.h"

namespace fathom::router {

// What holds where a request says nothing: generation_config.json's values, within this server's
// limits for a request (field_limits.h). What is absent here is OpenAI's default.
struct RequestDefaults : SamplingOptions {
  int32_t min_tokens = 0;  // Never more than a request's max_tokens or the room that it has.
  std::vector<std::string> stop_strings;
  std::vector<TokenId> suppressed_ids;  // Of every request; ascending, each once.
  bool operator==(const RequestDefaults&) const = default;
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
  RequestDefaults defaults;
  std::vector<std::string> notes;  // Values of generation_config.json that are read as another one.
  bool has_tokenizer = false;  // tokenizer.json is there; without it the router serves token ids.
};

// `overrides`: as the workers have them (modeling/config/model_config.h, ReadModelConfig);
// `generation_overrides`: the text of --override-generation-config; empty: nothing is changed.
absl::StatusOr<ModelFolder> ReadModelFolder(const std::string& path,
                                            std::string_view overrides = {},
                                            std::string_view generation_overrides = {});

}  // namespace fathom::router
