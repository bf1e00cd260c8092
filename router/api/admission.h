// router/api/admission.h: turns a public request into an admitted one, or says exactly why not.
// Pure. Every limit a user can meet is here or in field_limits.h. The result is a proof: what was
// admitted may be submitted, and the record alone decides the tokens. Errors: INVALID_ARGUMENT,
// NOT_FOUND (model) or UNIMPLEMENTED, each with ErrorDetail{reason, field}.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cluster/request.h"
#include "common/status.h"
#include "router/api/model_folder.h"

namespace fathom::router {

// What a request says about sampling besides the numbers of common/sampling_fields.h.
struct SamplingExtras {
  std::vector<std::pair<TokenId, float>> logit_bias;  // Ascending ids, each once.
  std::optional<uint64_t> seed;
  std::optional<int32_t> n;
};
struct PublicSampling : SamplingOptions, SamplingExtras {};

struct PublicStop {
  std::optional<int32_t> max_tokens;
  std::optional<int32_t> min_tokens;
  std::vector<std::string> strings;
  std::vector<TokenId> token_ids;
  bool ignore_eos = false;
  bool include_stop = false;
};

struct PublicOutput {
  std::optional<int32_t> logprobs;
  std::optional<int32_t> prompt_logprobs;
  std::optional<bool> ids;
  std::optional<bool> text;
  bool keep_special = false;
};

// Generate and Chat alike, without the prompt: that is token ids by the time of Admit.
struct PublicRequest {
  std::string request_id;
  std::string idempotency_key;
  std::string model;
  PublicSampling sampling;
  PublicStop stop;
  PublicOutput output;
  int64_t deadline_ms = 0;  // 0: none.
};

// What decides admission besides the request.
struct ModelFacts {
  std::string name;  // Served.
  int32_t vocab = 0;
  int32_t context_tokens = 0;  // Longest prompt + output.
  int64_t pool_tokens = 0;     // Of one group's whole KV cache.
  std::vector<TokenId> end_token_ids;
  RequestDefaults defaults;
  bool has_tokenizer = false;
  bool has_chat_template = false;
};

// Drawn by the caller (router/api/identity.h), so that admission has no randomness.
struct Identity {
  SessionKey key;
  uint64_t seed = 0;
};

// What turns ids into the client's text; it travels in the router_blob of a Submit.
struct TextOptions {
  std::vector<std::string> stop_strings;
  bool include_stop = false;
  bool keep_special = false;
  bool want_ids = true;
  bool want_text = true;
  bool chat = false;  // Reasoning and text are told apart.
  bool operator==(const TextOptions&) const = default;
};

struct AdmittedRequest {
  Record record;  // No sequences yet.
  TextOptions text;
  std::string idempotency_key;
  bool seed_given = false;
  bool max_tokens_given = false;  // Else it is what fitted when the request was admitted.
  int64_t deadline_ms = 0;
};

// The request's values, else the model's, else OpenAI's.
SamplingParams ResolveSampling(const PublicSampling& sampling, const RequestDefaults& defaults);

// Each field by itself, before anything is tokenized: cheap, and early for the user.
absl::Status CheckFields(const PublicRequest& request, const ModelFacts& facts);

// The whole check. Calls CheckFields too.
absl::StatusOr<AdmittedRequest> Admit(const PublicRequest& request, std::vector<TokenId> prompt_ids,
                                      const ModelFacts& facts, const Identity& identity);

// Whether a prompt that has at least so many tokens may fit; else INVALID_ARGUMENT as Admit gives.
// For texts that are too long to be tokenized in vain.
absl::Status CheckPromptMayFit(int64_t tokens_at_least, const ModelFacts& facts);

// INVALID_ARGUMENT (reason OUT_OF_RANGE) for the first id that is not of the vocabulary.
absl::Status CheckTokenIds(const std::vector<TokenId>& ids, const ModelFacts& facts,
                           const char* field);

}  // namespace fathom::router
