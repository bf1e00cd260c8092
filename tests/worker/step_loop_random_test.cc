// Random answers over a device with several steps in flight. Plans are made ahead of the results,
// like a scheduler's. The tokens and log-probabilities of every sequence equal those of the
// sequence alone. Some sequences are poisoned, which affects no other sequence.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>

#include "tests/worker/plan_channel.h"
#include "worker/engine/step_loop.h"

namespace fathom::worker {
namespace {

// Its ids are those of the results so far.
struct Sequence : Naive {
  int32_t until = 0;           // Length at which it is released.
  int32_t poison = INT32_MAX;  // Rows from this position on have logits that are not finite.
  // The state of the sequence after the plans so far.
  std::vector<BlockId> blocks;
  int32_t length = 0;
  int32_t computed = 0;
  std::optional<StepId> sampled_by;
  // Whether a result so far had a fault.
  bool faulted = false;
};

class RandomScheduler final : public StepChannel {
 public:
  RandomScheduler(uint64_t seed, int ahead, uint64_t steps)
      : rng_(seed), ahead_(static_cast<uint64_t>(ahead)), steps_(steps) {
    for (int32_t block = 1; block < kLoopLimits.pool_blocks; ++block) free_.push_back({block});
  }

  absl::StatusOr<StepPlan> Read() override {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return sent_ - done_ < ahead_; });
    if (sent_ == steps_) return Unavailable("all steps were sent");
    return MakePlan();
  }

  absl::Status Write(const StepResult& result) override {
    const std::lock_guard lock(mutex_);
    Check(result);
    ++done_;
    changed_.notify_all();
    return absl::OkStatus();
  }

  // REQUIRES: the epoch has ended.
  uint64_t done() const { return done_; }
  int tokens() const { return tokens_; }
  int faults() const { return faults_; }

 private:
  struct Sent {
    std::shared_ptr<Sequence> sequence;
    int32_t start = 0;
    int32_t count = 0;
    bool sample = false;
  };

  int32_t Below(int32_t n) { return static_cast<int32_t>(rng_() % static_cast<uint64_t>(n)); }

  void AdmitOne(StepPlan* plan, SlotId slot) {
    auto sequence = std::make_shared<Sequence>();
    SamplingParams& sampling = sequence->request.sampling;
    sampling.temperature = Below(2) == 0 ? 0.0f : 0.8f;
    if (Below(2) == 0) sampling.top_p = 0.9f;
    if (Below(2) == 0) sampling.repetition_penalty = 1.3f;
    if (Below(2) == 0) sampling.frequency_penalty = 0.25f;
    if (Below(2) == 0) sampling.logit_bias = {{1, 2.0f}, {7, -3.0f}};
    if (Below(2) == 0) sequence->request.output.logprobs = Below(3);
    if (Below(2) == 0) sequence->request.output.prompt_logprobs = Below(3);
    if (Below(3) == 0) {
      sequence->request.thinking = {Below(kFakeVocab - 1), Below(kFakeVocab - 1), Below(12),
                                    Below(3) != 0};
    }
    sequence->request.stop.min_tokens = Below(4);
    sequence->request.stop.end_token_ids = {2, 3};
    sequence->seed = rng_();
    sequence->prompt_tokens = 1 + Below(40);
    for (int32_t i = 0; i < sequence->prompt_tokens; ++i) sequence->ids.push_back(Below(kPoison));
    if (Below(6) == 0) {
      sequence->poison = Below(sequence->prompt_tokens);
      sequence->ids[static_cast<size_t>(sequence->poison)] = kPoison;
    }
    sequence->length = sequence->prompt_tokens;
    sequence->until = sequence->prompt_tokens + 1 + Below(30);
    Admit admit{.slot = slot,
                .request = sequence->request,
                .seed = sequence->seed,
                .sequence = sequence->sequence};
    admit.prompt_tokens = sequence->prompt_tokens;
    admit.ids = sequence->ids;
    plan->admits.push_back(std::move(admit));
    seated_[slot] = std::move(sequence);
  }

