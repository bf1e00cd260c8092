// The engine against a naive model of each sequence alone: whatever the batch, the chunks, the
// blocks and the order of seats, a sequence's tokens and log-probabilities are the same. Wrong
// plans end the epoch, faults one row.
#include "worker/engine.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <deque>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>

#include "kernels/logprob.h"
#include "kernels/sample.h"
#include "tests/worker/fake_decoder.h"

namespace fathom::worker {
namespace {

constexpr EngineLimits kLimits{.context_tokens = 96,
                               .block_tokens = 16,
                               .pool_blocks = 64,
                               .slots = 8,
                               .step_tokens = 48,
                               .vocab = kFakeVocab};
constexpr int32_t kLogitsRows = 8;

uint64_t TestSeed() {
  const char* seed = std::getenv("FATHOM_SEED");
  return seed != nullptr ? std::strtoull(seed, nullptr, 10) : 1;
}

struct World {
  World() {
    auto allocated =
        KvCache::Allocate(FakeDecoder::Shape(kLimits.block_tokens, kLimits.pool_blocks));
    FATHOM_CHECK(allocated.ok());
    kv = *std::move(allocated);
    decoder = std::make_unique<FakeDecoder>(kv.get(), &comm, kLogitsRows);
    comm.SetTarget(&single);
    Restart();
  }
  void Restart() {
    Seat seat;
    seat.term = {3};
    seat.epoch = {5};
    seat.limits = kLimits;
    engine = std::make_unique<Engine>(
        EngineParts{decoder.get(), kv.get(), &comm, &clock, &progress, kLogitsRows}, seat);
    step = 0;
  }
  StepPlan Plan() {
    StepPlan plan;
    plan.term = {3};
    plan.epoch = {5};
    plan.step = {step++};
    return plan;
  }
  // Seats ids as a prompt with enough blocks for the context, from block 1 + 6 * (slot - 1) on.
  void Seat1(StepPlan* plan, int32_t slot, std::vector<TokenId> ids, Request request = Greedy()) {
    Admit admit;
    admit.slot = {slot};
    admit.request = std::move(request);
    admit.prompt_tokens = static_cast<int32_t>(ids.size());
    admit.ids = std::move(ids);
    plan->admits.push_back(admit);
    Extend extend{{slot}, {}};
    for (int32_t i = 0; i < 6; ++i) extend.block_ids.push_back({1 + 6 * (slot - 1) + i});
    plan->extends.push_back(extend);
  }
  static Request Greedy() {
    Request request;
    request.sampling.temperature = 0;
    request.stop.max_tokens = 100;
    return request;
  }

  ManualClock clock;
  Progress progress;
  SingleRankComm single;
  EpochComm comm{0, 1, &clock, &progress};
  std::unique_ptr<KvCache> kv;
  std::unique_ptr<FakeDecoder> decoder;
  std::unique_ptr<Engine> engine;
  uint64_t step = 0;
};

// One sequence by itself: what its tokens must be.
struct Naive {
  Request request;
  uint64_t seed = 0;
  int32_t prompt_tokens = 0;
  std::vector<TokenId> ids;

