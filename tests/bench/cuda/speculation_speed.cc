// tests/bench/cuda/speculation_speed.cc: the speed of speculative decoding on one GPU, at a shape
// with dummy weights, beside plain decoding in the same run: speculation_speed SHAPE.json Dummy
// weights repeat nothing, and no draft model agrees with them. So the acceptance is a fixed
// pattern: the drafts are the tokens of plain decoding, except that those at 3 of 10 positions are
// wrong. "lookup": the drafts cost nothing, as n-gram lookup; "draft": a draft model of a 1.3B
// shape computes drafts of its own, which are then replaced by those of the pattern. All tokens are
// compared with those of plain decoding. Prints a line of JSON for each measurement.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "common/check.h"
#include "common/clock.h"
#include "modeling/architectures/architecture.h"
#include "modeling/checkpoint/checkpoint.h"
#include "modeling/layout/cuda_draft_plan.h"
#include "modeling/spec/rank_model.h"
#include "worker/cuda/cuda_backend.h"
#include "worker/engine/draft_model.h"
#include "worker/engine/engine.h"

namespace fathom::worker {
namespace {

constexpr int32_t kPrompt = 160, kTokens = 385, kBatchMax = 8, kDraftsMost = 7;
constexpr const char* kDraftShape =
    R"({"hidden_size": 2048, "num_hidden_layers": 24, "num_attention_heads": 16,
        "num_key_value_heads": 16, "intermediate_size": 5504})";

using Ids = std::vector<std::vector<TokenId>>;  // By slot.

// Drafts of the fixed pattern, after those of a model if there is one.
class Pattern final : public Proposer {
 public:
  void Begin() override {
    if (model != nullptr) model->Begin();
  }
  absl::Status Propose(std::span<DraftWork> rows) override {
    if (model != nullptr) FATHOM_RETURN_IF_ERROR(model->Propose(rows));
    for (DraftWork& row : rows) {
      const std::vector<TokenId>& right = (*answers)[static_cast<size_t>(row.id.value) - 1];
      row.drafts.clear();
      for (int32_t i = 0; i < row.draft_max; ++i) {
        const size_t at = row.slot->ids.size() - kPrompt + static_cast<size_t>(i);
        const TokenId token = at < right.size() ? right[at] : 0;
        row.drafts.push_back(at * 7 % 10 < 7 ? token : token ^ 1);
      }
    }
    return absl::OkStatus();
  }
  Proposer* model = nullptr;
  const Ids* answers = nullptr;
};

struct Run {
  Ids ids;
  double tokens_per_s = 0;
  double tokens_per_row = 0;
};

class Bench {
 public:
  explicit Bench(const std::string& shape) {
    const ModelConfig config = ReadModelConfig(shape).value();
    const ModelConfig draft = ReadModelConfig(shape, kDraftShape).value();
    checkpoint_ = OpenCheckpoint(shape, config, LoadFormat::kDummy).value();
    draft_checkpoint_ = OpenCheckpoint(shape, draft, LoadFormat::kDummy, 1).value();
    size_t free_bytes = 0, all_bytes = 0;
    FATHOM_CHECK(cudaMemGetInfo(&free_bytes, &all_bytes) == cudaSuccess);
    CudaMemoryRequest request;
    request.capacity_bytes = static_cast<int64_t>(all_bytes);
    request.taken_bytes = static_cast<int64_t>(all_bytes - free_bytes);
    request.context_tokens = 1024;
    request.slots = kBatchMax;
    request.step_tokens = 2048;
    request.draft_max = kDraftsMost;
    const CudaPlansWithDraft plans =
        PlanCudaWithDraft(SpecOf(config), SpecOf(draft), request).value();
    limits_ = plans.target.front().limits;
    device_ = Make(SpecOf(config), *checkpoint_, plans.target.front(), &pattern_);
    draft_device_ = Make(SpecOf(draft), *draft_checkpoint_, plans.draft, nullptr);
    draft_model_ = std::make_unique<DraftModel>(draft_device_.get(), plans.draft.limits);
  }

  void Measure(int32_t batch) {
    Decode(batch, 0, false);  // Captures graphs.
    const Run plain = Decode(batch, 0, false);
    pattern_.answers = &plain.ids;
    Print(fmt::format("spec_plain_b{}", batch), plain.tokens_per_s, "tokens/s");
    for (const bool model : {false, true}) {
      for (const int32_t drafts : {2, 4, kDraftsMost}) {
        const std::string name =
            fmt::format("spec_{}{}_b{}", model ? "draft" : "lookup", drafts, batch);
        Decode(batch, drafts, model);
        const Run run = Decode(batch, drafts, model);
        FATHOM_CHECK(run.ids == plain.ids, "{}: other tokens than plain decoding", name);
        Print(name, run.tokens_per_s, "tokens/s");
        Print(name + "_tokens_per_row", run.tokens_per_row, "tokens");
        Print(name + "_gain", run.tokens_per_s / plain.tokens_per_s, "ratio");
      }
    }
  }

