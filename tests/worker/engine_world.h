// tests/worker/engine_world.h: an engine on the CPU device with a fake decoder.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "tests/worker/fake_decoder.h"
#include "tests/worker/guessing_proposer.h"
#include "tests/worker/naive_sequence.h"
#include "worker/cpu/cpu_device.h"
#include "worker/engine/engine.h"

namespace fathom::worker {

inline constexpr EngineLimits kLimits{.context_tokens = 96,
                                      .block_tokens = 16,
                                      .pool_blocks = 64,
                                      .slots = 8,
                                      .step_tokens = 48,
                                      .vocab = kFakeVocab};
inline constexpr int32_t kLogitsRows = 8;

// Executes a step on a device with one step in flight.
inline absl::StatusOr<StepResult> Execute(Engine* engine, const StepPlan& plan) {
  SubmittedStep step;
  StepStream stream;
  FATHOM_RETURN_IF_ERROR(engine->Submit(plan, &step));
  return engine->Collect(step, &stream);
}

struct World {
  // `draft_max` > 0: the group speculates.
  explicit World(int32_t draft_max) : World(kLimits, draft_max) {}
  explicit World(const EngineLimits& of_group = kLimits, int32_t draft_max = 0,
                 const GrammarEngine* grammars = nullptr)
      : limits(of_group), drafts(draft_max) {
    kv = Allocate(limits.pool_blocks);
    if (limits.host_blocks > 0) swap_space = Allocate(limits.host_blocks + 1);
    decoder = std::make_unique<FakeDecoder>(kv.get(), &comm, kLogitsRows);
    device = std::make_unique<CpuDevice>(CpuDeviceParts{decoder.get(), kv.get(), &comm, &clock,
                                                        limits, kLogitsRows, swap_space.get(),
                                                        &proposer, grammars});
    comm.SetTarget(&single);
    Restart();
  }
  void Restart() {
    GroupSeat seat;
    seat.term = {3};
    seat.epoch = {5};
    seat.limits = limits;
    seat.limits.draft_max = drafts;
    engine = std::make_unique<Engine>(device.get(), seat);
    step = 0;
  }
  absl::StatusOr<StepResult> Execute(const StepPlan& plan) {
    return worker::Execute(engine.get(), plan);
  }
  StepPlan Plan() {
    StepPlan plan;
    plan.term = {3};
    plan.epoch = {5};
    plan.step = {step++};
    return plan;
  }
  // Admits `ids` as a prompt, with blocks for the whole context from block 1 + 6 * (slot - 1) on.
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

  std::unique_ptr<KvCache> Allocate(int32_t blocks) const {
    auto allocated = KvCache::Allocate(FakeDecoder::Shape(limits.block_tokens, blocks));
    FATHOM_CHECK(allocated.ok());
    return *std::move(allocated);
  }

  const EngineLimits limits;
  const int32_t drafts;
  GuessingProposer proposer;
  ManualClock clock;
  Progress progress;
  SingleRankComm single;
  EpochComm comm{0, 1, &clock, &progress};
  std::unique_ptr<KvCache> kv;
  std::unique_ptr<KvCache> swap_space;
  std::unique_ptr<FakeDecoder> decoder;
  std::unique_ptr<CpuDevice> device;
  std::unique_ptr<Engine> engine;
  uint64_t step = 0;
};

}  // namespace fathom::worker
