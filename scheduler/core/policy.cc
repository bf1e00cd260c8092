#include "scheduler/core/policy.h"

#include <algorithm>
#include <limits>

#include "scheduler/core/policies/policies.h"

namespace fathom::scheduler {
namespace {

constexpr PolicyRow kPolicies[] = {
    {"fcfs", "", &MakeFcfs},
    {"fair", "fair-share", &MakeFair},
    {"priority", "", &MakePriority},
    {"shortest-prompt", "shortest-first", &MakeShortestPrompt},
};

}  // namespace

OrderKey Policy::EvictionOrder(const SequenceFacts& facts) const { return PreemptionOrder(facts); }

OrderKey PreemptionOrder(const SequenceFacts& facts) {
  const bool spared = facts.preemptions >= kPreemptionsMax;
  return {spared ? std::numeric_limits<int64_t>::min() : facts.priority, facts.arrival_us,
          facts.number};
}

int32_t ClassOf(const SequenceFacts& facts) {
  return std::clamp(facts.priority, -kClassMax, kClassMax);
}

TimeUs AgedArrival(const SequenceFacts& facts, int64_t class_us) {
  return facts.arrival_us + ClassOf(facts) * class_us;
}

void ClassCounts::Add(const SequenceFacts& facts, int32_t sign) {
  const auto count = counts_.try_emplace(ClassOf(facts), 0).first;
  count->second += sign;
  if (count->second == 0) counts_.erase(count);
}

int32_t ClassCounts::AtLeastAsUrgent(const SequenceFacts& facts) const {
  int32_t sum = 0;
  for (const auto& [at, count] : counts_) {
    if (at > ClassOf(facts)) break;
    sum += count;
  }
  return sum;
}

std::span<const PolicyRow> Policies() { return kPolicies; }

std::unique_ptr<Policy> MakePolicy(std::string_view name, const TenantTable* tenants) {
  for (const PolicyRow& row : kPolicies) {
    if (name == row.name || (name == row.old_name && !name.empty())) return row.make(tenants);
  }
  return nullptr;
}

}  // namespace fathom::scheduler
