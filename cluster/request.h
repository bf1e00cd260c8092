// cluster/request.h: a request as the cluster sees it after a router admitted it: token ids and
// resolved parameters, no text. Router, scheduler and worker share these types. The wire has the
// same fields (proto/cluster.proto); cluster/wire.h converts them.
//
// Invariant 1 (docs/ARCHITECTURE.md): a token is a function of (model, prompt ids, these
// parameters, grammar, seed, sequence, position, ids so far). If anything outside `Request` and the
// record's grammar influenced a token, a replay of the session would give other tokens.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/request_limits.h"
#include "common/sampling_fields.h"
#include "common/types.h"

namespace fathom {

// The effective values: the router resolved defaults (the request, else generation_config.json,
// else OpenAI's).
struct SamplingParams : SamplingValues {
  std::vector<std::pair<TokenId, float>> logit_bias;  // Ascending ids, each once; kLogitBiasMax.
  bool operator==(const SamplingParams&) const = default;
};

// The bias of a token that must never be drawn. It is far below every logit, and still finite after
// the division by the least temperature. The biases of a request are within 100 of 0.
inline constexpr float kSuppressedBias = -1e30f;

// When a sequence ends. The ids of a sequence include the token that ended it.
struct StopParams {
  int32_t max_tokens = 0;               // > 0; resolved by the router.
  int32_t min_tokens = 0;               // End and stop tokens are masked before this many tokens.
  std::vector<TokenId> end_token_ids;   // The model's (kEndTokensMax); none with ignore_eos.
  std::vector<TokenId> stop_token_ids;  // The request's (kStopTokensMax).
  bool operator==(const StopParams&) const = default;
};

// How long a sequence may think (kernels/thinking.h has the rule).
struct ThinkingParams {
  TokenId begin = -1;   // <think>
  TokenId end = -1;     // </think>; -1: there is no budget.
  int32_t budget = 0;   // Tokens of reasoning before `end` is forced.
  bool opened = false;  // The prompt ends inside the reasoning.
  bool operator==(const ThinkingParams&) const = default;
};

struct OutputParams {
  // The number of alternatives (at most kTopLogprobsMax) beside the token's log-probability; 0:
  // only the token's.
  std::optional<int32_t> logprobs;
  std::optional<int32_t> prompt_logprobs;  // The same for prompt tokens 1, 2, ...
  bool operator==(const OutputParams&) const = default;
};

struct Request {
  SamplingParams sampling;
  StopParams stop;
  OutputParams output;
  int32_t sequences = 1;  // n (kSequencesMax).
  ThinkingParams thinking = {};
  bool operator==(const Request&) const = default;
};

// The log-probability of one token by the raw logits, and the best alternatives (best first).
struct TokenLogprob {
  TokenId id = 0;
  float logprob = 0;
  std::vector<TokenId> top_ids;
  std::vector<float> top_logprobs;
  bool operator==(const TokenLogprob&) const = default;
};

// The log-probabilities of consecutive prompt tokens. `start` is the prompt position of the first
// one; it is at least 1, because token 0 has no log-probability.
struct PromptLogprobs {
  int32_t start = 0;
  std::vector<TokenLogprob> logprobs;
  bool operator==(const PromptLogprobs&) const = default;
};

enum class FinishReason {
  kNone,
  kEndToken,    // An end token of the model.
  kStopToken,   // One of the request's stop_token_ids.
  kStopString,  // The router ended the sequence with Close.
  kLength,      // max_tokens, or the end of the context.
  kDeadline,    // The request's deadline passed.
  kError,       // A fault of this sequence; the error has the details.
};

// "END_TOKEN", "LENGTH", ... for logs and metrics.
const char* FinishReasonName(FinishReason reason);

// What decides a token besides the record: equal kinds and equal requests give equal tokens. The
// fingerprint is a hash of it (modeling/checkpoint/model_digest.h).
struct ComputeKind {
  std::string model_digest;  // Of weights and effective configuration; empty: unknown.
  std::string dtype;         // Of the computation: "float32", "bfloat16", "float16".
  std::string device_kind;   // "cpu", "cuda-sm90".
  int32_t tp = 0;
  int32_t recipe = 0;  // docs/NUMERICS.md
  bool operator==(const ComputeKind&) const = default;
};

// Groups of this kind made the generated tokens from `position` on.
struct FingerprintSpan {
  int32_t position = 0;
  std::string fingerprint;
  ComputeKind kind = {};
  bool operator==(const FingerprintSpan&) const = default;
};

// One answer of the request. Its tokens depend on its index and on no other sequence: sequence i of
// a request for n sequences has the same tokens for every n > i.
struct SequenceRecord {
  std::vector<TokenId> ids;            // Generated so far; ids[i] is position i.
  std::vector<TokenLogprob> logprobs;  // One for each id if output.logprobs is set, else empty.
  FinishReason finish = FinishReason::kNone;
  std::vector<FingerprintSpan> fingerprints = {};  // In the order of their positions.
  bool operator==(const SequenceRecord&) const = default;
};

// The part of a kind that must not change within one answer: model, dtype and recipe. Groups that
// differ only in device kind or tensor parallelism compute the same model with other rounding. If
// the kind is unknown, the fingerprint takes its place, so it equals no other kind.
std::string ModelOf(const ComputeKind& kind, const std::string& fingerprint);
// "model 1234abcd, float32, recipe 2, cpu, tensor parallelism 1", for messages.
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

// With whom a request shares the keys and values of equal first tokens. It decides no token.
struct CacheParams {
  bool skip = false;  // Takes nothing from the prefix index and leaves nothing in it.
  std::string salt;   // Shares only with requests of its tenant that have this salt.
  bool operator==(const CacheParams&) const = default;
};

// What an output follows (guided output), as the grammar engine compiled it (text/guided). Only
// routers and workers read the bytes; a worker masks the tokens that may not come next.
struct Grammar {
  // Hex. Equal digests: equal grammars of equal vocabularies, so it stands for the grammar where
  // the tokens of two requests are compared.
  std::string digest;
  std::string vocabulary;  // Hex. Only workers of this vocabulary can follow it.
  std::string bytes;       // At most kGrammarBytesMax.
};

// A grammar, or none, that copies of a record and of a plan share.
class GrammarRef {
 public:
  GrammarRef() = default;
  explicit GrammarRef(Grammar grammar)
      : grammar_(std::make_shared<const Grammar>(std::move(grammar))) {}

