#include "cli/verify/verify_rules.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "cli/verify/vectors.h"

namespace fathom::client {
namespace {

constexpr int32_t kTokensPastEnd = 8;

class Comparer {
 public:
  explicit Comparer(double logprob_tolerance) : tolerance_(logprob_tolerance) {}

  void Text(const char* what, const std::string& got, const std::string& want) {
    if (got == want) return;
    Differs("{}: {}", what, TextDifference(got, want));
  }

  void Ids(const char* what, const std::vector<TokenId>& got, const std::vector<TokenId>& want) {
    if (got == want) return;
    const auto [g, w] = std::mismatch(got.begin(), got.end(), want.begin(), want.end());
    const auto show = [](auto it, auto end) {
      return it == end ? std::string("the end") : std::to_string(*it);
    };
    Differs("{}[{}] is {}, recorded {} (lengths {} and {})", what, g - got.begin(),
            show(g, got.end()), show(w, want.end()), got.size(), want.size());
  }

  // Returns false if the values differ too much.
  bool Logprob(const std::string& what, double got, double want, Distances* distances) {
    const double distance = std::abs(got - want);
    distances->Add(distance);
    if (distance <= tolerance_) return true;
    Differs("{} is {:.5f}, recorded {:.5f}: more than {} apart", what, got, want, tolerance_);
    return false;
  }

  // The values at each rank must agree. The tokens must agree, except where the values of
  // neighbours are too close to distinguish.
  bool Top(const std::string& what, const TokenLogprob& got, const TopTokens& want) {
    if (got.top_ids.size() < want.ids.size()) {
      Differs("{} has {} tokens, recorded {}", what, got.top_ids.size(), want.ids.size());
      return false;
    }
    for (size_t rank = 0; rank < want.ids.size(); ++rank) {
      const std::string at = fmt::format("{}[{}]", what, rank);
      if (!Logprob(at, got.top_logprobs[rank], want.logprobs[rank], &result_.alternatives)) {
        return false;
      }
      if (got.top_ids[rank] == want.ids[rank]) continue;
      const auto near = std::find(want.ids.begin(), want.ids.end(), got.top_ids[rank]);
      const double recorded =
          near == want.ids.end() ? want.logprobs.back() : want.logprobs[near - want.ids.begin()];
      if (std::abs(recorded - want.logprobs[rank]) <= 2 * kCpuLogprobTolerance) continue;
      Differs("{} is token {}, recorded {}", at, got.top_ids[rank], want.ids[rank]);
      return false;
    }
    return true;
  }

  template <class... Args>
  void Differs(fmt::format_string<Args...> text, Args&&... args) {
    result_.differences.push_back(fmt::format(text, std::forward<Args>(args)...));
  }

  Comparison* result() { return &result_; }
  Comparison Take() { return std::move(result_); }

