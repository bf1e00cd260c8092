// A group of several stages as threads: the answering rank gives the results of a group of one
// stage, to the last bit, for random plans and for faults.
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tests/worker/engine_world.h"
#include "tests/worker/random_run.h"
#include "worker/comm/shm_comm.h"
#include "worker/comm/shm_stages.h"
#include "worker/engine/samples_needed.h"

namespace fathom::worker {
namespace {

// One rank with its own cache, links and engine.
struct StageRank {
  StageRank(const GroupShape& shape, int32_t rank, int poison_stage)
      : comm(shape.TpRankOf(rank), shape.tp, &clock, &progress, shape.StageOf(rank), shape.pp),
        kv(KvCache::Allocate(FakeDecoder::Shape(kLimits.block_tokens, kLimits.pool_blocks))
               .value()),
        decoder(kv.get(), &comm, kLogitsRows,
                {comm.is_first_stage(), comm.is_last_stage(), comm.stage() >= poison_stage}),
        device({&decoder, kv.get(), &comm, &clock, kLimits, kLogitsRows}) {
    seat.term = {3};
    seat.epoch = {5};
    seat.tp = shape.tp;
    seat.pp = shape.pp;
    seat.rank = rank;
    seat.limits = kLimits;
  }
  void Connect(std::unique_ptr<ShmComm> with, std::unique_ptr<ShmStages> links) {
    shared = std::move(with);
    stages = std::move(links);
    comm.SetTarget(shared == nullptr ? static_cast<Comm*>(&single) : shared.get(), stages.get());
  }
  void Abort() {
    if (shared != nullptr) shared->Abort();
    if (stages != nullptr) stages->Abort();
  }

  RealClock clock;
  Progress progress;
  EpochComm comm;
  const std::unique_ptr<KvCache> kv;
  FakeDecoder decoder;
  CpuDevice device;
  GroupSeat seat;
  SingleRankComm single;
  std::unique_ptr<ShmComm> shared;
  std::unique_ptr<ShmStages> stages;
};

class Pipeline {
 public:
  // From stage `poison_stage` on, the hidden values of poisoned sequences are non-finite.
  explicit Pipeline(const GroupShape& shape, int poison_stage = 0) : shape_(shape) {
    for (int32_t rank = 0; rank < shape.ranks(); ++rank) {
      ranks_.push_back(std::make_unique<StageRank>(shape, rank, poison_stage));
    }
  }

