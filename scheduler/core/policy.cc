#include "scheduler/core/policy.h"

namespace fathom::scheduler {
namespace {

OrderKey ByArrival(const SequenceFacts& facts) { return {0, facts.arrival_us, facts.number}; }

// First come, first served; the latest arrival makes room.
class FirstComeFirstServed final : public Policy {
 public:
  OrderKey Push(const SequenceFacts& facts) override {
    return {facts.resumed ? 0 : 1, facts.arrival_us, facts.number};
  }
  OrderKey EvictionOrder(const SequenceFacts& facts) const override { return ByArrival(facts); }
};

// Short requests overtake longer ones that have not started; the latest arrival makes room.
class ShortestFirst final : public Policy {
 public:
  OrderKey Push(const SequenceFacts& facts) override {
    const int64_t tokens = int64_t{facts.prompt_tokens} + facts.max_tokens;
    return {facts.resumed ? 0 : 1, facts.arrival_us + tokens * kTokenUs, facts.number};
  }
  OrderKey EvictionOrder(const SequenceFacts& facts) const override { return ByArrival(facts); }

 private:
  // Each token of a request counts as this much later an arrival: a long request is overtaken
  // only by those that come within its own length, so that every one has its turn.
  static constexpr TimeUs kTokenUs = 1000;
};

template <class P>
std::unique_ptr<Policy> Make() {
  return std::make_unique<P>();
}

constexpr PolicyRow kPolicies[] = {
    {"fcfs", &Make<FirstComeFirstServed>},
    {"shortest-first", &Make<ShortestFirst>},
};

}  // namespace

std::span<const PolicyRow> Policies() { return kPolicies; }

std::unique_ptr<Policy> MakePolicy(std::string_view name) {
  for (const PolicyRow& row : kPolicies) {
    if (row.name == name) return row.make();
  }
  return nullptr;
}

}  // namespace fathom::scheduler
