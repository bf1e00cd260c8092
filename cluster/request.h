// cluster/request.h: a request as the cluster sees it, after a router admitted it: token ids and
// resolved parameters, no text. Router, scheduler and worker share these types; the wire has the
// same fields (proto/cluster.proto), converted in cluster/wire.h.
//
// Invariant 1 (docs/ARCHITECTURE.md): a token is a function of (model, prompt ids, these
// parameters, seed, sequence, position, ids so far). Nothing outside `Request` may influence one.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/request_limits.h"
#include "common/types.h"

namespace fathom {

// Effective values: defaults were resolved by the router (request, else generation_config.json,
// else OpenAI's). The order of operations is docs/NUMERICS.md, "Sampler".
struct SamplingParams {
  float temperature = 1.0f;                           // 0: argmax.
  int32_t top_k = 0;                                  // 0: off.
  float top_p = 1.0f;                                 // 1: off.
  float min_p = 0.0f;                                 // 0: off.
  float repetition_penalty = 1.0f;                    // 1: off. Counts prompt and output.
  float presence_penalty = 0.0f;                      // Output only.
  float frequency_penalty = 0.0f;                     // Output only.
  std::vector<std::pair<TokenId, float>> logit_bias;  // Ascending, each once; kLogitBiasMax.
  bool operator==(const SamplingParams&) const = default;
};

// The bias of a token that may never be drawn: far below every logit, and finite after the division
// by the least temperature. A request's own biases lie within 100 of 0.
inline constexpr float kSuppressedBias = -1e30f;

// When a sequence ends by itself. A token that ends a sequence is part of its ids.
struct StopParams {
  int32_t max_tokens = 0;  // > 0: resolved by the router.
  int32_t min_tokens = 0;  // Before this many tokens, end and stop tokens are masked (logit -inf).
  std::vector<TokenId> end_token_ids;   // The model's (kEndTokensMax); none with ignore_eos.
  std::vector<TokenId> stop_token_ids;  // The request's (kStopTokensMax).
  bool operator==(const StopParams&) const = default;
};

struct OutputParams {
  std::optional<int32_t>
      logprobs;  // Top-n (kTopLogprobsMax) beside the token's log-probability; 0 = only that.
  std::optional<int32_t> prompt_logprobs;  // The same for prompt tokens 1...
  bool operator==(const OutputParams&) const = default;
};

struct Request {
  SamplingParams sampling;
  StopParams stop;
  OutputParams output;
  int32_t sequences = 1;  // n (kSequencesMax).
  bool operator==(const Request&) const = default;
};

// Log-probability of one token by the raw logits, with the best alternatives (best first).
struct TokenLogprob {
  TokenId id = 0;
  float logprob = 0;
  std::vector<TokenId> top_ids;
  std::vector<float> top_logprobs;
  bool operator==(const TokenLogprob&) const = default;
};

// Consecutive prompt tokens' log-probabilities; `start` is the prompt position of the first (1 or
// more, for token 0 has none).
struct PromptLogprobs {
  int32_t start = 0;
  std::vector<TokenLogprob> logprobs;
  bool operator==(const PromptLogprobs&) const = default;
};

enum class FinishReason {
  kNone,
  kEndToken,    // A model's end token.
  kStopToken,   // One of the request's stop_token_ids.
  kStopString,  // The router cut it by Close.
  kLength,      // max_tokens, or the context's end.
  kDeadline,    // The request's deadline passed.
  kError,       // A fault of this sequence; the error says which.
};

// "END_TOKEN", "LENGTH", ... for logs and metrics.
const char* FinishReasonName(FinishReason reason);

struct SequenceRecord {
  std::vector<TokenId> ids;            // Generated so far; positions 0...
  std::vector<TokenLogprob> logprobs;  // One per id when output.logprobs is set, else empty.
  FinishReason finish = FinishReason::kNone;
  bool operator==(const SequenceRecord&) const = default;
};

// What decides a token beside the record: equal kinds and equal requests give equal tokens. The
// fingerprint is the hash of it (modeling/checkpoint/model_digest.h).
struct ComputeKind {
  std::string model_digest;  // Of weights and effective configuration; empty: not known.
  std::string dtype;         // Of computing: "float32", "bfloat16", "float16".
  std::string device_kind;   // "cpu", "cuda-sm90".
  int32_t tp = 0;
  int32_t recipe = 0;  // docs/NUMERICS.md
  bool operator==(const ComputeKind&) const = default;
};

// From `position` (of the generated tokens) on, groups of this kind made the tokens.
struct FingerprintSpan {
  int32_t position = 0;
  std::string fingerprint;
  ComputeKind kind = {};
  bool operator==(const FingerprintSpan&) const = default;
};

// What must stay the same within one answer: model, dtype and recipe. Groups that differ only in
// device kind or tensor parallelism compute the same model, with other rounding. A kind that is not
// known stands for itself alone, by its fingerprint.
std::string ModelOf(const ComputeKind& kind, const std::string& fingerprint);
// "model 1234abcd, float32, recipe 2, cpu, tensor parallelism 1"; for messages.
std::string ToText(const ComputeKind& kind);

struct SessionKey {
  std::string tenant;
  std::string request_id;
  auto operator<=>(const SessionKey&) const = default;
  template <typename H>
  friend H AbslHashValue(H h, const SessionKey& key) {
    return H::combine(std::move(h), key.tenant, key.request_id);
  }
};

// All that is needed to go on with a session anywhere (docs/ARCHITECTURE.md, "Any owner is
// enough").
struct Record {
  SessionKey key;
  std::string model;
  Request request;
  uint64_t seed = 0;
  std::vector<TokenId> prompt_ids;
  std::vector<SequenceRecord> sequences;  // request.sequences of them; empty in a first Submit.
  std::vector<FingerprintSpan> fingerprints;
  // With output.prompt_logprobs: those known so far; [i] is prompt position i + 1. A worker sends
  // them before the first token, so that a record with a token has all of them.
  std::vector<TokenLogprob> prompt_logprobs;
  bool operator==(const Record&) const = default;
};

struct Usage {
  int32_t prompt_tokens = 0;
  int32_t completion_tokens = 0;
  int32_t cached_tokens = 0;
  bool operator==(const Usage&) const = default;
};

// Where one sequence's time went, stamped by the scheduler's clock; durations in microseconds.
struct SequenceTimings {
  int64_t queue_us = 0;     // Submit to (last) admission.
  int64_t prefill_us = 0;   // Admission to first token.
  int64_t decode_us = 0;    // First token to last.
  int32_t suspensions = 0;  // Preempted, lost worker or new leader.
  bool operator==(const SequenceTimings&) const = default;
};

}  // namespace fathom
