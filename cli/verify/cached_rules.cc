#include "cli/verify/cached_rules.h"

#include <algorithm>
#include <bit>
#include <random>

namespace fathom::client {
namespace {

constexpr int64_t kPromptMax = 700;
constexpr int64_t kPromptMin = 96;  // More than the 64 tokens of a block on a GPU.
constexpr int32_t kAnswer = 48;     // The next turn finds whole blocks of answers too.
constexpr int32_t kMore = 16;

std::vector<TokenId> DrawIds(std::mt19937_64& rng, int64_t count, int32_t vocab) {
  std::vector<TokenId> ids(static_cast<size_t>(count));
  for (TokenId& id : ids) id = static_cast<TokenId>(rng() % static_cast<uint64_t>(vocab));
  return ids;
}

bool SameBits(float a, float b) { return std::bit_cast<uint32_t>(a) == std::bit_cast<uint32_t>(b); }

bool SameBits(const TokenLogprob& a, const TokenLogprob& b) {
  return a.id == b.id && SameBits(a.logprob, b.logprob) && a.top_ids == b.top_ids &&
         std::ranges::equal(a.top_logprobs, b.top_logprobs,
                            [](float x, float y) { return SameBits(x, y); });
}

}  // namespace

absl::StatusOr<std::vector<CachedCase>> MakeCachedCases(const Model& model, int32_t count,
                                                        uint64_t seed) {
  int64_t longest = std::min<int64_t>(kPromptMax, model.context_tokens - 2 * kAnswer - kMore);
  if (model.pool_tokens > 0)
    longest = std::min<int64_t>(longest, model.pool_tokens - 2 * kAnswer - kMore);
  if (longest < kPromptMin) {
    return FailedPrecondition(
        "a context of {} tokens and a KV pool of {} have no room for a prompt of {} and two "
        "answers "
        "of {}; start the cluster with a larger --max-model-len or --kv-cache-memory",
        model.context_tokens, model.pool_tokens, kPromptMin, kAnswer);
  }
  std::mt19937_64 rng(seed);
  std::vector<CachedCase> cases(static_cast<size_t>(count));
  for (CachedCase& one : cases) {
    const auto spread = static_cast<uint64_t>(longest - kPromptMin + 1);
    const auto tokens = kPromptMin + static_cast<int64_t>(rng() % spread);
    one.first.prompt = DrawIds(rng, tokens, model.vocab);
    one.more = DrawIds(rng, kMore, model.vocab);
    one.first.sampling.temperature = 0.8f;
    one.first.sampling.seed = rng();
    one.first.stop.max_tokens = kAnswer;
    one.first.stop.ignore_eos = true;
    one.first.output.logprobs = 5;
  }
  return cases;
}

GenerateRequest NextTurn(const CachedCase& one, const Answer& answer) {
  GenerateRequest next = one.first;
  auto& prompt = std::get<std::vector<TokenId>>(next.prompt);
  const std::vector<TokenId>& ids = answer.sequences[0].ids;
  prompt.insert(prompt.end(), ids.begin(), ids.end());
  prompt.insert(prompt.end(), one.more.begin(), one.more.end());
  return next;
}

std::string DifferenceOf(const Answer& got, const Answer& want) {
  if (got.started.fingerprint != want.started.fingerprint) {
    return fmt::format("computed by {}, the other by {}: groups of two kinds compute other bits",
                       got.started.fingerprint, want.started.fingerprint);
  }
  const SequenceResult &a = got.sequences[0], &b = want.sequences[0];
  if (a.ids.size() != b.ids.size() || a.logprobs.size() != b.logprobs.size()) {
    return fmt::format("{} tokens with {} log-probabilities, the other {} with {}", a.ids.size(),
                       a.logprobs.size(), b.ids.size(), b.logprobs.size());
  }
  for (size_t i = 0; i < a.ids.size(); ++i) {
    if (a.ids[i] != b.ids[i]) return fmt::format("token {} is {}, not {}", i, a.ids[i], b.ids[i]);
    if (i < a.logprobs.size() && !SameBits(a.logprobs[i], b.logprobs[i])) {
      return fmt::format("the log-probabilities of token {} differ ({} and {})", i,
                         a.logprobs[i].logprob, b.logprobs[i].logprob);
    }
  }
  return {};
}

}  // namespace fathom::client
