// "fcfs": first come, first served, with a class of priority as an arrival that is 10 s later.
#include "scheduler/core/policies/policies.h"

namespace fathom::scheduler {
namespace {

class FirstComeFirstServed final : public Policy {
 public:
  OrderKey Push(const SequenceFacts& facts, Moves* /*moves*/) override {
    waiting_.Add(facts, 1);
    return {facts.resumed ? 0 : 1, AgedArrival(facts), facts.number};
  }
  void Pop(const SequenceFacts& facts, bool /*admitted*/, Moves* /*moves*/) override {
    waiting_.Add(facts, -1);
  }
  int32_t Ahead(const SequenceFacts& facts) const override {
    return waiting_.AtLeastAsUrgent(facts);
  }

 private:
  ClassCounts waiting_;
};

}  // namespace

std::unique_ptr<Policy> MakeFcfs(const TenantTable* /*tenants*/) {
  return std::make_unique<FirstComeFirstServed>();
}

}  // namespace fathom::scheduler
