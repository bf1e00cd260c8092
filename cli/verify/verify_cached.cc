#include "cli/verify/verify_cached.h"

#include <algorithm>
#include <atomic>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "cli/commands.h"
#include "cli/verify/cached_rules.h"
#include "common/output.h"
#include "common/process.h"

namespace fathom::client {
namespace {

struct CachedOutcome {
  absl::Status status;
  std::vector<std::string> differences;
  int64_t prompt_tokens = 0;  // Of the two requests that may find something.
  int64_t cached_tokens = 0;  // Of these, in the cache.
};

const Usage& UsageOf(const Answer& answer) { return answer.sequences[0].finish->usage; }

absl::StatusOr<Answer> Ask(Client& client, GenerateRequest request, const std::string& salt,
                           bool enabled) {
  request.cache_salt = salt;
  request.cache_enabled = enabled;
  return client.Generate(request);
}

absl::Status RunCase(Client& client, const CachedCase& one, CachedOutcome* outcome) {
  const std::string salt = "verify-" + RandomId();  // Nothing is cached under it yet.
  const auto note = [&](const char* what, const Answer& got, const Answer& want) {
    if (const std::string difference = DifferenceOf(got, want); !difference.empty()) {
      outcome->differences.push_back(fmt::format("{}: {}", what, difference));
    }
    outcome->prompt_tokens += UsageOf(got).prompt_tokens;
    outcome->cached_tokens += UsageOf(got).cached_tokens;
  };
  FATHOM_ASSIGN_OR_RETURN(const Answer cold, Ask(client, one.first, salt, true));
  if (UsageOf(cold).cached_tokens != 0) {
    outcome->differences.push_back(
        fmt::format("{} tokens of a new salt are said to be cached", UsageOf(cold).cached_tokens));
  }
  FATHOM_ASSIGN_OR_RETURN(const Answer again, Ask(client, one.first, salt, true));
  note("the same prompt again", again, cold);
  const GenerateRequest next = NextTurn(one, cold);
  FATHOM_ASSIGN_OR_RETURN(const Answer turn, Ask(client, next, salt, true));
  FATHOM_ASSIGN_OR_RETURN(const Answer around, Ask(client, next, salt, false));
  note("the next turn", turn, around);
  return absl::OkStatus();
}

}  // namespace

int VerifyCached(Client& client, const Model& model, const CachedOptions& options) {
  const auto cases = MakeCachedCases(model, options.cases, options.seed);
  if (!cases.ok()) return Fail("verify", cases.status());
  std::vector<CachedOutcome> outcomes(cases->size());
  std::atomic<size_t> next_case = 0;
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < options.concurrency; ++i) {
      threads.emplace_back([&] {
        for (size_t at = next_case++; at < outcomes.size(); at = next_case++) {
          outcomes[at].status = RunCase(client, (*cases)[at], &outcomes[at]);
        }
      });
    }
  }
  size_t exact = 0;
  int64_t prompt_tokens = 0, cached_tokens = 0;
  bool unavailable = false;
  nlohmann::ordered_json failed = nlohmann::ordered_json::array();
  for (size_t i = 0; i < outcomes.size(); ++i) {
    CachedOutcome& outcome = outcomes[i];
    if (!outcome.status.ok()) outcome.differences.push_back(ToString(outcome.status));
    unavailable |= absl::IsUnavailable(outcome.status);
    exact += outcome.differences.empty() ? 1 : 0;
    prompt_tokens += outcome.prompt_tokens;
    cached_tokens += outcome.cached_tokens;
    if (outcome.differences.empty()) continue;
    failed.push_back({{"case", i}, {"differences", outcome.differences}});
    if (options.json) continue;
    for (const std::string& line : outcome.differences) PrintAnswer("case {}: {}\n", i, line);
  }
  const bool hits = cached_tokens > 0;
  if (options.json) {
    PrintAnswer("{}\n", nlohmann::ordered_json{{"rule", "cached"},
                                               {"passed", hits ? exact : 0},
                                               {"total", outcomes.size()},
                                               {"seed", options.seed},
                                               {"prompt_tokens", prompt_tokens},
                                               {"cached_tokens", cached_tokens},
                                               {"failed", failed}}
                            .dump());
  } else {
    PrintAnswer(
        "rule cached: tokens and the bits of log-probabilities equal those of a cold run (seed "
        "{})\n{} of {} exact; {} of {} prompt tokens came from the cache\n",
        options.seed, exact, outcomes.size(), cached_tokens, prompt_tokens);
    if (!hits) {
      PrintAnswer(
          "no token came from the cache, so nothing was shown: start the scheduler without "
          "--no-enable-prefix-caching, and give the KV pool room for several prompts\n");
    }
  }
  if (exact == outcomes.size() && hits) return kExitOk;
  return unavailable ? kExitUnavailable : kExitInternal;
}

}  // namespace fathom::client
