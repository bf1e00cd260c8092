// The draft model: its drafts are a function of the tokens of a slot, whatever it has computed
// before, in any batch, and whichever drafts were kept.
#include "worker/engine/draft_model.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "tests/worker/fake_decoder.h"
#include "tests/worker/fake_device.h"
#include "tests/worker/naive_sequence.h"
#include "tests/worker/random_run.h"

namespace fathom::worker {
namespace {

constexpr int32_t kSlots = 5;
constexpr int32_t kBlocksOfSlot = 4;
constexpr int32_t kDraftLogitsRows = 3;
constexpr EngineLimits kDraftLimits{.context_tokens = 60,
                                    .block_tokens = 16,
                                    .pool_blocks = 1 + kSlots * kBlocksOfSlot,
                                    .slots = kSlots,
                                    .step_tokens = 13,
                                    .vocab = kFakeVocab};

// The CPU with a fake decoder.
struct DraftCpu {
  explicit DraftCpu(const EngineLimits& limits = kDraftLimits) {
    comm.SetTarget(&single);
    auto allocated = KvCache::Allocate(FakeDecoder::Shape(16, limits.pool_blocks));
    FATHOM_CHECK(allocated.ok());
    kv = *std::move(allocated);
    decoder = std::make_unique<FakeDecoder>(kv.get(), &comm, kDraftLogitsRows);
    device = std::make_unique<CpuDevice>(
        CpuDeviceParts{decoder.get(), kv.get(), &comm, &clock, limits, kDraftLogitsRows});
  }
  ManualClock clock;
  Progress progress;
  SingleRankComm single;
  EpochComm comm{0, 1, &clock, &progress};
  std::unique_ptr<KvCache> kv;
  std::unique_ptr<FakeDecoder> decoder;
  std::unique_ptr<CpuDevice> device;
};

// The tokens that the draft's logits give after those of `slot`.
std::vector<TokenId> DraftsAfter(const Slot& slot, int32_t count) {
  Naive naive{slot.request, slot.seed, slot.prompt_tokens, slot.ids, slot.sequence};
  SamplingParams& sampling = naive.request.sampling;
  sampling.repetition_penalty = 1;
  sampling.presence_penalty = sampling.frequency_penalty = 0;
  for (int32_t i = 0; i < count; ++i) naive.ids.push_back(naive.Next());
  return {naive.ids.end() - count, naive.ids.end()};
}

class Drafting {
 public:
  Drafting(uint64_t seed, Device* device) : rng_(seed), model_(device, kDraftLimits) {
    model_.Begin();
    for (int32_t i = 0; i < kSlots; ++i) Seat(i);
  }

  void Run(int steps) {
    for (int step = 0; step < steps; ++step) {
      std::vector<DraftWork> works;
      for (int32_t i = 0; i < kSlots; ++i) {
        Slot& slot = slots_[i];
        if (slot.length() > 52 || Below(12) == 0) Seat(i);
        if (Below(4) == 0) {  // A step without drafts.
          slot.ids.push_back(Below(kPoison));
        } else {
          works.push_back({SlotId{i + 1}, &slot, 1 + Below(5)});
        }
      }
      std::shuffle(works.begin(), works.end(), rng_);
      ASSERT_TRUE(model_.Propose(works).ok());
      for (const DraftWork& work : works) {
        Slot& slot = slots_[work.id.value - 1];
        const bool fits = slot.length() + work.draft_max <= kDraftLimits.context_tokens;
        ASSERT_EQ(work.drafts, DraftsAfter(slot, fits ? work.draft_max : 0))
            << "slot " << work.id.value << ", step " << step;
        // Some drafts are kept, then comes another token.
        const int32_t kept = Below(static_cast<int32_t>(work.drafts.size()) + 1);
        slot.ids.insert(slot.ids.end(), work.drafts.begin(), work.drafts.begin() + kept);
        slot.ids.push_back(Below(kPoison));
        ++proposed;
      }
    }
  }
  int proposed = 0;

