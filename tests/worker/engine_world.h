// tests/worker/engine_world.h: an engine on the CPU device with a fake decoder, and a naive model
// of a single sequence, with which the tests compare the engine.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <set>
#include <span>
#include <utility>
#include <vector>

#include "kernels/logprob.h"
#include "kernels/sample.h"
#include "tests/worker/fake_decoder.h"
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
  World() {
    auto allocated =
        KvCache::Allocate(FakeDecoder::Shape(kLimits.block_tokens, kLimits.pool_blocks));
    FATHOM_CHECK(allocated.ok());
    kv = *std::move(allocated);
    decoder = std::make_unique<FakeDecoder>(kv.get(), &comm, kLogitsRows);
    device = std::make_unique<CpuDevice>(
        CpuDeviceParts{decoder.get(), kv.get(), &comm, &clock, kLimits, kLogitsRows});
    comm.SetTarget(&single);
    Restart();
  }
  void Restart() {
    GroupSeat seat;
    seat.term = {3};
    seat.epoch = {5};
    seat.limits = kLimits;
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

  ManualClock clock;
  Progress progress;
  SingleRankComm single;
  EpochComm comm{0, 1, &clock, &progress};
  std::unique_ptr<KvCache> kv;
  std::unique_ptr<FakeDecoder> decoder;
  std::unique_ptr<CpuDevice> device;
  std::unique_ptr<Engine> engine;
  uint64_t step = 0;
};

// Computes the expected tokens of a single sequence.
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
    kernels::SamplerParams params;
    CopySamplingValues(request.sampling, &params);
    return kernels::SampleRef({.logits = logits,
                               .params = params,
                               .bias = request.sampling.logit_bias,
                               .banned = banned,
                               .seen = seen,
                               .seed = seed,
                               .sequence = 2,
                               .position = position,
                               .scratch = &scratch});
  }
};

inline float NaiveLogprob(std::span<const TokenId> before, TokenId id) {
  const std::vector<float> logits = FakeLogits(before);
  return kernels::LogprobRef({logits, 1, id, {}, {}});
}

}  // namespace fathom::worker