  TokenId Next() const {
    const std::vector<float> logits = FakeLogits(ids);
    const auto output = std::span(ids).subspan(static_cast<size_t>(prompt_tokens));
    const auto position = static_cast<int32_t>(output.size());
    std::vector<kernels::SeenToken> seen;
    for (const TokenId id : std::set<TokenId>(ids.begin(), ids.end())) {
      seen.push_back({id, static_cast<int32_t>(std::count(output.begin(), output.end(), id))});
    }
    std::vector<TokenId> banned = request.stop.end_token_ids;
    banned.insert(banned.end(), request.stop.stop_token_ids.begin(),
                  request.stop.stop_token_ids.end());
    if (position >= request.stop.min_tokens) banned.clear();
    kernels::SampleScratch scratch;
    const SamplingParams& s = request.sampling;
    return kernels::SampleRef({.logits = logits,
                               .temperature = s.temperature,
                               .top_k = s.top_k,
                               .top_p = s.top_p,
                               .min_p = s.min_p,
                               .repetition_penalty = s.repetition_penalty,
                               .presence_penalty = s.presence_penalty,
                               .frequency_penalty = s.frequency_penalty,
                               .bias = s.logit_bias,
                               .banned = banned,
                               .seen = seen,
                               .seed = seed,
                               .sequence = 2,
                               .position = position,
                               .scratch = &scratch});
  }
};

float NaiveLogprob(std::span<const TokenId> before, TokenId id) {
  const std::vector<float> logits = FakeLogits(before);
  return kernels::LogprobRef({logits, 1, id, {}, {}});
}

// Plays a scheduler: random seats, chunks and releases, two plans ahead of the results.
class RandomRun {
 public:
  explicit RandomRun(uint64_t seed) : rng_(seed) {
    for (int32_t block = 1; block < kLimits.pool_blocks; ++block) free_blocks_.push_back({block});
    for (int32_t slot = 1; slot <= kLimits.slots; ++slot) free_slots_.push_back({slot});
  }

  void Run(int steps) {
    for (int i = 0; i < steps; ++i) {
      const StepPlan plan = MakePlan();
      rows_seen_ = std::max(rows_seen_, plan.chunks.size());
      const auto result = world_.engine->Execute(plan);
      ASSERT_TRUE(result.ok()) << ToString(result.status());
      ASSERT_NO_FATAL_FAILURE(Check(plan, *result));
    }
    EXPECT_GE(rows_seen_, 4u);
    EXPECT_GE(finished_, steps / 20);
  }

 private:
  struct Seated {
    Naive naive;
    std::vector<BlockId> blocks;
    int32_t computed = 0;
    int32_t admitted = 0;  // Of the ids: the rest follows.
    std::optional<StepId> sampled_by;
    int32_t until = 0;  // Length at which it is released.
  };

  int32_t Below(int32_t n) { return static_cast<int32_t>(rng_() % static_cast<uint64_t>(n)); }

  Request RandomRequest() {
    Request request = World::Greedy();
    SamplingParams& s = request.sampling;
    if (Below(3) != 0) s.temperature = 0.5f + 0.1f * static_cast<float>(Below(10));
    if (Below(2) == 0) s.top_k = Below(10);
    if (Below(2) == 0) s.top_p = 0.9f;
    if (Below(2) == 0) s.repetition_penalty = 1.3f;
    if (Below(2) == 0) s.presence_penalty = 0.5f;
    if (Below(2) == 0) s.frequency_penalty = 0.25f;
    if (Below(2) == 0) s.logit_bias = {{1, 2.0f}, {7, -3.0f}};
    if (Below(2) == 0) request.output.logprobs = Below(3);
    if (Below(2) == 0) request.output.prompt_logprobs = Below(3);
    request.stop.min_tokens = Below(6);
    request.stop.end_token_ids = {2};
    request.stop.stop_token_ids = {3, 4};
    return request;
  }

  void Admission(StepPlan* plan) {
    if (free_slots_.empty() || Below(3) != 0) return;
    const SlotId slot = free_slots_.front();
    free_slots_.pop_front();
    Seated& seated = seated_[slot];
    seated = Seated{};
    Naive& naive = seated.naive;
    naive.request = RandomRequest();
    naive.seed = rng_();
    naive.prompt_tokens = 1 + Below(40);
    for (int32_t i = 0; i < naive.prompt_tokens; ++i) naive.ids.push_back(Below(kFakeVocab - 1));
    // Suspended before with some tokens: replayed as a prefill.
    for (int32_t i = Below(3) == 0 ? Below(12) : 0; i > 0; --i) naive.ids.push_back(naive.Next());
    seated.until = static_cast<int32_t>(naive.ids.size()) + 1 + Below(20);
    Admit admit;
    admit.slot = slot;
    admit.request = naive.request;
    admit.seed = naive.seed;
    admit.sequence = 2;
    admit.prompt_tokens = naive.prompt_tokens;
    seated.admitted = 1 + Below(static_cast<int32_t>(naive.ids.size()));
    if (Below(2) == 0) seated.admitted = static_cast<int32_t>(naive.ids.size());
    admit.ids.assign(naive.ids.begin(), naive.ids.begin() + seated.admitted);
    admit.more = seated.admitted < static_cast<int32_t>(naive.ids.size());
    plan->admits.push_back(admit);
  }

