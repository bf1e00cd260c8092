#include "client/verify_rules.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "client/vectors.h"

namespace fathom::client {
namespace {

constexpr int32_t kTokensPastEnd = 8;

class Comparer {
 public:
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

  // False: they differ too much.
  bool Logprob(const std::string& what, double got, double want) {
    const double difference = std::abs(got - want);
    if (difference <= kCpuLogprobTolerance) {
      result_.logprob_difference_max = std::max(result_.logprob_difference_max, difference);
      return true;
    }
    Differs("{} is {:.5f}, recorded {:.5f}: more than {} apart", what, got, want,
            kCpuLogprobTolerance);
    return false;
  }

  // Ranks agree in value; tokens agree except where neighbours are too close to be told apart.
  bool Top(const std::string& what, const TokenLogprob& got, const TopTokens& want) {
    if (got.top_ids.size() < want.ids.size()) {
      Differs("{} has {} tokens, recorded {}", what, got.top_ids.size(), want.ids.size());
      return false;
    }
    for (size_t rank = 0; rank < want.ids.size(); ++rank) {
      const std::string at = fmt::format("{}[{}]", what, rank);
      if (!Logprob(at, got.top_logprobs[rank], want.logprobs[rank])) return false;
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

  Comparison Take() { return std::move(result_); }

 private:
  Comparison result_;
};

void ComparePrompt(const Golden& golden, const Replay& replay, Comparer* compare) {
  if (!replay.tokenized) return;
  if (golden.conversation && golden.rendered) {
    compare->Text("rendered", replay.tokenized->rendered.value_or(""), *golden.rendered);
  }
  compare->Ids("prompt_ids", replay.tokenized->ids, golden.prompt_ids);
}

void CompareOutput(const Golden& golden, const SequenceResult& got, Comparer* compare) {
  compare->Ids("output_ids", got.ids, golden.output_ids);
  if (golden.logprobs.empty() || got.ids != golden.output_ids) return;
  if (got.logprobs.size() != golden.logprobs.size()) {
    compare->Differs("{} log-probabilities, recorded {}", got.logprobs.size(),
                     golden.logprobs.size());
    return;
  }
  for (size_t i = 0; i < golden.logprobs.size(); ++i) {
    if (!compare->Logprob(fmt::format("logprobs[{}]", i), got.logprobs[i].logprob,
                          golden.logprobs[i])) {
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
                          golden.prompt_logprobs[i + 1])) {
      return;
    }
  }
}

}  // namespace

Comparison CompareCpu(const Golden& golden, const Replay& replay) {
  Comparer compare;
  ComparePrompt(golden, replay, &compare);
  if (replay.decoded && golden.text) {
    compare.Text("text", *replay.decoded, *golden.text);
    // A conversation's stream parts reasoning and keeps tool markers; a plain text is streamed as
    // it is.
    if (!golden.conversation) {
      compare.Text("streamed text", replay.answer.sequences[0].text, *golden.text);
    }
  }
  CompareOutput(golden, replay.answer.sequences[0], &compare);
  ComparePromptLogprobs(golden, replay.answer.prompt_logprobs, &compare);
  return compare.Take();
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

}  // namespace fathom::client