  void AddChunk(StepPlan* plan, SlotId slot, const std::shared_ptr<Sequence>& sequence,
                int32_t budget) {
    Chunk chunk{slot, 0, false};
    int32_t count = 1;
    if (sequence->sampled_by) {
      chunk.work = DecodeRow{*sequence->sampled_by};
    } else {
      count = std::min(budget, 1 + Below(sequence->prompt_tokens - sequence->computed));
      chunk.work = count;
    }
    sent_chunks_[plan->step].push_back({sequence, sequence->computed, count, false});
    sequence->computed += count;
    if (sequence->computed == sequence->length) {
      chunk.sample = sent_chunks_[plan->step].back().sample = true;
      sequence->sampled_by = plan->step;
      ++sequence->length;
    }
    Extend extend{slot, {}};
    while (std::ssize(sequence->blocks) * kLoopLimits.block_tokens < sequence->computed) {
      sequence->blocks.push_back(free_.front());
      extend.block_ids.push_back(free_.front());
      free_.pop_front();
    }
    if (!extend.block_ids.empty()) plan->extends.push_back(std::move(extend));
    plan->chunks.push_back(chunk);
  }

  StepPlan MakePlan() {
    StepPlan plan = PlanOf(sent_++);
    for (auto it = seated_.begin(); it != seated_.end();) {
      const Sequence& sequence = *it->second;
      const bool over = sequence.length > sequence.until || sequence.faulted || Below(50) == 0;
      if (!over) {
        ++it;
        continue;
      }
      plan.releases.push_back(it->first);
      free_.insert(free_.begin(), sequence.blocks.begin(), sequence.blocks.end());  // Used soon.
      it = seated_.erase(it);
    }
    for (int32_t slot = 1; slot <= kLoopLimits.slots; ++slot) {
      if (!seated_.contains({slot}) && Below(3) == 0) AdmitOne(&plan, {slot});
    }
    int32_t budget = kLoopLimits.step_tokens;
    for (const auto& [slot, sequence] : seated_) {
      if (budget == 0 || Below(6) == 0) continue;
      AddChunk(&plan, slot, sequence, budget);
      budget -= sent_chunks_[plan.step].back().count;
    }
    return plan;
  }

  void Check(const StepResult& result) {
    const std::vector<Sent> sent = std::move(sent_chunks_[result.step]);
    sent_chunks_.erase(result.step);
    ASSERT_EQ(result.step.value, done_);
    ASSERT_EQ(result.rows.size(), sent.size());
    for (size_t i = 0; i < sent.size(); ++i) {
      ASSERT_EQ(result.rows[i].row, static_cast<int32_t>(i));
      ASSERT_NO_FATAL_FAILURE(CheckRow(sent[i], result.rows[i]));
    }
  }

