// worker/speculative_config.h: what the flags of speculative decoding ask for: one JSON object as
// vLLM takes it, or a flag for each value. Pure; any thread.
#pragma once

#include <cstdint>
#include <string>

#include "common/status.h"

namespace fathom::worker {

enum class SpeculativeMethod { kNone, kNgram, kDraft };

struct SpeculativeConfig {
  SpeculativeMethod method = SpeculativeMethod::kNone;
  int32_t draft_tokens = 0;  // Drafts of a row, at most kDraftsMax; 0 with kNone.
  // kNgram: the suffixes of the text that are looked up.
  int32_t lookup_min = 0;
  int32_t lookup_max = 0;
  std::string model;  // kDraft: the folder of the draft model.
  bool operator==(const SpeculativeConfig&) const = default;
};

// The values of the flags; empty and 0: not given.
struct SpeculativeFlags {
  std::string config;  // --speculative-config
  std::string method;  // --speculative-method
  std::string model;   // --speculative-model
  int32_t tokens = 0;  // --num-speculative-tokens
};

// The keys of the JSON object: method (ngram, draft, or vLLM's draft_model), model,
// num_speculative_tokens, prompt_lookup_min, prompt_lookup_max. Without a method it is draft if
// there is a model. INVALID_ARGUMENT names the key or flag, its value and what is allowed.
absl::StatusOr<SpeculativeConfig> ReadSpeculativeConfig(const SpeculativeFlags& flags);

// "ngram of 2 to 4 tokens, 4 drafts", for logs, and for the comparison of the ranks of a group,
// which must propose alike. Empty with kNone. `model_digest`: of the draft model's weights.
std::string Describe(const SpeculativeConfig& config, const std::string& model_digest = {});

}  // namespace fathom::worker
