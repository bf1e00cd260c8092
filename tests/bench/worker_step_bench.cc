// Times decode steps of the worker's engine without transport, for comparisons with another engine
// in alternating blocks.
//   worker_step_bench MODEL_DIR THREADS
// It reads lines "ROWS STEPS" and answers with a JSON list of microseconds for each step: ROWS
// sequences with one token each, from contexts of 32 tokens on, greedy. A step is the worker's work
// between reading a plan and writing the result: deltas, forward pass, sampler, result.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cstdio>
#include <iostream>
#include <string>
#include <vector>

#include "common/clock.h"
#include "modeling/architectures/architecture.h"
#include "modeling/checkpoint/checkpoint.h"
#include "modeling/layout/memory_plan.h"
#include "worker/cpu/model_host.h"
#include "worker/engine/engine.h"

namespace fathom::worker {
namespace {

constexpr int32_t kPrompt = 32;
constexpr int32_t kBlockTokens = 16;

class Bench {
 public:
  Bench(const std::string& folder, int threads) {
    config_ = *ReadModelConfig(folder);
    checkpoint_ = *OpenCheckpoint(folder, config_);
    limits_ = {.context_tokens = config_.context,
               .block_tokens = kBlockTokens,
               .pool_blocks = 2049,
               .slots = 64,
               .step_tokens = 512,
               .vocab = config_.vocab};
    host_ = std::make_unique<ModelHost>(SpecOf(config_), checkpoint_.get(),
                                        ModelHostOptions{{}, limits_, LogitsRows(limits_), threads},
                                        &clock_, &progress_);
    device_ = *host_->ForRank(0);
    comm_ = std::make_unique<SingleRankComm>();
    device_->comm()->SetTarget(comm_.get());
  }

  std::vector<int64_t> Block(int32_t rows, int32_t steps) {
    Engine engine(device_, {.term = {1}, .epoch = {1}, .limits = limits_});
    StepPlan plan{.term = {1}, .epoch = {1}, .step = {0}};
    const int32_t blocks = (kPrompt + steps) / kBlockTokens + 1;
    for (int32_t s = 0; s < rows; ++s) {
      Admit admit{.slot = {s + 1}, .prompt_tokens = kPrompt};
      admit.request.stop.max_tokens = steps + 1;
      admit.request.sampling.temperature = 0;
      for (int32_t i = 0; i < kPrompt; ++i)
        admit.ids.push_back(3 + (7 * s + 13 * i) % (config_.vocab - 96));
      Extend extend{.slot = {s + 1}};
      for (int32_t b = 0; b < blocks; ++b) extend.block_ids.push_back({1 + s * blocks + b});
      plan.admits.push_back(std::move(admit));
      plan.extends.push_back(std::move(extend));
      plan.chunks.push_back({.slot = {s + 1}, .work = kPrompt, .sample = true});
    }
    Execute(&engine, plan);
    std::vector<int64_t> times_us;
    for (int32_t step = 1; step <= steps; ++step) {
      StepPlan decode{.term = {1}, .epoch = {1}, .step = {static_cast<uint64_t>(step)}};
      for (int32_t s = 0; s < rows; ++s) {
        decode.chunks.push_back(
            {.slot = {s + 1}, .work = DecodeRow{{decode.step.value - 1}}, .sample = true});
      }
      const TimeUs begin = clock_.Now();
      const StepResult result = Execute(&engine, decode);
      times_us.push_back(clock_.Now() - begin);
      FATHOM_CHECK(std::ssize(result.rows) == rows);
    }
    return times_us;
  }

 private:
  StepResult Execute(Engine* engine, const StepPlan& plan) {
    FATHOM_CHECK(engine->Submit(plan, &step_).ok());
    return engine->Collect(step_, &stream_);
  }

  const RealClock clock_;
  ModelConfig config_;
  std::unique_ptr<Checkpoint> checkpoint_;
  EngineLimits limits_;
  Progress progress_;
  std::unique_ptr<ModelHost> host_;
  std::unique_ptr<Comm> comm_;
  Device* device_ = nullptr;
  SubmittedStep step_;
  StepStream stream_;
};

}  // namespace
}  // namespace fathom::worker

int main(int argc, char** argv) {
  if (argc != 3) {
    fmt::print(stderr, "usage: worker_step_bench MODEL_DIR THREADS\n");
    return 64;
  }
  fathom::worker::Bench bench(argv[1], std::stoi(argv[2]));
  fmt::print("ready\n");
  std::fflush(stdout);
  int rows = 0, steps = 0;
  while (std::cin >> rows >> steps) {
    fmt::print("[{}]\n", fmt::join(bench.Block(rows, steps), ","));
    std::fflush(stdout);
  }
  return 0;
}
