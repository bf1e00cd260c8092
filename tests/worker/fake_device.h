// tests/worker/fake_device.h: a device with several steps in flight, like a GPU. Submit copies
// everything that the step needs. Steps end later, in order, when the test allows it. A sample
// feeds the next step without the engine. The logits are those of fake_decoder.h.
#pragma once

#include <algorithm>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "common/check.h"
#include "common/clock.h"
#include "kernels/logprob.h"
#include "kernels/sample.h"
#include "tests/worker/fake_decoder.h"
#include "worker/engine/device.h"
#include "worker/engine/sampling.h"

namespace fathom::worker {

class FakeDevice final : public Device {
 public:
  FakeDevice(const EngineLimits& limits, int steps_in_flight)
      : limits_(limits),
        steps_in_flight_(steps_in_flight),
        tokens_(static_cast<size_t>(limits.pool_blocks * limits.block_tokens), kStale),
        slots_(static_cast<size_t>(limits.slots) + 1) {
    comm_.SetTarget(&single_);
  }

  // The times in the outputs of each step.
  static constexpr int64_t kComputeUs = 70, kDeviceUs = 60, kIdleUs = 5;

  // No step ends from now on, until LetAll.
  void Hold() { Allow(0); }
  void LetAll() { Allow(UINT64_MAX); }
  // Waits until `steps` steps are submitted and not collected.
  void WaitInFlight(uint64_t steps) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return submitted_ - collected_ >= steps; });
  }
  // The next Submit fails.
  void FailNext(absl::Status why) {
    const std::lock_guard lock(mutex_);
    failure_ = std::move(why);
  }
  // The zeroed blocks, in the order of the steps. REQUIRES: no step is in flight.
  const std::vector<BlockId>& zeroed() const { return zeroed_; }
  int drains() const { return drains_; }

  Proposer* proposer() override { return proposer_; }
  void SetProposer(Proposer* proposer) { proposer_ = proposer; }
  // Each row of a step is sampled by itself, as on a GPU.
  bool drafts_penalized() const override { return false; }
  int steps_in_flight() const override { return steps_in_flight_; }
  EpochComm* comm() override { return &comm_; }

  absl::Status Submit(const StepBatch& batch) override {
    Work work{.copies = {batch.copies.begin(), batch.copies.end()}, .zeroed = batch.zeroed};
    for (const AdmitWork& admit : batch.admits) {
      work.admits.push_back(
          {admit.id, *admit.slot, admit.start, {admit.ids.begin(), admit.ids.end()}});
    }
    int32_t rows = 0, outputs = 0;
    for (const ChunkWork* at : batch.chunks) {
      const ChunkWork& chunk = *at;
      FATHOM_CHECK(chunk.first_row == rows && chunk.first_output == outputs);
      FATHOM_CHECK(chunk.fault == RowFault::kNone && chunk.count > 0);
      FATHOM_CHECK(work.chunks.empty() || !chunk.decodes() ||
                   work.chunks.back().chunk.decodes());  // Decode rows come first.
      work.chunks.push_back({chunk, *chunk.slot});
      rows += chunk.count;
      outputs += chunk.outputs();
    }
    FATHOM_CHECK(rows == batch.rows && outputs == batch.outputs && rows <= limits_.step_tokens);
    const std::lock_guard lock(mutex_);
    if (!failure_.ok()) return std::exchange(failure_, absl::OkStatus());
    FATHOM_CHECK(submitted_ - collected_ < static_cast<uint64_t>(steps_in_flight_));
    queue_.push_back(std::move(work));
    ++submitted_;
    changed_.notify_all();
    return absl::OkStatus();
  }

  StepOutputs Collect() override {
    Work work;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return !queue_.empty() && collected_ < allowed_; });
      work = std::move(queue_.front());
      queue_.pop_front();
    }
    Compute(work);
    const StepOutputs outputs{.rows = outputs_,
                              .collected_at_us = clock_.Now(),
                              .compute_us = kComputeUs,
                              .device_us = kDeviceUs,
                              .device_idle_us = kIdleUs,
                              .graph = work.admits.empty()};
    const std::lock_guard lock(mutex_);
    ++collected_;
    changed_.notify_all();
    return outputs;
  }

  std::string NonFiniteDetail(int32_t first, int32_t count) const override {
    return "rows " + std::to_string(first) + " + " + std::to_string(count);
  }

  void Drain() override {
    const std::lock_guard lock(mutex_);
    FATHOM_CHECK(submitted_ == collected_);
    ++drains_;
  }

 private:
  static constexpr TokenId kStale = -7;
  struct AdmitCopy {
    SlotId id;
    Slot slot;
    int32_t start = 0;
    std::vector<TokenId> ids;
  };
  struct ChunkCopy {
    ChunkWork chunk;
    Slot slot;  // As it was when the step was submitted.
  };
  struct Work {
    std::vector<BlockCopy> copies;
    std::vector<BlockId> zeroed;
    std::vector<AdmitCopy> admits;
    std::vector<ChunkCopy> chunks;
  };
  struct SlotState {
    std::vector<kernels::SeenToken> seen;
    TokenId sampled = kStale;
    kernels::ThinkingSlot thinking;
    RowFault fault = RowFault::kNone;
  };

  void Allow(uint64_t more) {
    const std::lock_guard lock(mutex_);
    allowed_ = more == 0 ? collected_ : more;
    changed_.notify_all();
  }

  TokenId* BlockAt(BlockId block) { return &tokens_[static_cast<size_t>(block.value * Width())]; }
  int32_t Width() const { return limits_.block_tokens; }

  static void See(SlotState* state, TokenId id, bool output) {
    auto it = std::find_if(state->seen.begin(), state->seen.end(),
                           [&](const kernels::SeenToken& token) { return token.id == id; });
    if (it == state->seen.end()) it = state->seen.insert(it, {id, 0});
    if (output) ++it->output_count;
  }

  void Compute(const Work& work) {
    for (const BlockCopy& copy : work.copies) {
      FATHOM_CHECK(copy.operation == CopyOperation::kInPool);
      std::copy_n(BlockAt(copy.from), Width(), BlockAt(copy.to));
    }
    for (const BlockId block : work.zeroed) std::fill_n(BlockAt(block), Width(), kStale);
    zeroed_.insert(zeroed_.end(), work.zeroed.begin(), work.zeroed.end());
    for (const AdmitCopy& admit : work.admits) {
      SlotState& state = slots_[static_cast<size_t>(admit.id.value)];
      if (admit.start == 0) state = {};
      state.thinking = admit.slot.thinking;
      for (int32_t i = 0; i < std::ssize(admit.ids); ++i) {
        See(&state, admit.ids[static_cast<size_t>(i)], admit.start + i >= admit.slot.prompt_tokens);
      }
    }
    outputs_.clear();
    top_ids_.assign(static_cast<size_t>(limits_.step_tokens) * kTopLogprobsMax, 0);
    top_logprobs_.assign(top_ids_.size(), 0);
    for (const ChunkCopy& copy : work.chunks) Compute(copy.chunk, copy.slot);
  }

  void Compute(const ChunkWork& chunk, const Slot& slot) {
    SlotState& state = slots_[static_cast<size_t>(chunk.id.value)];
    const auto cell = [&](int32_t position) -> TokenId& {
      return BlockAt(slot.blocks[static_cast<size_t>(position / Width())])[position % Width()];
    };
    for (int32_t position = chunk.start; position < chunk.end(); ++position) {
      const int32_t at = position - chunk.start;
      cell(position) = chunk.fed && at == 0              ? state.sampled
                       : at > 0 && !chunk.drafts.empty() ? chunk.drafts[static_cast<size_t>(at) - 1]
                                                         : slot.ids[static_cast<size_t>(position)];
      const int32_t index = position - (chunk.end() - chunk.samples());
      const bool sample = index >= 0;
      if (!sample && at >= chunk.scores) continue;
      std::vector<TokenId> ids;
      for (int32_t i = 0; i <= position; ++i) ids.push_back(cell(i));
      const std::vector<float> logits = FakeLogits(ids);
      RowOutput& output = outputs_.emplace_back();
      if (!std::isfinite(logits[0]) && state.fault == RowFault::kNone) {
        state.fault = RowFault::kNonFiniteLogits;
      }
      output.fault = state.fault;
      if (output.fault != RowFault::kNone) continue;
      output.token = sample ? Sample(chunk.position + index, slot, logits, index > 0, &state)
                            : slot.ids[static_cast<size_t>(position) + 1];
      const auto& asked =
          sample ? slot.request.output.logprobs : slot.request.output.prompt_logprobs;
      if (asked) Score(logits, static_cast<size_t>(*asked), &output);
    }
  }

  TokenId Sample(int32_t position, const Slot& slot, std::span<const float> logits, bool drafted,
                 SlotState* state) {
    kernels::SampleScratch scratch;
    kernels::SampleArgs args{.logits = logits,
                             .bias = slot.request.sampling.logit_bias,
                             .seen = state->seen,
                             .position = position,
                             .scratch = &scratch};
    SetSampling(slot, &args);
    if (position < slot.request.stop.min_tokens) args.banned = slot.end_ids;
    state->sampled = kernels::SampleRef(args);
    // As on a GPU: a row after a draft changes no state, so the reasoning must be over there.
    if (kernels::ForcesThinkingEnd(state->thinking, position)) {
      state->sampled = state->thinking.end;
    }
    FATHOM_CHECK(!drafted || state->thinking.state == kernels::kThinkingOver);
    state->thinking.state = kernels::ThinkingAfter(state->thinking, state->sampled, position);
    See(state, state->sampled, true);
    return state->sampled;
  }

  void Score(std::span<const float> logits, size_t top, RowOutput* output) {
    const size_t begin = (outputs_.size() - 1) * kTopLogprobsMax;
    const auto ids = std::span(top_ids_).subspan(begin, top);
    const auto logprobs = std::span(top_logprobs_).subspan(begin, top);
    output->logprob = kernels::LogprobRef({logits, 1, output->token, ids, logprobs});
    output->top_ids = ids;
    output->top_logprobs = logprobs;
  }

  const EngineLimits limits_;
  const int steps_in_flight_;
  Proposer* proposer_ = nullptr;
  const RealClock clock_;
  Progress progress_;
  SingleRankComm single_;
  EpochComm comm_{0, 1, &clock_, &progress_};
  // Used only by the thread that collects.
  std::vector<TokenId> tokens_;  // [pool_blocks][block_tokens]
  std::vector<SlotState> slots_;
  std::vector<RowOutput> outputs_;
  std::vector<TokenId> top_ids_;
  std::vector<float> top_logprobs_;
  std::vector<BlockId> zeroed_;
  int drains_ = 0;
  std::mutex mutex_;  // Guards what follows.
  std::condition_variable changed_;
  std::deque<Work> queue_;
  absl::Status failure_;
  uint64_t submitted_ = 0;
  uint64_t collected_ = 0;
  uint64_t allowed_ = UINT64_MAX;
};

}  // namespace fathom::worker