  void CheckRow(const Sent& sent, const ResultRow& row) {
    Sequence& sequence = *sent.sequence;
    const int32_t end = sent.start + sent.count;
    int32_t scores = 0;
    if (sequence.request.output.prompt_logprobs) {
      scores = std::max(0, std::min(end + 1, sequence.prompt_tokens) - (sent.start + 1));
    }
    const int32_t last_output = sent.sample ? end - 1 : sent.start + scores - 1;
    if (scores > 0 || sent.sample) sequence.faulted |= last_output >= sequence.poison;
    if ((scores > 0 || sent.sample) && sequence.faulted) {
      ++faults_;
      ASSERT_EQ(row.fault, RowFault::kNonFiniteLogits);
      ASSERT_TRUE(row.ids.empty() && !row.prompt_logprobs);
      return;
    }
    ASSERT_EQ(row.fault, RowFault::kNone);
    ASSERT_EQ(row.prompt_logprobs.has_value(), scores > 0);
    for (int32_t i = 0; i < scores; ++i) {
      const auto scored = static_cast<size_t>(sent.start + 1 + i);
      CheckLogprob(row.prompt_logprobs->logprobs.at(static_cast<size_t>(i)),
                   std::span(sequence.ids).first(scored), sequence.ids[scored],
                   *sequence.request.output.prompt_logprobs);
    }
    ASSERT_EQ(row.ids.size(), sent.sample ? 1u : 0u);
    if (!sent.sample) return;
    ASSERT_EQ(row.position, static_cast<int32_t>(sequence.ids.size()) - sequence.prompt_tokens);
    ASSERT_EQ(row.ids[0], sequence.Next());
    ASSERT_EQ(row.logprobs.size(), sequence.request.output.logprobs ? 1u : 0u);
    if (sequence.request.output.logprobs) {
      CheckLogprob(row.logprobs[0], sequence.ids, row.ids[0], *sequence.request.output.logprobs);
    }
    sequence.ids.push_back(row.ids[0]);
    ++tokens_;
  }

  static void CheckLogprob(const TokenLogprob& scored, std::span<const TokenId> before, TokenId id,
                           int32_t top) {
    std::vector<TokenId> top_ids(static_cast<size_t>(top));
    std::vector<float> top_logprobs(static_cast<size_t>(top));
    const std::vector<float> logits = FakeLogits(before);
    EXPECT_EQ(scored.id, id);
    EXPECT_EQ(scored.logprob, kernels::LogprobRef({logits, 1, id, top_ids, top_logprobs}));
    EXPECT_EQ(scored.top_ids, top_ids);
    EXPECT_EQ(scored.top_logprobs, top_logprobs);
  }

  std::mt19937_64 rng_;
  const uint64_t ahead_;
  const uint64_t steps_;
  std::mutex mutex_;  // Guards what follows.
  std::condition_variable changed_;
  std::deque<BlockId> free_;
  std::map<SlotId, std::shared_ptr<Sequence>> seated_;
  std::map<StepId, std::vector<Sent>> sent_chunks_;
  uint64_t sent_ = 0;
  uint64_t done_ = 0;
  int tokens_ = 0;
  int faults_ = 0;
};

// The steps in flight of the device, and the number of plans ahead of the results.
using InFlight = std::pair<int, int>;
class RandomAnswers : public testing::TestWithParam<InFlight> {};
INSTANTIATE_TEST_SUITE_P(StepLoop, RandomAnswers,
                         testing::Values(InFlight{1, 2}, InFlight{3, 1}, InFlight{3, 2},
                                         InFlight{3, 5}, InFlight{2, 3}));

TEST_P(RandomAnswers, EverySequenceIsAsIfAlone) {
  const char* chosen = std::getenv("FATHOM_SEED");
  const uint64_t seed = chosen != nullptr ? std::strtoull(chosen, nullptr, 10) : 1;
  SCOPED_TRACE("FATHOM_SEED=" + std::to_string(seed));
  const RealClock clock;
  const std::atomic<bool> stop{false};
  const auto [in_flight, ahead] = GetParam();
  FakeDevice device(kLoopLimits, in_flight);  // The same one for all epochs.
  int tokens = 0, faults = 0;
  for (uint64_t i = 0; i < 5; ++i) {
    RandomScheduler scheduler(seed * 1000 + i, ahead, 150);
    Progress progress;
    Epoch epoch(LoopSeat(), 0);
    const absl::Status ended =
        RunEpoch(epoch, {&device, &scheduler, &clock, &progress, &stop, nullptr});
    EXPECT_EQ(Message(ended), "all steps were sent");
    EXPECT_EQ(scheduler.done(), 150u);
    tokens += scheduler.tokens();
    faults += scheduler.faults();
  }
  EXPECT_GT(tokens, 500);
  EXPECT_GT(faults, 20);
}

}  // namespace
}  // namespace fathom::worker
