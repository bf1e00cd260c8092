// modeling/config/generation_config.h: the checked content of a model folder's
// generation_config.json. The router uses it for parameters that a request does not set. Then the
// session's record has every parameter, so workers never read this file. Pure: text in, values or a
// Status out; ReadGenerationConfig also reads the file. Any thread.
//
// Each key is used, harmless (generation_config.cc gives the reason), or refused by name with a way
// out (INVALID_ARGUMENT; main exits with 66). A number that in other programs means "filter off" is
// read as "off", and `notes` says so.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "common/sampling_fields.h"
#include "common/thinking_budgets.h"
#include "common/types.h"
#include "modeling/config/model_config.h"

namespace fathom {

inline constexpr char kOverrideGenerationFlag[] = "--override-generation-config";

// nullopt: the file does not set the parameter. Values are finite and valid in principle; only the
// router checks them against its limits for requests (router/api/model_folder.h).
struct GenerationConfig : SamplingOptions {  // temperature: 0 if do_sample is false.
  std::vector<TokenId> end_ids;
  std::optional<int32_t> min_new_tokens;
  std::vector<std::string> stop_strings;
  std::vector<TokenId> suppressed_ids;  // Never drawn; ascending, each once.
  ThinkingBudgets thinking_budgets;     // thinking_token_budgets, a key of this server alone.
  std::vector<std::string> notes;       // For the log: values that are read as another one.
  bool operator==(const GenerationConfig&) const = default;
};

// `overrides` is the text of --override-generation-config, a merge patch as in ReadModelConfig;
// empty: nothing is changed. REQUIRES: vocab > 0; ids are checked against it.
absl::StatusOr<GenerationConfig> ParseGenerationConfig(std::string_view json, int32_t vocab,
                                                       std::string_view overrides = {});

// Reads generation_config.json of a model folder. If there is no such file, or `model` is a
// configuration file, only the overrides count. Messages begin with the name of the file or of the
// flag.
absl::StatusOr<GenerationConfig> ReadGenerationConfig(const std::filesystem::path& model,
                                                      int32_t vocab,
                                                      std::string_view overrides = {});

// The ids that end a sequence: those of the generation configuration if it has any, else those of
// the model.
std::vector<TokenId> EndIds(const ModelConfig& config, const GenerationConfig& generation);

}  // namespace fathom
