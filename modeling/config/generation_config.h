// modeling/config/generation_config.h: what a model folder's generation_config.json says, checked.
// It holds what a router takes where a request says nothing; the record then decides the tokens,
// so that workers never read this file. Pure: text in, values or a Status out; Read...() beside
// them reads the file. Any thread.
//
// Each key is honoured, harmless (the reason stands in the list of generation_config.cc), or
// refused by name with the way out (INVALID_ARGUMENT; main exits 66). A number that only switches a
// filter off under another name is read as "off", and `notes` says so.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "common/types.h"
#include "modeling/config/model_config.h"

namespace fathom::worker {

inline constexpr char kOverrideGenerationFlag[] = "--override-generation-config";

// nullopt: the file says nothing. Values are finite and meaningful, but only the router knows its
// limits for a request (router/api/model_folder.h).
struct GenerationConfig {
  std::vector<TokenId> end_ids;
  std::optional<float> temperature;  // 0 where do_sample is false.
  std::optional<int32_t> top_k;      // 0: off.
  std::optional<float> top_p;        // Above 0; 1: off.
  std::optional<float> min_p;
  std::optional<float> repetition_penalty;  // Above 0.
  std::optional<float> presence_penalty;
  std::optional<float> frequency_penalty;
  std::optional<int32_t> min_new_tokens;
  std::vector<std::string> stop_strings;
  std::vector<TokenId> suppressed_ids;  // May never be drawn; ascending, each once.
  std::vector<std::string> notes;       // Values that are read as another one, for the log.
  bool operator==(const GenerationConfig&) const = default;
};

// `overrides` is the text of --override-generation-config, a merge patch as of ReadModelConfig;
// empty: nothing is changed.
// REQUIRES: vocab > 0; ids are checked against it.
absl::StatusOr<GenerationConfig> ParseGenerationConfig(std::string_view json, int32_t vocab,
                                                       std::string_view overrides = {});

// generation_config.json of a model folder; the overrides alone where there is no such file, or
// where `model` is a configuration file. Messages begin with the file's name or the flag's.
absl::StatusOr<GenerationConfig> ReadGenerationConfig(const std::filesystem::path& model,
                                                      int32_t vocab,
                                                      std::string_view overrides = {});

// The ids that end a sequence: the generation configuration's if it names any, else the model's.
std::vector<TokenId> EndIds(const ModelConfig& config, const GenerationConfig& generation);

}  // namespace fathom::worker
