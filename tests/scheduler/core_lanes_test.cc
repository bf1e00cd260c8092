// Several plans in flight, in lanes: a sequence is in two plans at the same time only if its lane
// may have two plans in flight and the sequence's run-ahead allows it.
#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "tests/scheduler/core_harness.h"

namespace fathom::scheduler {
namespace {

struct Shape {
  int32_t plans;
  int32_t lanes;
  int32_t run_ahead_max;
  // 29: sequences are preempted. Results of the stay before then make tokens known, and a sequence
  // that must wait for its tokens waits for fewer. 257: none is preempted.
  int32_t blocks = 29;
};

// Random requests and a group that answers late. After each event it counts, for each sequence, the
// plans in flight that compute it and those that sample from it.
class LanesWorld {
 public:
  explicit LanesWorld(const Shape& shape)
      : shape_(shape),
        // The prompts are alike; with hits hardly one would be long enough for several chunks.
        harness_({.run_ahead_max = shape.run_ahead_max, .prefix_caching = false}),
        up_(harness_.UpEvent(LimitsOf(shape))),
        group_(up_),
        rng_(sim::TestSeed(7)) {
    harness_.Step(up_);
  }

  void Run(int32_t requests) {
    int32_t sent = 0;
    while (sent < requests || !in_flight_.empty()) {
      ++harness_.now;
      if (sent < requests && (in_flight_.empty() || rng_() % 4 == 0)) {
        const auto prompt = static_cast<int32_t>(1 + rng_() % 40);
        records_.push_back(MakeRecord("r" + std::to_string(sent++), prompt, 1 + rng_() % 12));
        ledgers_.emplace_back();
        Take(harness_.Submit(records_.back(), records_.size()));
      } else {
        const StepPlan plan = in_flight_.front().plan;
        in_flight_.pop_front();
        Take(harness_.Answer(group_, plan));
      }
    }
    for (size_t i = 0; i < records_.size(); ++i) {
      EXPECT_EQ(ledgers_[i].ids, Expected(records_[i])) << i;
    }
  }

  // The most plans that were in flight at one time, and that one sequence was in at one time.
  size_t plans_most() const { return plans_most_; }
  int32_t plans_of_one_most() const { return plans_of_one_most_; }
  CoreStats stats() const { return harness_.core.Stats(); }

 private:
  using Stay = std::pair<SlotId, int32_t>;  // A slot, and how often it was released before.
  struct InFlight {
    StepPlan plan;
    std::vector<std::pair<Stay, bool>> chunks;  // Whether each samples.
  };

  static GroupLimits LimitsOf(const Shape& shape) {
    GroupLimits limits = CoreHarness::Limits();
    limits.blocks = shape.blocks;
    limits.plans_in_flight = shape.plans;
    limits.lanes = shape.lanes;
    return limits;
  }

  void Take(const Actions& actions) {
    EXPECT_TRUE(actions.aborts.empty());
    for (size_t i = 0; i < ledgers_.size(); ++i) ledgers_[i].Take(actions, i + 1);
    for (const PlanOut& out : actions.plans) {
      InFlight& plan = in_flight_.emplace_back(InFlight{out.plan, {}});
      for (const SlotId slot : out.plan.releases) ++releases_[slot];
      for (const Chunk& chunk : out.plan.chunks) {
        plan.chunks.push_back({{chunk.slot, releases_[chunk.slot]}, chunk.sample});
      }
    }
    Check();
  }

  void Check() {
    plans_most_ = std::max(plans_most_, in_flight_.size());
    EXPECT_LE(in_flight_.size(), static_cast<size_t>(shape_.plans));
    std::map<Stay, int32_t> computed, sampled;
    for (const InFlight& plan : in_flight_) {
      for (const auto& [stay, sample] : plan.chunks) {
        plans_of_one_most_ = std::max(plans_of_one_most_, ++computed[stay]);
        if (sample) ++sampled[stay];
      }
    }
    const int32_t beside = (shape_.plans - 1) / shape_.lanes;  // In a lane, beside the first.
    for (const auto& [stay, plans] : computed) EXPECT_LE(plans, 1 + beside);
    for (const auto& [stay, plans] : sampled) {
      EXPECT_LE(plans, 1 + std::min(beside, shape_.run_ahead_max));
    }
  }

  const Shape shape_;
  CoreHarness harness_;
  const GroupUp up_;
  sim::FakeGroup group_;
  std::mt19937_64 rng_;
  std::vector<Record> records_;
  std::vector<Ledger> ledgers_;
  std::deque<InFlight> in_flight_;
  std::map<SlotId, int32_t> releases_;
  size_t plans_most_ = 0;
  int32_t plans_of_one_most_ = 0;
};

TEST(CoreLanes, ASequenceIsInTwoPlansOnlyWhereItsRunAheadAllowsIt) {
  for (const Shape& shape : std::vector<Shape>{{3, 3, 100},
                                               {5, 5, 100},
                                               {3, 2, 100},
                                               {5, 4, 100},
                                               {5, 4, 0, 257},
                                               {5, 2, 1, 257},
                                               {3, 1, 0, 257},
                                               {5, 1, 2, 257},
                                               {2, 1, 100},
                                               {1, 1, 100}}) {
    SCOPED_TRACE(fmt::format("FATHOM_SEED={}, {} plans, {} lanes, run-ahead {}", sim::TestSeed(7),
                             shape.plans, shape.lanes, shape.run_ahead_max));
    LanesWorld world(shape);
    world.Run(150);
    EXPECT_EQ(world.plans_most(), static_cast<size_t>(shape.plans));  // No lane stays empty.
    EXPECT_EQ(world.plans_of_one_most(), 1 + (shape.plans - 1) / shape.lanes);
    EXPECT_EQ(world.stats().preemptions_total > 0, shape.blocks == 29);
    EXPECT_EQ(world.stats().blocks_used, 0);
    EXPECT_EQ(world.stats().finished_total, 150u);
  }
}

// New sequences are spread over the lanes.
TEST(CoreLanes, EachLaneHasItsShareOfTheSequences) {
  CoreHarness harness;
  GroupLimits limits = CoreHarness::Limits();
  limits.plans_in_flight = 3;
  limits.lanes = 3;
  for (uint64_t i = 1; i <= 6; ++i) harness.Submit(MakeRecord("r" + std::to_string(i), 2, 9), i);
  const Actions actions = harness.Up(limits);
  ASSERT_EQ(actions.plans.size(), 3u);
  for (const PlanOut& out : actions.plans) EXPECT_EQ(out.plan.admits.size(), 2u);
}

TEST(CoreLanes, MoreLanesThanPlansAreRefused) {
  CoreHarness harness;
  GroupLimits limits = CoreHarness::Limits();
  limits.lanes = 3;
  const Actions actions = harness.Up(limits);
  ASSERT_EQ(actions.aborts.size(), 1u);
  EXPECT_EQ(actions.aborts[0].reason,
            "limits that no plan can keep to: 3 lanes for 2 plans in flight; there must be at "
            "least 1 lane and a plan for each");
}

}  // namespace
}  // namespace fathom::scheduler
