// Speculative decoding in the engine: drafts by lookup, faults in rows with drafts, plans that do
// not fit a row with drafts, and a device with several steps in flight.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <random>
#include <thread>

#include "tests/worker/engine_world.h"
#include "tests/worker/fake_device.h"
#include "tests/worker/random_run.h"
#include "worker/engine/ngram_proposer.h"

namespace fathom::worker {
namespace {

using Ids = std::vector<TokenId>;

TEST(NgramProposer, ProposesWhatFollowedTheLatestLongestMatch) {
  EXPECT_EQ(ProposeByLookup(Ids{1, 2, 3, 9, 1, 2}, 2, 4, 3), (Ids{3, 9, 1}));
  // The longer match wins against the later one.
  EXPECT_EQ(ProposeByLookup(Ids{1, 2, 3, 7, 8, 2, 3, 9, 1, 2, 3}, 2, 4, 2), (Ids{7, 8}));
  // Of two equally long ones the later.
  EXPECT_EQ(ProposeByLookup(Ids{2, 3, 7, 2, 3, 9, 2, 3}, 2, 4, 1), (Ids{9}));
  // A match that is not longer than max_tokens is enough.
  EXPECT_EQ(ProposeByLookup(Ids{1, 2, 3, 7, 2, 3, 8, 1, 2, 3}, 1, 2, 1), (Ids{8}));
  // A loop goes on.
  EXPECT_EQ(ProposeByLookup(Ids{5, 6, 5, 6}, 1, 4, 5), (Ids{5, 6, 5, 6, 5}));
  EXPECT_EQ(ProposeByLookup(Ids{4, 4}, 1, 4, 3), (Ids{4, 4, 4}));
  EXPECT_EQ(ProposeByLookup(Ids{1, 2, 3, 4}, 1, 4, 3), Ids{});
  EXPECT_EQ(ProposeByLookup(Ids{3, 1, 3}, 2, 4, 3), Ids{});
  EXPECT_EQ(ProposeByLookup(Ids{3}, 1, 4, 3), Ids{});
  EXPECT_EQ(ProposeByLookup(Ids{}, 1, 4, 3), Ids{});
}

// Against a plain search of every suffix length, the longest first.
TEST(NgramProposer, EqualsASearchOfEachLength) {
  std::mt19937_64 rng(TestSeed());
  for (int run = 0; run < 3000; ++run) {
    Ids ids(rng() % 40);
    for (TokenId& id : ids) id = static_cast<TokenId>(rng() % 4);
    const auto least = static_cast<int32_t>(1 + rng() % 3);
    const auto most = least + static_cast<int32_t>(rng() % 3);
    const auto length = static_cast<int32_t>(ids.size());
    Ids want;
    for (int32_t n = most; n >= least && want.empty(); --n) {
      for (int32_t end = length - 1; end >= n && want.empty(); --end) {
        if (!std::equal(ids.begin() + end - n, ids.begin() + end, ids.end() - n)) continue;
        Ids text = ids;
        for (int32_t i = 0; i < 6; ++i) {
          text.push_back(text[static_cast<size_t>(end + i)]);
          want.push_back(text.back());
        }
      }
    }
    EXPECT_EQ(ProposeByLookup(ids, least, most, 6), want) << "run " << run;
  }
}

// A proposer with fixed drafts.
struct Fixed final : Proposer {
  absl::Status Propose(std::span<DraftWork> rows) override {
    for (DraftWork& row : rows) {
      row.drafts = drafts;
      row.drafts.resize(static_cast<size_t>(
          std::min<int64_t>(row.draft_max, static_cast<int64_t>(drafts.size()))));
    }
    return absl::OkStatus();
  }
  Ids drafts;
};

struct DraftWorld : World {
  DraftWorld() : World(4) {
    device = std::make_unique<CpuDevice>(CpuDeviceParts{.decoder = decoder.get(),
                                                        .kv = kv.get(),
                                                        .comm = &comm,
                                                        .clock = &clock,
                                                        .limits = kLimits,
                                                        .logits_rows = kLogitsRows,
                                                        .proposer = &fixed});
    Restart();
    StepPlan plan = Plan();
    Seat1(&plan, 1, {5, 6, 7});
    plan.chunks = {{{1}, 3, true}};
    naive = Naive{Greedy(), 0, 3, {5, 6, 7}, 0};
    naive.ids.push_back(Execute(plan)->rows[0].ids[0]);
  }
  absl::StatusOr<StepResult> Decode(uint64_t fed_by, int32_t draft_max) {
    StepPlan plan = Plan();
    plan.chunks = {{{1}, DecodeRow{{fed_by}, draft_max}, true}};
    return Execute(plan);
  }
  Ids Next(int count) const {
    Naive ahead = naive;
    for (int i = 0; i < count; ++i) ahead.ids.push_back(ahead.Next());
    return Ids(ahead.ids.end() - count, ahead.ids.end());
  }
  Fixed fixed;
  Naive naive;
};

TEST(Speculation, KeepsDraftsUpToTheFirstWrongOneAndOneSampleMore) {
  for (size_t right = 0; right <= 4; ++right) {
    DraftWorld world;
    const Ids next = world.Next(7);
    world.fixed.drafts.assign(next.begin(), next.begin() + 4);
    if (right < 4) world.fixed.drafts[right] = (next[right] + 1) % kPoison;
    auto result = world.Decode(0, 4);
    ASSERT_TRUE(result.ok()) << ToString(result.status());
    const ResultRow& row = result->rows[0];
    EXPECT_EQ(row.position, 1);
    EXPECT_EQ(row.drafted, 4);
    EXPECT_EQ(row.ids, Ids(next.begin(), next.begin() + static_cast<int64_t>(right) + 1));
    // The step after it, without drafts, overwrites what wrong drafts left in the blocks.
    result = world.Decode(1, 0);
    ASSERT_TRUE(result.ok()) << ToString(result.status());
    EXPECT_EQ(result->rows[0].ids, Ids{next[right + 1]});
    EXPECT_EQ(result->rows[0].position, static_cast<int32_t>(right) + 2);
  }
}

// A wrong draft makes the logits of its row non-finite. Nobody asked for that row.
TEST(Speculation, AFaultOfAWrongDraftIsNoFault) {
  DraftWorld world;
  const Ids next = world.Next(3);
  world.fixed.drafts = {next[0], kPoison, 1};
  auto result = world.Decode(0, 3);
  ASSERT_TRUE(result.ok()) << ToString(result.status());
  EXPECT_EQ(result->rows[0].fault, RowFault::kNone);
  EXPECT_EQ(result->rows[0].ids, Ids(next.begin(), next.begin() + 2));
  result = world.Decode(1, 0);
  EXPECT_EQ(result->rows[0].ids, Ids{next[2]});
}

TEST(Speculation, PlansThatDoNotFitEndTheEpoch) {
  DraftWorld world;
  world.fixed.drafts = {1, 2};
  SubmittedStep step;
  StepPlan plan = world.Plan();
  plan.chunks = {{{1}, DecodeRow{{0}, 2}, true}};
  ASSERT_TRUE(world.engine->Submit(plan, &step).ok());
  StepStream stream;
  world.engine->Collect(step, &stream);
  // Fed by a step that did not sample for the slot.
  plan = world.Plan();
  plan.chunks = {{{1}, DecodeRow{{0}, 2}, true}};
  EXPECT_TRUE(absl::IsInvalidArgument(world.engine->Submit(plan, &step)));
}

TEST(Speculation, NoDraftsBeyondBlocksAndContext) {
  DraftWorld world;
  world.fixed.drafts = {1, 1, 1, 1};
  // Slot 2 has one block of 16 tokens and 15 tokens after its first sample.
  StepPlan plan = world.Plan();
  Ids ids(14, TokenId{8});
  Admit admit{.slot = {2}, .request = World::Greedy(), .prompt_tokens = 14, .ids = ids};
  plan.admits.push_back(admit);
  plan.extends.push_back({{2}, {{20}}});
  plan.chunks = {{{2}, 14, true}};
  ASSERT_TRUE(world.Execute(plan).ok());
  plan = world.Plan();
  plan.chunks = {{{2}, DecodeRow{{1}, 4}, true}};
  const auto result = world.Execute(plan);
  ASSERT_TRUE(result.ok()) << ToString(result.status());
  EXPECT_EQ(result->rows[0].fault, RowFault::kNone);
  EXPECT_EQ(result->rows[0].drafted, 1);
}

// An engine on a device with steps in flight, with the thread that collects them.
class InFlight {
 public:
  InFlight(Device* device, const GroupSeat& seat) : engine_(device, seat), steps_(kSteps) {
    collector_ = std::thread([this] {
      for (uint64_t next = 0; !closed_ || next < submitted_;) {
        if (next == submitted_) {
          std::this_thread::yield();
          continue;
        }
        StepStream stream;
        StepResult result = engine_.Collect(steps_[next++], &stream);
        const std::lock_guard lock(mutex_);
        results_.push_back(std::move(result));
      }
    });
  }
  ~InFlight() {
    closed_ = true;
    collector_.join();
  }