  explicit operator bool() const { return grammar_ != nullptr; }
  // REQUIRES: there is one.
  const Grammar& operator*() const { return *grammar_; }
  const Grammar* operator->() const { return grammar_.get(); }
  // Empty: none.
  const std::string& digest() const {
    static const std::string none;
    return grammar_ ? grammar_->digest : none;
  }
  bool operator==(const GrammarRef& other) const { return digest() == other.digest(); }

 private:
  std::shared_ptr<const Grammar> grammar_;
};

// Everything that a process needs to continue a session (docs/ARCHITECTURE.md, "Any owner of a
// record").
struct Record {
  SessionKey key;
  std::string model;
  Request request;
  uint64_t seed = 0;
  std::vector<TokenId> prompt_ids;
  std::vector<SequenceRecord> sequences;  // request.sequences of them; empty in a first Submit.
  // With output.prompt_logprobs: those known so far; [i] is prompt position i + 1. A worker sends
  // them before the first token, so a record with a token has all of them.
  std::vector<TokenLogprob> prompt_logprobs;
  // Smaller is more urgent (vLLM's sense): the order of admission and of preemption. It decides no
  // token, so a repetition of the request may have another one; the first one counts.
  int32_t priority = 0;
  CacheParams cache = {};
  GrammarRef grammar = {};  // What each sequence follows. It decides tokens, as `request` does.
  bool operator==(const Record&) const = default;
};

// The last kind of group that computed a token of the record: of its first sequence that has one.
// All sequences of a request wait for groups of one kind, so that no answer is of two models.
// nullptr: none has one.
const FingerprintSpan* LastSpan(const Record& record);

struct Usage {
  int32_t prompt_tokens = 0;
  int32_t completion_tokens = 0;
  int32_t cached_tokens = 0;
  int32_t drafted_tokens = 0;         // Drafts that were checked for the sequence.
  int32_t accepted_draft_tokens = 0;  // Those of them that are tokens of the record.
  bool operator==(const Usage&) const = default;
};

}  // namespace fathom
