// router/api/model_folder.h: what a router needs from a model folder: config.json,
// generation_config.json (modeling/config reads both, as in the workers) and whether a tokenizer
// exists. The router never reads weights. Errors: INVALID_ARGUMENT or NOT_FOUND with the file, the
// key, what was found, what is expected and what to do (exit code 66 in main).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/sampling_fields.h"
#include "common/status.h"
#include "common/thinking_budgets.h"
#include "common/types.h"

namespace fathom::router {

// The values of generation_config.json, which are used if a request gives none. They are within the
// limits of a request (field_limits.h). If a value is absent here too, OpenAI's default is used.
struct RequestDefaults : SamplingOptions {
  int32_t min_tokens = 0;  // Admission lowers it to the request's max_tokens.
  std::vector<std::string> stop_strings;
  std::vector<TokenId> suppressed_ids;  // Never generated, in any request; ascending, each once.
  bool operator==(const RequestDefaults&) const = default;
};

struct ModelFolder {
  std::string path;
  std::string name;  // The folder's own name; clients see it unless --served-model-name is given.
  // Hex SHA-256 of config.json, overrides included. The workers must have the same digest.
  std::string config_digest;
  int32_t vocab = 0;
  int32_t context_tokens = 0;  // max_position_embeddings.
  // From generation_config.json, else from config.json; ascending, each once.
  std::vector<TokenId> end_token_ids;
  RequestDefaults defaults;
  ThinkingBudgets thinking;  // thinking_token_budgets of generation_config.json.
  // For the log: values of generation_config.json that this server replaces by others.
  std::vector<std::string> notes;
  // tokenizer.json exists. Without it the router serves token ids only.
  bool has_tokenizer = false;
};

// `overrides`: the text of --hf-overrides, which must equal the workers' (ReadModelConfig in
// modeling/config/model_config.h). `generation_overrides`: the text of
// --override-generation-config. Empty: nothing is changed.
absl::StatusOr<ModelFolder> ReadModelFolder(const std::string& path,
                                            std::string_view overrides = {},
                                            std::string_view generation_overrides = {});

}  // namespace fathom::router