  void GiveBlocks(StepPlan* plan, SlotId slot, Seated* seated, int32_t tokens) {
    Extend extend{slot, {}};
    while (static_cast<int32_t>(seated->blocks.size()) * kLimits.block_tokens < tokens) {
      extend.block_ids.push_back(free_blocks_.front());
      seated->blocks.push_back(free_blocks_.front());
      free_blocks_.pop_front();
    }
    if (!extend.block_ids.empty()) plan->extends.push_back(extend);
  }

  StepPlan MakePlan() {
    StepPlan plan = world_.Plan();
    int32_t budget = kLimits.step_tokens;
    for (auto it = seated_.begin(); it != seated_.end();) {
      auto& [slot, seated] = *it;
      const auto length = static_cast<int32_t>(seated.naive.ids.size());
      if (seated.sampled_by && length >= seated.until) {  // The end, or a suspension.
        plan.releases.push_back(slot);
        for (const BlockId block : seated.blocks)
          free_blocks_.push_front(block);  // Used again soon.
        free_slots_.push_back(slot);
        it = seated_.erase(it);
        ++finished_;
        continue;
      }
      if (seated.admitted < length && !seated.sampled_by) {
        Admit more;
        more.slot = slot;
        more.ids.assign(seated.naive.ids.begin() + seated.admitted, seated.naive.ids.end());
        seated.admitted = length;
        plan.admits.push_back(more);
      }
      ++it;
    }
    Admission(&plan);
    for (auto& [slot, seated] : seated_) {
      if (budget == 0 || Below(5) == 0) continue;
      Chunk chunk{slot, 0, false};
      int32_t count = 1;
      if (seated.sampled_by) {
        chunk.work = DecodeRow{*seated.sampled_by, 0};
        chunk.sample = true;
      } else {
        const bool more = seated.admitted < static_cast<int32_t>(seated.naive.ids.size());
        int32_t open = seated.admitted - seated.computed - (more ? 1 : 0);
        if (open < 1) continue;
        count = std::min(budget, 1 + Below(open));
        chunk.work = count;
        chunk.sample =
            !more && seated.computed + count == static_cast<int32_t>(seated.naive.ids.size());
      }
      GiveBlocks(&plan, slot, &seated, seated.computed + count);
      budget -= count;
      plan.chunks.push_back(chunk);
    }
    std::shuffle(plan.chunks.begin(), plan.chunks.end(), rng_);
    return plan;
  }

