#include "scheduler/core/policy.h"

namespace fathom::scheduler {
namespace {

OrderKey ByArrival(const SequenceFacts& facts) { return {0, facts.arrival_us, facts.number}; }

OrderKey ResumedThenArrival(const SequenceFacts& facts) {
  return {facts.resumed ? 0 : 1, facts.arrival_us, facts.number};
}

constexpr Policy kPolicies[] = {
    // First come, first served; the latest arrival makes room.
    {"fcfs", &ResumedThenArrival, &ByArrival},
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