  // Every rank executes all plans, as fast as the others let it. Returns the rows of each step.
  std::vector<std::vector<ResultRow>> Run(const std::vector<StepPlan>& plans) {
    Connect();
    std::vector<std::vector<ResultRow>> rows;
    std::vector<std::thread> threads;
    for (const auto& rank : ranks_) {
      threads.emplace_back([&, rank = rank.get()] {
        Engine engine(&rank->device, rank->seat);
        for (const StepPlan& plan : plans) {
          auto result = Execute(&engine, plan);
          EXPECT_TRUE(result.ok()) << "rank " << rank->seat.rank << ", step " << plan.step.value
                                   << ": " << ToString(result.status());
          if (!result.ok()) return rank->Abort();
          EXPECT_EQ(result->step, plan.step);
          if (rank->seat.rank == shape_.answering_rank()) {
            rows.push_back(std::move(result->rows));
          } else {
            EXPECT_TRUE(result->rows.empty());
          }
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    return rows;
  }

  StageRank& at(int32_t stage, int32_t tp_rank = 0) {
    return *ranks_[static_cast<size_t>(shape_.RankAt(stage, tp_rank))];
  }

 private:
  // A new epoch.
  void Connect() {
    std::vector<std::unique_ptr<ShmComm>> comms(ranks_.size());
    std::vector<std::unique_ptr<ShmStages>> links(ranks_.size());
    for (int32_t rank = 0; rank < shape_.ranks(); ++rank) {
      const auto index = static_cast<size_t>(rank);
      const int32_t maker = shape_.RankAt(shape_.StageOf(rank), 0);
      if (shape_.tp > 1 && rank == maker) {
        comms[index] = ShmComm::Create(shape_.tp).value();
      } else if (shape_.tp > 1) {
        comms[index] = ShmComm::Open(comms[static_cast<size_t>(maker)]->name(),
                                     shape_.TpRankOf(rank), shape_.tp)
                           .value();
      }
      if (shape_.pp == 1) continue;
      const StageMessages messages{kLimits.step_tokens * kFakeHidden * 4,
                                   StageStream::SamplesBytes(kLimits.slots)};
      links[index] = rank == 0 ? ShmStages::Create(shape_, RingBytes(shape_, messages)).value()
                               : ShmStages::Open(links[0]->name(), shape_, rank).value();
    }
    for (size_t i = 0; i < ranks_.size(); ++i) {
      ranks_[i]->Connect(std::move(comms[i]), std::move(links[i]));
    }
  }

  const GroupShape shape_;
  std::vector<std::unique_ptr<StageRank>> ranks_;
};

TEST(Stages, RandomPlansGiveTheResultsOfOneStage) {
  SCOPED_TRACE("FATHOM_SEED=" + std::to_string(TestSeed()));
  for (uint64_t i = 0; i < 2; ++i) {
    RandomRun run(TestSeed() * 1000 + 500 + i);
    run.Run(150);
    std::vector<std::vector<ResultRow>> rows;
    for (const StepResult& result : run.results) rows.push_back(result.rows);
    for (const int32_t pp : {2, 4}) {
      Pipeline pipeline({1, pp});
      EXPECT_TRUE(pipeline.Run(run.plans) == rows) << pp << " stages";
      EXPECT_TRUE(pipeline.Run(run.plans) == rows) << pp << " stages in the next epoch";
    }
    // With two ranks log-probabilities are sums of two parts.
    rows = Pipeline({2, 1}).Run(run.plans);
    EXPECT_TRUE(Pipeline({2, 2}).Run(run.plans) == rows);
  }
}

// A NaN, nothing left to sample, and a neighbour; then `more` steps whose plans were made before
// the faults were known; then the slots are released, and one of them is used again.
std::vector<StepPlan> FaultyPlans(uint64_t more) {
  World world;
  Request no_token = World::Greedy();
  no_token.stop.min_tokens = 9;
  for (TokenId id = 0; id < kFakeVocab; ++id) no_token.stop.stop_token_ids.push_back(id);
  std::vector<StepPlan> plans = {world.Plan()};
  world.Seat1(&plans[0], 1, {1, kPoison, 2});
  world.Seat1(&plans[0], 2, {1, 2}, no_token);
  world.Seat1(&plans[0], 3, {4, 5, 6});
  plans[0].chunks = {{{1}, 3, true}, {{2}, 2, true}, {{3}, 3, true}};
  for (uint64_t step = 1; step <= more; ++step) {
    StepPlan& plan = plans.emplace_back(world.Plan());
    for (int32_t slot = 1; slot <= 3; ++slot) {
      plan.chunks.push_back({{slot}, DecodeRow{{step - 1}}, true});
    }
  }
  StepPlan& last = plans.emplace_back(world.Plan());
  last.releases = {{1}, {2}};
  world.Seat1(&last, 2, {7, 8});
  last.chunks = {{{2}, 2, true}, {{3}, DecodeRow{{more}}, true}};
  return plans;
}

TEST(Stages, AFaultInAnyStageHarmsItsSequenceOnly) {
  for (const uint64_t more : {0, 1, 3}) {
    const std::vector<StepPlan> plans = FaultyPlans(more);
    const auto rows = Pipeline({1, 1}).Run(plans);
    ASSERT_EQ(rows.size(), plans.size());
    for (uint64_t step = 0; step <= more; ++step) {
      EXPECT_EQ(rows[step][0].fault, RowFault::kNonFiniteLogits);
      EXPECT_EQ(rows[step][1].fault, RowFault::kTokenOutOfRange);
      EXPECT_EQ(rows[step][2].fault, RowFault::kNone);
    }
    EXPECT_EQ(rows.back()[0].fault, RowFault::kNone);
    for (int poison_stage = 0; poison_stage < 3; ++poison_stage) {
      SCOPED_TRACE(fmt::format("{} more steps, poison from stage {} on", more, poison_stage));
      Pipeline pipeline({1, 3}, poison_stage);
      EXPECT_TRUE(pipeline.Run(plans) == rows);
      // The blocks of the released sequence are zeros where a value was non-finite, and where the
      // fault was known from a later chunk.
      for (int stage = 0; stage < 3; ++stage) {
        StageRank& rank = pipeline.at(stage);
        const float token = *(rank.kv->Plane(0, 0) + rank.kv->BlockFloats(0, 0));
        EXPECT_EQ(token, more > 0 || stage >= poison_stage ? 0.0f : 1.0f) << "stage " << stage;
      }
    }
  }
}

// The scheduler names the rank that has begun the fewest collectives of its stage, so a rank must
// count one before it waits in it.
TEST(Stages, ARankThatWaitsHasBegunOneMoreCollective) {
  Pipeline pipeline({1, 2});
  pipeline.Run({});
  StageRank& first = pipeline.at(0);
  StageRank& last = pipeline.at(1);
  std::thread waits([&] {
    std::vector<uint8_t> computed(1);
    EXPECT_EQ(StageStream(&last.comm, kLimits.slots).ReceiveChunks({0}, computed).code(),
              absl::StatusCode::kAborted);
  });
  while (last.progress.collective.load() == 0) std::this_thread::yield();
  EXPECT_EQ(first.progress.collective.load(), 0u);
  first.Abort();
  waits.join();
}

// The first stage waits for the samples that feed the step, and otherwise only for those of steps
// whose results the scheduler had.
TEST(Stages, SamplesThatAStepNeeds) {
  ChunkWork prompt, fed;
  fed.fed = true;
  const auto needed = [&](uint64_t step, std::vector<const ChunkWork*> chunks, int32_t stages) {
    return SamplesNeeded({.step = {step}, .chunks = std::move(chunks)}, stages).value;
  };
  EXPECT_EQ(needed(0, {&prompt}, 2), 0u);
  EXPECT_EQ(needed(2, {&prompt}, 2), 0u);
  EXPECT_EQ(needed(3, {&prompt}, 2), 1u);
  EXPECT_EQ(needed(9, {}, 4), 5u);
  fed.fed_by = {8};
  EXPECT_EQ(needed(9, {&prompt, &fed}, 4), 9u);
  fed.fed_by = {1};
  EXPECT_EQ(needed(9, {&fed}, 4), 5u);
}

TEST(Stages, AMessageOfAnotherStepEndsTheEpoch) {
  Pipeline pipeline({1, 2});
  World world;
  StepPlan plan = world.Plan();
  world.Seat1(&plan, 1, {1, 2, 3});
  plan.chunks = {{{1}, 3, true}};
  pipeline.Run({plan});
  StageRank& first = pipeline.at(0);
  StageRank& last = pipeline.at(1);
  StageStream to(&first.comm, kLimits.slots), from(&last.comm, kLimits.slots);
  const std::vector<uint8_t> computed = {1, 0};
  std::vector<uint8_t> got(2);
  ASSERT_TRUE(to.SendChunks({7}, computed).ok());
  EXPECT_TRUE(from.ReceiveChunks({7}, got).ok());
  EXPECT_EQ(got, computed);
  ASSERT_TRUE(to.SendChunks({8}, computed).ok());
  EXPECT_EQ(from.ReceiveChunks({9}, got).code(), absl::StatusCode::kInternal);
  // The first stage has not taken the samples of step 0.
  const auto samples = to.ReceiveSamples({0});
  ASSERT_TRUE(samples.ok()) << ToString(samples.status());
  ASSERT_EQ(samples->size(), 1u);
  EXPECT_EQ((*samples)[0].token, (Naive{World::Greedy(), 0, 3, {1, 2, 3}}.Next()));
  ASSERT_TRUE(from.SendSamples({1}, std::vector<SlotSample>{{{kLimits.slots + 1}, 0}}).ok());
  EXPECT_EQ(to.ReceiveSamples({1}).status().code(), absl::StatusCode::kInternal);
}

}  // namespace
}  // namespace fathom::worker