  void Check(const StepPlan& plan, const StepResult& result) {
    ASSERT_EQ(result.step, plan.step);
    ASSERT_EQ(result.rows.size(), plan.chunks.size());
    for (size_t i = 0; i < result.rows.size(); ++i) {
      const ResultRow& row = result.rows[i];
      const Chunk& chunk = plan.chunks[i];
      Seated& seated = seated_.at(chunk.slot);
      Naive& naive = seated.naive;
      ASSERT_EQ(row.row, static_cast<int32_t>(i));
      ASSERT_EQ(row.sequence, 2);
      ASSERT_EQ(row.fault, RowFault::kNone);
      const int32_t* count = std::get_if<int32_t>(&chunk.work);
      const int32_t end = seated.computed + (count != nullptr ? *count : 1);
      ASSERT_NO_FATAL_FAILURE(CheckScores(seated, end, row));
      seated.computed = end;
      ASSERT_EQ(row.ids.size(), chunk.sample ? 1u : 0u);
      if (!chunk.sample) continue;
      ASSERT_EQ(row.position, static_cast<int32_t>(naive.ids.size()) - naive.prompt_tokens);
      ASSERT_EQ(row.ids[0], naive.Next());
      ASSERT_EQ(row.logprobs.size(), naive.request.output.logprobs ? 1u : 0u);
      if (naive.request.output.logprobs) {
        ASSERT_EQ(row.logprobs[0].logprob, NaiveLogprob(naive.ids, row.ids[0]));
        ASSERT_EQ(row.logprobs[0].top_ids.size(),
                  static_cast<size_t>(*naive.request.output.logprobs));
      }
      naive.ids.push_back(row.ids[0]);
      seated.sampled_by = plan.step;
    }
  }

  static void CheckScores(const Seated& seated, int32_t end, const ResultRow& row) {
    const Naive& naive = seated.naive;
    const int32_t first = seated.computed + 1;
    const int32_t last = std::min(end + 1, naive.prompt_tokens);
    if (!naive.request.output.prompt_logprobs || first >= last) {
      ASSERT_FALSE(row.prompt_logprobs.has_value());
      return;
    }
    ASSERT_TRUE(row.prompt_logprobs.has_value());
    ASSERT_EQ(row.prompt_logprobs->start, first);
    ASSERT_EQ(std::ssize(row.prompt_logprobs->logprobs), last - first);
    for (int32_t position = first; position < last; ++position) {
      const TokenLogprob& scored =
          row.prompt_logprobs->logprobs[static_cast<size_t>(position - first)];
      ASSERT_EQ(scored.id, naive.ids[static_cast<size_t>(position)]);
      ASSERT_EQ(scored.logprob,
                NaiveLogprob(std::span(naive.ids).first(static_cast<size_t>(position)), scored.id));
    }
  }