 private:
  std::unique_ptr<Device> Make(const ModelSpec& spec, const Checkpoint& checkpoint,
                               const CudaMemoryPlan& plan, Proposer* proposer) {
    CudaBackendOptions options;
    options.model = RankOf(spec, {});
    options.checkpoint = &checkpoint;
    options.clock = &clock_;
    options.progress = &progress_;
    options.plan = plan;
    options.proposer = proposer;
    return MakeCudaDevice(options).value();
  }

  static void Print(const std::string& id, double value, const char* unit) {
    std::printf(R"({"id": "%s", "value": %.3f, "unit": "%s"})"
                "\n",
                id.c_str(), value, unit);
    std::fflush(stdout);
  }

  StepPlan Prompts(int32_t batch) const {
    StepPlan plan;
    std::mt19937_64 rng(7);
    const int32_t blocks = (kPrompt + kTokens) / limits_.block_tokens + 1;
    for (int32_t slot = 1; slot <= batch; ++slot) {
      Admit admit{.slot = {slot}, .prompt_tokens = kPrompt};
      admit.request.sampling.temperature = 0;
      for (int32_t i = 0; i < kPrompt; ++i) {
        admit.ids.push_back(static_cast<TokenId>(rng() % static_cast<uint64_t>(limits_.vocab)));
      }
      plan.admits.push_back(std::move(admit));
      Extend extend{{slot}, {}};
      for (int32_t b = 0; b < blocks; ++b)
        extend.block_ids.push_back({1 + (slot - 1) * blocks + b});
      plan.extends.push_back(std::move(extend));
      plan.chunks.push_back({{slot}, kPrompt, true});
    }
    return plan;
  }

  // Plain steps have one step more in flight, as from a scheduler; a step with drafts has none.
  Run Decode(int32_t batch, int32_t drafts, bool model) {
    pattern_.model = model ? draft_model_.get() : nullptr;
    GroupSeat seat;
    seat.limits = limits_;
    seat.limits.draft_max = drafts;
    Engine engine(device_.get(), seat);
    Run run;
    run.ids.resize(static_cast<size_t>(batch));
    std::vector<StepPlan> plans = {Prompts(batch)};
    SubmittedStep steps[2];
    int64_t rows = 0, tokens = 0;
    TimeUs begin = 0;
    const auto collect = [&](size_t step) {
      StepStream stream;
      const StepResult result = engine.Collect(steps[step % 2], &stream);
      for (const ResultRow& row : result.rows) {
        auto& ids = run.ids[static_cast<size_t>(
                                plans[step].chunks[static_cast<size_t>(row.row)].slot.value) -
                            1];
        ids.insert(ids.end(), row.ids.begin(), row.ids.end());
        if (step == 0) continue;
        ++rows;
        tokens += std::ssize(row.ids);
      }
      if (step == 0) begin = clock_.Now();
    };
    std::vector<StepId> fed_by(static_cast<size_t>(batch));
    std::vector<int32_t> planned(static_cast<size_t>(batch), 1);
    for (size_t step = 0;; ++step) {
      if (step > 0) {
        StepPlan plan{.step = {step}};
        for (int32_t slot = 1; slot <= batch; ++slot) {
          const auto index = static_cast<size_t>(slot) - 1;
          if (drafts > 0) planned[index] = static_cast<int32_t>(run.ids[index].size());
          const int32_t left = kTokens - planned[index];
          if (left <= 0) continue;
          plan.chunks.push_back(
              {{slot}, DecodeRow{fed_by[index], std::min(drafts, left - 1)}, true});
          fed_by[index] = {step};
          ++planned[index];
        }
        if (plan.chunks.empty()) {
          if (drafts == 0) collect(step - 1);
          break;
        }
        plans.push_back(std::move(plan));
      }
      const absl::Status status = engine.Submit(plans[step], &steps[step % 2]);
      FATHOM_CHECK(status.ok(), "{}", ToString(status));
      if (drafts > 0 || step == 0) collect(step);
      if (drafts == 0 && step > 1) collect(step - 1);
    }
    run.tokens_per_s =
        static_cast<double>(tokens) * 1e6 / static_cast<double>(clock_.Now() - begin);
    run.tokens_per_row = static_cast<double>(tokens) / static_cast<double>(rows);
    device_->Drain();
    draft_device_->Drain();
    return run;
  }

  RealClock clock_;
  Progress progress_;
  EngineLimits limits_;
  Pattern pattern_;
  std::unique_ptr<Checkpoint> checkpoint_, draft_checkpoint_;
  std::unique_ptr<Device> device_, draft_device_;
  std::unique_ptr<DraftModel> draft_model_;
};

}  // namespace
}  // namespace fathom::worker

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "speculation_speed SHAPE.json\n");
    return 64;
  }
  fathom::worker::Bench bench(argv[1]);
  for (const int32_t batch : {1, fathom::worker::kBatchMax}) bench.Measure(batch);
  return 0;
}