  // Waits until fewer than three steps are in flight.
  absl::Status Submit(const StepPlan& plan) {
    while (plan.step.value >= results() + 3) std::this_thread::yield();
    FATHOM_RETURN_IF_ERROR(engine_.Submit(plan, &steps_[plan.step.value]));
    ++submitted_;
    return absl::OkStatus();
  }
  void WaitForAll() {
    while (results() < submitted_) std::this_thread::yield();
  }
  // The results that were not taken yet.
  std::vector<StepResult> Take() {
    const std::lock_guard lock(mutex_);
    std::vector<StepResult> taken(results_.begin() + static_cast<int64_t>(taken_), results_.end());
    taken_ = results_.size();
    return taken;
  }
  static constexpr size_t kSteps = 400;

 private:
  uint64_t results() {
    const std::lock_guard lock(mutex_);
    return results_.size();
  }

  Engine engine_;
  std::vector<SubmittedStep> steps_;
  std::atomic<uint64_t> submitted_{0};
  std::atomic<bool> closed_{false};
  std::mutex mutex_;  // Guards what follows.
  std::vector<StepResult> results_;
  size_t taken_ = 0;
  std::thread collector_;
};

// Four sequences, greedy and sampled; the last one has penalties.
StepPlan FourPrompts(std::vector<Naive>* naives) {
  StepPlan plan;
  for (int32_t i = 0; i < 4; ++i) {
    Request request = World::Greedy();
    request.sampling.temperature = i % 2 == 0 ? 0.0f : 0.8f;
    if (i == 3) request.sampling.repetition_penalty = 1.3f;
    if (i == 2) request.thinking = {8, 9, 6, true};  // It has no drafts until token 9.
    const auto seed = static_cast<uint64_t>(i);
    naives->push_back({request, seed, 3, {i, 5, 6}, 0});
    Admit admit{.slot = {i + 1}, .request = request, .seed = seed, .prompt_tokens = 3};
    admit.ids = naives->back().ids;
    plan.admits.push_back(admit);
    Extend extend{{i + 1}, {}};
    for (int32_t b = 0; b < 6; ++b) extend.block_ids.push_back({1 + 6 * i + b});
    plan.extends.push_back(extend);
    plan.chunks.push_back({{i + 1}, 3, true});
  }
  return plan;
}

// A device with three steps in flight, as a GPU: rows with drafts wait for the samples that feed
// them; slots with penalties, and slots that think within a budget, have no drafts there.
TEST(Speculation, ADeviceWithStepsInFlightGivesTheTokensOfEachSequenceAlone) {
  GroupSeat seat;
  seat.limits = kLimits;
  seat.limits.draft_max = 3;
  FakeDevice device(kLimits, 3);
  GuessingProposer proposer;
  device.SetProposer(&proposer);
  InFlight in_flight(&device, seat);
  std::vector<Naive> naives;
  StepPlan plan = FourPrompts(&naives);
  int drafted = 0;
  bool drafts = false;
  std::mt19937_64 rng(TestSeed());
  for (uint64_t step = 0; naives[0].ids.size() < 60; ++step) {
    ASSERT_LT(step, InFlight::kSteps);
    plan.step = {step};
    ASSERT_TRUE(in_flight.Submit(plan).ok());
    // The length after a row with drafts is known with its result.
    if (drafts) in_flight.WaitForAll();
    for (const StepResult& result : in_flight.Take()) {
      for (const ResultRow& row : result.rows) {
        drafted += row.drafted;
        EXPECT_TRUE(row.drafted == 0 || row.row != 3) << "a slot with penalties had drafts";
        Naive& naive = naives[static_cast<size_t>(row.row)];
        for (const TokenId id : row.ids) {
          ASSERT_EQ(id, naive.Next()) << "row " << row.row;
          naive.ids.push_back(id);
        }
      }
    }
    drafts = rng() % 2 == 0;
    plan = StepPlan{};
    for (int32_t i = 0; i < 4; ++i) {
      plan.chunks.push_back({{i + 1}, DecodeRow{{step}, drafts ? 3 : 0}, true});
    }
  }
  EXPECT_GT(drafted, 20);
}

}  // namespace
}  // namespace fathom::worker
