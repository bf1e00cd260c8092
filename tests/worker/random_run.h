// tests/worker/random_run.h: random plans for an engine, whose results are compared with the naive
// model of each sequence.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <deque>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "tests/worker/engine_world.h"

namespace fathom::worker {

inline uint64_t TestSeed() {
  const char* seed = std::getenv("FATHOM_SEED");
  return seed != nullptr ? std::strtoull(seed, nullptr, 10) : 1;
}

// Plays a scheduler: random admissions, chunks and releases, two plans ahead of the results.
class RandomRun {
 public:
  // `draft_max` > 0: decode rows may have drafts.
  explicit RandomRun(uint64_t seed, int32_t draft_max = 0)
      : draft_max_(draft_max), rng_(seed), world_(draft_max) {
    for (int32_t block = 1; block < kLimits.pool_blocks; ++block) free_blocks_.push_back({block});
    for (int32_t slot = 1; slot <= kLimits.slots; ++slot) free_slots_.push_back({slot});
  }

  void Run(int steps) {
    for (int i = 0; i < steps; ++i) {
      const StepPlan plan = MakePlan();
      rows_seen_ = std::max(rows_seen_, plan.chunks.size());
      const auto result = world_.Execute(plan);
      ASSERT_TRUE(result.ok()) << ToString(result.status());
      ASSERT_NO_FATAL_FAILURE(Check(plan, *result));
      plans.push_back(plan);
      results.push_back(*result);
    }
    EXPECT_GE(rows_seen_, 4u);
    EXPECT_GE(finished_, steps / 20);
  }

  int64_t proposed() const { return world_.proposer.proposed; }
  int64_t kept() const { return kept_; }

  // Of the steps that were run.
  std::vector<StepPlan> plans;
  std::vector<StepResult> results;

 private:
  struct Seated {
    Naive naive;
    std::vector<BlockId> blocks;
    int32_t computed = 0;
    int32_t admitted = 0;  // The number of admitted ids; later plans admit the others.
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
    if (Below(3) == 0) {
      // The token that begins reasoning is the likely first one of some sequences.
      request.thinking = {Below(kFakeVocab - 1), Below(kFakeVocab - 1), Below(12), Below(3) != 0};
    }
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
    // The sequence was suspended with some tokens, which are replayed as a prefill.
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
        const int32_t drafts = std::min(Below(draft_max_ + 1), budget - 1);
        chunk.work = DecodeRow{*seated.sampled_by, drafts};
        chunk.sample = true;
        count += drafts;
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
      const int32_t granted = count != nullptr ? 0 : std::get<DecodeRow>(chunk.work).draft_max;
      ASSERT_GE(row.ids.size(), chunk.sample ? 1u : 0u);
      ASSERT_LE(row.drafted, granted);
      ASSERT_LE(std::ssize(row.ids), chunk.sample ? 1 + row.drafted : 0);
      if (!chunk.sample) continue;
      ASSERT_EQ(row.position, static_cast<int32_t>(naive.ids.size()) - naive.prompt_tokens);
      ASSERT_NO_FATAL_FAILURE(CheckSamples(row, &naive));
      kept_ += std::ssize(row.ids) - 1;
      seated.computed += static_cast<int32_t>(row.ids.size()) - 1;
      seated.sampled_by = plan.step;
    }
  }

  static void CheckSamples(const ResultRow& row, Naive* naive) {
    ASSERT_EQ(row.logprobs.size(), naive->request.output.logprobs ? row.ids.size() : 0u);
    for (size_t i = 0; i < row.ids.size(); ++i) {
      ASSERT_EQ(row.ids[i], naive->Next());
      if (naive->request.output.logprobs) {
        ASSERT_EQ(row.logprobs[i].logprob, NaiveLogprob(naive->ids, row.ids[i]));
        ASSERT_EQ(row.logprobs[i].top_ids.size(),
                  static_cast<size_t>(*naive->request.output.logprobs));
      }
      naive->ids.push_back(row.ids[i]);
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

  const int32_t draft_max_;
  std::mt19937_64 rng_;
  World world_;
  int64_t kept_ = 0;
  std::deque<BlockId> free_blocks_;
  std::deque<SlotId> free_slots_;
  std::map<SlotId, Seated> seated_;
  size_t rows_seen_ = 0;
  int finished_ = 0;
};

}  // namespace fathom::worker