  std::mt19937_64 rng_;
  World world_;
  std::deque<BlockId> free_blocks_;
  std::deque<SlotId> free_slots_;
  std::map<SlotId, Seated> seated_;
  size_t rows_seen_ = 0;
  int finished_ = 0;
};

TEST(Engine, EverySequenceIsAsIfAlone) {
  SCOPED_TRACE("FATHOM_SEED=" + std::to_string(TestSeed()));
  for (uint64_t i = 0; i < 20; ++i) RandomRun(TestSeed() * 1000 + i).Run(200);
}

TEST(Engine, AStepWithMoreScoredRowsThanTheModelTakesIsCutAndExact) {
  World world;
  Request request = World::Greedy();
  request.output.prompt_logprobs = 0;
  std::vector<TokenId> ids;
  for (int32_t i = 0; i < 30; ++i) ids.push_back(i);
  StepPlan plan = world.Plan();
  world.Seat1(&plan, 1, ids, request);
  plan.chunks = {{{1}, 30, true}};
  const auto result = world.engine->Execute(plan);
  ASSERT_TRUE(result.ok()) << ToString(result.status());
  EXPECT_EQ(world.decoder->forwards, 4);  // 29 scored rows and the sampled one, 8 at a time.
  const PromptLogprobs& scored = result->rows[0].prompt_logprobs.value();
  ASSERT_EQ(scored.logprobs.size(), 29u);
  for (size_t i = 0; i < 29; ++i) {
    EXPECT_EQ(scored.logprobs[i].logprob, NaiveLogprob(std::span(ids).first(i + 1), ids[i + 1]));
  }
}

TEST(Engine, ACopiedBlockGoesOnAsItsOriginal) {
  World world;
  StepPlan plan = world.Plan();
  world.Seat1(&plan, 1, {5, 6, 7, 8});
  plan.chunks = {{{1}, 4, true}};
  ASSERT_TRUE(world.engine->Execute(plan).ok());
  plan = world.Plan();
  world.Seat1(&plan, 2, {5, 6, 7, 8});
  plan.copies = {{CopyKind::kBlock, {1}, {7}}};  // Slot 1's first block to slot 2's.
  plan.admits[0].computed_tokens = 3;
  plan.chunks = {{{2}, 1, true}, {{1}, DecodeRow{{0}}, true}};
  const auto result = world.engine->Execute(plan);
  ASSERT_TRUE(result.ok()) << ToString(result.status());
  const Naive naive{World::Greedy(), 0, 4, {5, 6, 7, 8}};
  EXPECT_EQ(result->rows[0].ids, std::vector{naive.Next()});
}

TEST(Engine, AFaultHarmsItsRowOnly) {
  World world;
  StepPlan plan = world.Plan();
  world.Seat1(&plan, 1, {1, kPoison, 2});     // Logits that are not finite.
  world.Seat1(&plan, 2, {1, kFakeVocab, 2});  // No such token.
  world.Seat1(&plan, 3, {1, 2, 3});           // A block outside of the pool.
  plan.extends[2].block_ids[0] = {kLimits.pool_blocks};
  world.Seat1(&plan, 4, std::vector<TokenId>(20, 1));  // Too few blocks.
  plan.extends[3].block_ids.resize(1);
  world.Seat1(&plan, 5, {4, 5, 6});
  plan.chunks = {{{1}, 3, true}, {{2}, 3, true}, {{3}, 3, true}, {{4}, 20, true}, {{5}, 3, true}};
  const auto first = world.engine->Execute(plan);
  ASSERT_TRUE(first.ok()) << ToString(first.status());
  // Planned before the faults were known: void rows, no crash, the same faults.
  plan = world.Plan();
  for (int32_t slot = 1; slot <= 5; ++slot) plan.chunks.push_back({{slot}, DecodeRow{{0}}, true});
  const auto second = world.engine->Execute(plan);
  ASSERT_TRUE(second.ok()) << ToString(second.status());
  Naive naive{World::Greedy(), 0, 3, {4, 5, 6}};
  const RowFault faults[] = {RowFault::kNonFiniteLogits, RowFault::kTokenOutOfRange,
                             RowFault::kBlockOutOfRange, RowFault::kBlockOutOfRange,
                             RowFault::kNone};
  for (const auto* result : {&first, &second}) {
    for (size_t i = 0; i < 5; ++i) {
      EXPECT_EQ((*result)->rows[i].fault, faults[i]) << i;
      EXPECT_EQ((*result)->rows[i].ids.empty(), faults[i] != RowFault::kNone) << i;
    }
    EXPECT_EQ((*result)->rows[4].ids, std::vector{naive.Next()});
    naive.ids.push_back(naive.Next());
  }
  // The seats are good again for others.
  plan = world.Plan();
  for (int32_t slot = 1; slot <= 4; ++slot) plan.releases.push_back({slot});
  for (int32_t slot = 1; slot <= 4; ++slot) {
    world.Seat1(&plan, slot, {4, 5, 6});
    plan.chunks.push_back({{slot}, 3, true});
  }
  const auto third = world.engine->Execute(plan);
  ASSERT_TRUE(third.ok());
  for (const ResultRow& row : third->rows) {
    EXPECT_EQ(row.ids, std::vector{(Naive{World::Greedy(), 0, 3, {4, 5, 6}}.Next())});
  }
}

TEST(Engine, ASequenceThatReachesTheContextFaultsAndNothingElse) {
  World world;
  StepPlan plan = world.Plan();
  world.Seat1(&plan, 1, std::vector<TokenId>(48, 1));
  plan.chunks = {{{1}, 48, true}};
  ASSERT_TRUE(world.engine->Execute(plan).ok());
  int32_t tokens = 1;
  while (true) {
    plan = world.Plan();
    plan.chunks = {{{1}, DecodeRow{{world.step - 2}}, true}};
    const auto result = world.engine->Execute(plan);
    ASSERT_TRUE(result.ok()) << ToString(result.status());
    if (result->rows[0].fault != RowFault::kNone) break;
    ++tokens;
  }
  EXPECT_EQ(48 + tokens,
            kLimits.context_tokens + 1);  // The last one is sampled and never computed.
}

TEST(Engine, NothingLeftToDrawIsAFault) {
  World world;
  Request request = World::Greedy();
  request.stop.min_tokens = 1;
  for (TokenId id = 0; id < kFakeVocab; ++id) request.stop.stop_token_ids.push_back(id);
  StepPlan plan = world.Plan();
  world.Seat1(&plan, 1, {1, 2}, request);
  plan.chunks = {{{1}, 2, true}};
  const auto result = world.engine->Execute(plan);
  ASSERT_TRUE(result.ok());
  EXPECT_EQ(result->rows[0].fault, RowFault::kTokenOutOfRange);
}

// Each makes one plan wrong; the engine has slot 1 seated, computed and sampled by step 0, slot 2
// with 3 of 5 ids.
struct WrongPlan {
  const char* name;
  void (*spoil)(StepPlan* plan);
};
class WrongPlans : public testing::TestWithParam<WrongPlan> {};

TEST_P(WrongPlans, EndTheEpoch) {
  World world;
  StepPlan plan = world.Plan();
  world.Seat1(&plan, 1, {1, 2, 3});
  world.Seat1(&plan, 2, {1, 2, 3, 4, 5});
  plan.admits[1].ids.resize(3);
  plan.admits[1].more = true;
  plan.chunks = {{{1}, 3, true}};
  ASSERT_TRUE(world.engine->Execute(plan).ok());
  plan = world.Plan();
  GetParam().spoil(&plan);
  const auto result = world.engine->Execute(plan);
  EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument)
      << ToString(result.status());
}

Admit SomeAdmit(int32_t slot) {
  Admit admit;
  admit.slot = {slot};
  admit.prompt_tokens = 2;
  admit.ids = {1, 2};
  return admit;
}

INSTANTIATE_TEST_SUITE_P(
    Engine, WrongPlans,
    testing::Values(WrongPlan{"Term", [](StepPlan* p) { p->term = {2}; }},
                    WrongPlan{"Epoch", [](StepPlan* p) { p->epoch = {6}; }},
                    WrongPlan{"StepGap", [](StepPlan* p) { p->step = {2}; }},
                    WrongPlan{"StepAgain", [](StepPlan* p) { p->step = {0}; }},
                    WrongPlan{"CopyFromPadding",
                              [](StepPlan* p) {
                                p->copies = {{CopyKind::kBlock, {0}, {1}}};
                              }},
                    WrongPlan{"CopyOutside",
                              [](StepPlan* p) {
                                p->copies = {{CopyKind::kBlock, {1}, {kLimits.pool_blocks}}};
                              }},
                    WrongPlan{"ReleaseEmpty", [](StepPlan* p) { p->releases = {{3}}; }},
                    WrongPlan{"ReleasePadding", [](StepPlan* p) { p->releases = {{0}}; }},
                    WrongPlan{"ReleaseOutside", [](StepPlan* p) { p->releases = {{9}}; }},
                    WrongPlan{"AdmitTaken", [](StepPlan* p) { p->admits = {SomeAdmit(1)}; }},
                    WrongPlan{"AdmitPadding", [](StepPlan* p) { p->admits = {SomeAdmit(0)}; }},
                    WrongPlan{"AdmitOutside", [](StepPlan* p) { p->admits = {SomeAdmit(-1)}; }},
                    WrongPlan{"AdmitAllComputed",
                              [](StepPlan* p) {
                                p->admits = {SomeAdmit(3)};
                                p->admits[0].computed_tokens = 2;
                              }},
                    WrongPlan{"AdmitShort",
                              [](StepPlan* p) {
                                p->admits = {SomeAdmit(3)};
                                p->admits[0].prompt_tokens = 3;
                              }},
                    WrongPlan{"AdmitBeyondContext",
                              [](StepPlan* p) {
                                p->admits = {SomeAdmit(3)};
                                p->admits[0].ids.resize(97);
                              }},
                    WrongPlan{"ExtendEmpty",
                              [](StepPlan* p) {
                                p->extends = {{{3}, {{1}}}};
                              }},
                    WrongPlan{"ExtendBeyondPool",
                              [](StepPlan* p) {
                                p->extends = {{{1}, std::vector<BlockId>(64, BlockId{1})}};
                              }},
                    WrongPlan{"ChunkEmptySlot",
                              [](StepPlan* p) {
                                p->chunks = {{{3}, 1, false}};
                              }},
                    WrongPlan{"ChunkOfNothing",
                              [](StepPlan* p) {
                                p->chunks = {{{2}, 0, false}};
                              }},
                    WrongPlan{"ChunkNegative",
                              [](StepPlan* p) {
                                p->chunks = {{{2}, -1, false}};
                              }},
                    WrongPlan{"ChunkBeyondIds",
                              [](StepPlan* p) {
                                p->chunks = {{{2}, 4, false}};
                              }},
                    WrongPlan{"SampleBeforeTheEnd",
                              [](StepPlan* p) {
                                p->chunks = {{{2}, 2, true}};
                              }},
                    WrongPlan{"SampleWhileMoreIsToCome",
                              [](StepPlan* p) {
                                p->chunks = {{{2}, 3, true}};
                              }},
                    WrongPlan{"FedByAnother",
                              [](StepPlan* p) {
                                p->chunks = {{{1}, DecodeRow{{1}}, true}};
                              }},
                    WrongPlan{"FedByNothing",
                              [](StepPlan* p) {
                                p->chunks = {{{2}, DecodeRow{{0}}, true}};
                              }},
                    WrongPlan{"SlotTwice",
                              [](StepPlan* p) {
                                p->chunks = {{{2}, 1, false}, {{2}, 1, false}};
                              }}),
    [](const auto& param) { return std::string(param.param.name); });

TEST(Engine, RanksOtherThanZeroAnswerWithoutRows) {
  World world;
  Progress progress;
  EpochComm comm(1, 2, &world.clock, &progress);
  struct Pretend final : Comm {  // As if rank 0 had sent what the fake expects.
    int rank() const override { return 1; }
    int size() const override { return 2; }
    absl::Status AllReduceSum(std::span<float> values) override {
      for (float& value : values) value = 3;
      return absl::OkStatus();
    }
    absl::Status AllGather(std::span<const float>, std::span<float>) override {
      return absl::OkStatus();
    }
  } pretend;
  comm.SetTarget(&pretend);
  FakeDecoder decoder(world.kv.get(), &comm, kLogitsRows);
  Seat seat;
  seat.term = {3};
  seat.epoch = {5};
  seat.rank = 1;
  seat.tp = 2;
  seat.limits = kLimits;
  Engine engine({&decoder, world.kv.get(), &comm, &world.clock, &progress, kLogitsRows}, seat);
  StepPlan plan = world.Plan();
  world.Seat1(&plan, 1, {1, 2, 3});
  plan.chunks = {{{1}, 3, true}};
  const auto result = engine.Execute(plan);
  ASSERT_TRUE(result.ok()) << ToString(result.status());
  EXPECT_EQ(result->rank, 1);
  EXPECT_TRUE(result->rows.empty());
  EXPECT_EQ(result->collectives, 1u);
  EXPECT_EQ(engine.slots().slot({1}).ids.back(), (Naive{World::Greedy(), 0, 3, {1, 2, 3}}.Next()));
}

}  // namespace
}  // namespace fathom::worker
