#include "scheduler/core/policy.h"

namespace fathom::scheduler {
namespace {

OrderKey ByArrival(const SequenceFacts& facts) { return {0, facts.arrival_us, facts.number}; }

OrderKey ResumedThenArrival(const SequenceFacts& facts) {
  return {facts.resumed ? 0 : 1, facts.arrival_us, facts.number};
}

// Each token of a request counts as this much later an arrival: a long request is overtaken
// only by those that come within its own length, so nobody starves.
constexpr TimeUs kTokenUs = 1000;

OrderKey ResumedThenShortest(const SequenceFacts& facts) {
  const int64_t tokens = int64_t{facts.prompt_tokens} + facts.max_tokens;
  return {facts.resumed ? 0 : 1, facts.arrival_us + tokens * kTokenUs, facts.number};
}

constexpr Policy kPolicies[] = {
    // First come, first served; the latest arrival makes room.
    {"fcfs", &ResumedThenArrival, &ByArrival},
    // Short requests overtake longer ones that have not started; the latest arrival makes room.
    {"shortest-first", &ResumedThenShortest, &ByArrival},
};

}  // namespace

std::span<const Policy> Policies() { return kPolicies; }

const Policy* FindPolicy(std::string_view name) {
  for (const Policy& policy : kPolicies) {
    if (policy.name == name) return &policy;
  }
  return nullptr;
}

}  // namespace fathom::scheduler
