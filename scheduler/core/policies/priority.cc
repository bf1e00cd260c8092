// "priority": the more urgent class first; within a class first come, first served. A class counts
// as an arrival that is ten minutes later, so that a request that is less urgent waits no longer
// than that for each class, however many urgent ones come.
#include "scheduler/core/policies/policies.h"

namespace fathom::scheduler {
namespace {

class ByPriority final : public Policy {
 public:
  OrderKey Push(const SequenceFacts& facts, Moves* /*moves*/) override {
    waiting_.Add(facts, 1);
    return {facts.resumed ? 0 : 1, AgedArrival(facts, kStrictClassUs), facts.number};
  }
  void Pop(const SequenceFacts& facts, bool /*admitted*/, Moves* /*moves*/) override {
    waiting_.Add(facts, -1);
  }
  int32_t Ahead(const SequenceFacts& facts) const override {
    return waiting_.AtLeastAsUrgent(facts);
  }

 private:
  static constexpr int64_t kStrictClassUs = 600'000'000;
  ClassCounts waiting_;
};

}  // namespace

std::unique_ptr<Policy> MakePriority(const TenantTable* /*tenants*/) {
  return std::make_unique<ByPriority>();
}

}  // namespace fathom::scheduler
