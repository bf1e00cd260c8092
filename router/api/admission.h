// router/api/admission.h: admission: checks a public request against every limit (those of one
// field are in field_limits.h) and makes an AdmittedRequest, which may be submitted without another
// check. The record of an AdmittedRequest alone decides the tokens. Pure. Errors: INVALID_ARGUMENT,
// NOT_FOUND (model) or UNIMPLEMENTED, each with ErrorDetail{reason, field}.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "cluster/request.h"
#include "common/status.h"
#include "common/trace_context.h"
#include "router/api/model_folder.h"
#include "text/guided/grammar_spec.h"

namespace fathom::router {

// What a request says about sampling besides the numbers of common/sampling_fields.h.
struct SamplingExtras {
  std::vector<std::pair<TokenId, float>> logit_bias;  // Ascending ids, each once.
  std::optional<uint64_t> seed;
  std::optional<int32_t> n;
  std::vector<std::string> bad_words = {};      // Texts that must not be generated.
  std::vector<TokenId> allowed_token_ids = {};  // Only these are generated; empty: all.
  // The tokens that the two forbid (forbidden_tokens.h); ascending, each once.
  std::vector<TokenId> forbidden_ids = {};
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

// How long the model may think (docs/API.md, "Thinking").
struct PublicThinking {
  // After so many tokens of reasoning the end of thinking is forced; absent: by `effort`.
  std::optional<int32_t> token_budget;
  std::string effort;  // "none", "minimal", "low", "medium", "high", "xhigh"; empty: not given.
};

struct PublicOutput {
  std::optional<int32_t> logprobs;
  std::optional<int32_t> prompt_logprobs;
  std::optional<bool> ids;
  std::optional<bool> text;
  bool keep_special = false;
};

// A request of Generate or of Chat, without its prompt. Admit gets the prompt as token ids.
// With whom the request shares keys and values of common first tokens (cluster/request.h).
struct PublicCache {
  std::optional<bool> enabled;  // Absent: true.
  std::string salt;
};

// What the output must follow, and the field that the client set, for errors.
struct PublicGuided {
  GrammarSpec spec;
  std::string field;
};

struct PublicRequest {
  std::string request_id;
  std::string idempotency_key;
  std::string model;
  PublicSampling sampling;
  PublicStop stop;
  PublicOutput output;
  int64_t deadline_ms = 0;          // 0: none.
  std::optional<int32_t> priority;  // Smaller is more urgent.
  PublicCache cache = {};
  PublicThinking thinking = {};
  std::optional<PublicGuided> guided = {};
};

// What decides admission besides the request.
struct ModelFacts {
  std::string name;  // The name under which clients know the model.
  int32_t vocab = 0;
  int32_t context_tokens = 0;  // The most tokens that prompt and output have together.
  int64_t pool_tokens = 0;     // The tokens that the KV pool of one group can hold.
  std::vector<TokenId> end_token_ids;
  RequestDefaults defaults;
  bool has_tokenizer = false;
  bool has_chat_template = false;
};

// The caller makes it (router/api/identity.h), because a random id would make admission impure.
struct Identity {
  SessionKey key;
  uint64_t seed = 0;
};

// How token ids become the client's text. These options are the router_blob of a Submit, so another
// router can continue the text.
struct TextOptions {
  std::vector<std::string> stop_strings;
  bool include_stop = false;
  bool keep_special = false;
  bool want_ids = true;
  bool want_text = true;
  bool chat = false;  // The client gets reasoning and text separately.
  // The forms of the answer (text/tool_call_form.h), by their names, in a chat. Reasoning: "none",
  // or empty in a blob of version 0.1, which knew one form. Calls: empty: none are looked for.
  std::string reasoning_form = {};
  std::string call_form = {};
  std::vector<std::string> tool_names = {};
  bool parallel_calls = true;  // false: one call at most.
  bool operator==(const TextOptions&) const = default;
};

struct AdmittedRequest {
  Record record;  // No sequences yet.
  TextOptions text;
  std::string idempotency_key;
  bool seed_given = false;
  bool max_tokens_given = false;  // Not given: max_tokens is the room at the time of admission.
  int64_t deadline_ms = 0;
  SpanContext trace = {};  // Decides nothing.
};

// The value of each parameter: the request's if it has one, else the model's, else OpenAI's.
SamplingParams ResolveSampling(const PublicSampling& sampling, const RequestDefaults& defaults);

// Checks each field by itself. It is cheap, so it runs before the prompt is tokenized.
absl::Status CheckFields(const PublicRequest& request, const ModelFacts& facts);

// Does the whole check; it calls CheckFields too.
absl::StatusOr<AdmittedRequest> Admit(const PublicRequest& request, std::vector<TokenId> prompt_ids,
                                      const ModelFacts& facts, const Identity& identity);

// OK if a prompt with at least `tokens_at_least` tokens may fit, else the INVALID_ARGUMENT of
// Admit. A long text that cannot fit is refused by this before time is spent on tokenizing it.
absl::Status CheckPromptMayFit(int64_t tokens_at_least, const ModelFacts& facts);

// INVALID_ARGUMENT (reason OUT_OF_RANGE) for the first id outside of the vocabulary.
absl::Status CheckTokenIds(const std::vector<TokenId>& ids, const ModelFacts& facts,
                           const char* field);

}  // namespace fathom::router