 private:
  int32_t Below(int32_t n) { return static_cast<int32_t>(rng_() % static_cast<uint64_t>(n)); }

  void Seat(int32_t index) {
    Slot& slot = slots_[index];
    slot = Slot{};
    slot.taken = true;
    slot.admission = ++stays_;
    slot.seed = rng_();
    slot.sequence = 2;
    slot.request.sampling.temperature = Below(2) == 0 ? 0.0f : 0.7f;
    slot.request.sampling.repetition_penalty = Below(2) == 0 ? 1.0f : 1.4f;
    slot.request.stop.min_tokens = Below(9);
    slot.request.stop.end_token_ids = slot.end_ids = {2};
    slot.prompt_tokens = 1 + Below(30);
    for (int32_t i = 0; i < slot.prompt_tokens + 1; ++i) slot.ids.push_back(Below(kPoison));
    for (int32_t b = 0; b < kBlocksOfSlot; ++b) {
      slot.blocks.push_back({1 + index * kBlocksOfSlot + b});
    }
  }

  std::mt19937_64 rng_;
  DraftModel model_;
  Slot slots_[kSlots];
  uint64_t stays_ = 0;
};

TEST(DraftModel, DraftsAreAFunctionOfTheTokensOfTheSlot) {
  SCOPED_TRACE("FATHOM_SEED=" + std::to_string(TestSeed()));
  for (uint64_t i = 0; i < 5; ++i) {
    DraftCpu cpu;
    Drafting on_cpu(TestSeed() * 100 + i, cpu.device.get());
    on_cpu.Run(100);
    EXPECT_GT(on_cpu.proposed, 300);
    FakeDevice gpu(kDraftLimits, 2);
    Drafting on_gpu(TestSeed() * 100 + i, &gpu);
    on_gpu.Run(100);
    EXPECT_EQ(on_gpu.proposed, on_cpu.proposed);
  }
}

// A sequence whose drafts are all kept costs one row of the draft model for each draft and one for
// the token after them.
Slot GreedySlot(std::vector<TokenId> ids, int32_t prompt_tokens) {
  Slot slot;
  slot.taken = true;
  slot.admission = 1;
  slot.prompt_tokens = prompt_tokens;
  slot.request = World::Greedy();
  slot.ids = std::move(ids);
  for (int32_t b = 1; b <= kBlocksOfSlot; ++b) slot.blocks.push_back({b});
  return slot;
}

TEST(DraftModel, KeptDraftsAreNotComputedAgain) {
  DraftCpu cpu;
  FakeDecoder& decoder = *cpu.decoder;
  DraftModel model(cpu.device.get(), kDraftLimits);
  model.Begin();
  Slot slot = GreedySlot({0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, 10);
  for (int round = 0; round < 4; ++round) {
    std::vector<DraftWork> works = {{SlotId{1}, &slot, 3}};
    decoder.largest_batch = 0;
    const int64_t before = decoder.forwards;
    ASSERT_TRUE(model.Propose(works).ok());
    EXPECT_EQ(works[0].drafts, DraftsAfter(slot, 3));
    EXPECT_EQ(decoder.forwards - before, 3);
    // The last draft and the token after it were not computed.
    EXPECT_EQ(decoder.largest_batch, round == 0 ? 11 : 2);
    slot.ids.insert(slot.ids.end(), works[0].drafts.begin(), works[0].drafts.end());
    slot.ids.push_back(DraftsAfter(slot, 1)[0]);
  }
}

TEST(DraftModel, LogitsThatAreNotFiniteGiveNoDraft) {
  DraftCpu cpu;
  DraftModel model(cpu.device.get(), kDraftLimits);
  model.Begin();
  const Slot slot = GreedySlot({1, kPoison, 4}, 2);
  std::vector<DraftWork> works = {{SlotId{1}, &slot, 3}};
  ASSERT_TRUE(model.Propose(works).ok());
  EXPECT_TRUE(works[0].drafts.empty());
}

}  // namespace
}  // namespace fathom::worker