 private:
  const double tolerance_;
  Comparison result_;
};

// Compares what does not depend on arithmetic.
void CompareTexts(const Golden& golden, const Replay& replay, Comparer* compare) {
  if (replay.tokenized) {
    if (golden.conversation && golden.rendered) {
      compare->Text("rendered", replay.tokenized->rendered.value_or(""), *golden.rendered);
    }
    compare->Ids("prompt_ids", replay.tokenized->ids, golden.prompt_ids);
  }
  if (replay.decoded && golden.text) compare->Text("text", *replay.decoded, *golden.text);
}

// The stream of a conversation separates reasoning and keeps tool markers. A plain text is streamed
// unchanged.
void CompareStreamedText(const Golden& golden, const Replay& replay, Comparer* compare) {
  if (!replay.decoded || !golden.text || golden.conversation) return;
  compare->Text("streamed text", replay.answer.sequences[0].text, *golden.text);
}

void CompareOutput(const Golden& golden, const SequenceResult& got, Comparer* compare) {
  compare->Ids("output_ids", got.ids, golden.output_ids);
  compare->result()->ids_equal = got.ids == golden.output_ids;
  if (golden.logprobs.empty() || got.ids != golden.output_ids) return;
  if (got.logprobs.size() != golden.logprobs.size()) {
    compare->Differs("{} log-probabilities, recorded {}", got.logprobs.size(),
                     golden.logprobs.size());
    return;
  }
  for (size_t i = 0; i < golden.logprobs.size(); ++i) {
    if (!compare->Logprob(fmt::format("logprobs[{}]", i), got.logprobs[i].logprob,
                          golden.logprobs[i], &compare->result()->outputs)) {
      return;  // One line is enough.
    }
    if (!golden.top.empty() &&
        !compare->Top(fmt::format("top5[{}]", i), got.logprobs[i], golden.top[i])) {
      return;
    }
  }
}

void ComparePromptLogprobs(const Golden& golden, const std::optional<PromptLogprobs>& got,
                           Comparer* compare) {
  if (golden.prompt_logprobs.size() < 2) return;
  const size_t count = got ? got->logprobs.size() : 0;
  if (count != golden.prompt_logprobs.size() - 1) {
    compare->Differs("{} log-probabilities of the prompt, recorded {}", count,
                     golden.prompt_logprobs.size() - 1);
    return;
  }
  for (size_t i = 0; i < count; ++i) {
    if (!compare->Logprob(fmt::format("prompt_logprobs[{}]", i + 1), got->logprobs[i].logprob,
                          golden.prompt_logprobs[i + 1], &compare->result()->prompts)) {
      return;
    }
  }
}

// If the gap was not recorded, another token is always a difference.
bool IsNearTie(const Golden& golden, size_t position) {
  return !golden.gaps.empty() && golden.gaps[position] <= kCudaNearTie;
}

// Equal up to the first near tie; after it another token may start another answer.
void CompareFreeRun(const Golden& golden, const std::vector<TokenId>& got, Comparer* compare) {
  compare->result()->ids_equal = got == golden.output_ids;
  size_t tie = 0;
  while (tie < golden.output_ids.size() && !IsNearTie(golden, tie)) ++tie;
  if (tie == golden.output_ids.size()) return compare->Ids("output_ids", got, golden.output_ids);
  const auto until_tie = [tie](const std::vector<TokenId>& ids) {
    return std::vector<TokenId>(ids.begin(), ids.begin() + std::min(tie, ids.size()));
  };
  compare->Ids("output_ids", until_tie(got), until_tie(golden.output_ids));
  if (got.size() == tie) compare->Differs("output_ids has {} tokens: none at the near tie", tie);
}

// Compares the recorded ids, scored as a prompt, so every position counts. Adds one line for the
// first wrong token and one for the first wrong log-probability; all distances are summed.
void CompareScored(const Golden& golden, const std::optional<PromptLogprobs>& scored,
                   Comparer* compare) {
  const size_t prompt = golden.prompt_ids.size(), outputs = golden.output_ids.size();
  const size_t count = scored ? scored->logprobs.size() : 0;
  if (count != prompt + outputs - 1 || scored->start != 1) {
    return compare->Differs("{} log-probabilities of the scored ids, expected {} from position 1",
                            count, prompt + outputs - 1);
  }
  bool tokens_good = true, logprobs_good = true;
  for (size_t i = 0; i < outputs; ++i) {
    const TokenLogprob& got = scored->logprobs[prompt + i - 1];
    if (got.top_ids.empty()) return compare->Differs("the scored ids have no best tokens");
    if (tokens_good && !IsNearTie(golden, i) && got.top_ids[0] != golden.output_ids[i]) {
      tokens_good = false;
      compare->Differs("the best token after {} recorded ones is {}, recorded {}{}", i,
                       got.top_ids[0], golden.output_ids[i],
                       golden.gaps.empty() ? "" : fmt::format(" by {:.3f}", golden.gaps[i]));
    }
    if (golden.logprobs.empty()) continue;
    Distances* distances = &compare->result()->outputs;
    if (!logprobs_good) {
      distances->Add(std::abs(got.logprob - golden.logprobs[i]));
    } else {
      logprobs_good = compare->Logprob(fmt::format("scored logprobs[{}]", i), got.logprob,
                                       golden.logprobs[i], distances);
    }
  }
  for (size_t i = 1; i < golden.prompt_logprobs.size(); ++i) {
    compare->result()->prompts.Add(
        std::abs(scored->logprobs[i - 1].logprob - golden.prompt_logprobs[i]));
  }
}

}  // namespace

const char* NameOf(VerifyRule rule) { return rule == VerifyRule::kCpu ? "cpu" : "cuda"; }

VerifyRule RuleFor(const Model& model) {
  const bool cuda = model.device.starts_with("cuda") && model.dtype != "float32";
  return cuda ? VerifyRule::kCuda : VerifyRule::kCpu;
}

Comparison CompareCpu(const Golden& golden, const Replay& replay) {
  Comparer compare(kCpuLogprobTolerance);
  CompareTexts(golden, replay, &compare);
  CompareStreamedText(golden, replay, &compare);
  CompareOutput(golden, replay.answer.sequences[0], &compare);
  ComparePromptLogprobs(golden, replay.answer.prompt_logprobs, &compare);
  return compare.Take();
}

Comparison CompareCuda(const Golden& golden, const Replay& replay) {
  Comparer compare(kCudaLogprobTolerance);
  CompareTexts(golden, replay, &compare);
  CompareFreeRun(golden, replay.answer.sequences[0].ids, &compare);
  if (compare.result()->ids_equal) CompareStreamedText(golden, replay, &compare);
  CompareScored(golden, replay.scored, &compare);
  return compare.Take();
}

std::vector<std::string> CheckMeansCuda(const Distances& outputs, const Distances& prompts) {
  std::vector<std::string> broken;
  const auto check = [&](const char* what, const Distances& distances, double bound) {
    if (distances.mean() <= bound) return;
    broken.push_back(
        fmt::format("log-probabilities of {} are {:.4f} from the recorded ones on average, more "
                    "than {}",
                    what, distances.mean(), bound));
  };
  check("outputs", outputs, kCudaOutputMeanMax);
  check("prompts", prompts, kCudaPromptMeanMax);
  return broken;
}

RequestOptions ReplayOptions(const Golden& golden, std::span<const TokenId> end_token_ids) {
  RequestOptions options;
  options.sampling.temperature = 0.0f;
  options.stop.ignore_eos = golden.fixture;
  const bool ends = !golden.fixture && std::find(end_token_ids.begin(), end_token_ids.end(),
                                                 golden.output_ids.back()) != end_token_ids.end();
  options.stop.max_tokens =
      static_cast<int32_t>(golden.output_ids.size()) + (ends ? kTokensPastEnd : 0);
  if (!golden.logprobs.empty()) {
    options.output.logprobs =
        golden.top.empty() ? 0 : static_cast<int32_t>(golden.top[0].ids.size());
  }
  if (!golden.prompt_logprobs.empty()) options.output.prompt_logprobs = 0;
  return options;
}

GenerateRequest ScoreRequest(const Golden& golden) {
  GenerateRequest request;
  request.sampling.temperature = 0.0f;
  request.stop.max_tokens = 1;
  request.stop.ignore_eos = true;
  request.output.prompt_logprobs = 1;
  std::vector<TokenId> ids = golden.prompt_ids;
  ids.insert(ids.end(), golden.output_ids.begin(), golden.output_ids.end());
  request.prompt = std::move(ids);
  return request;
}

}  // namespace fathom::client
