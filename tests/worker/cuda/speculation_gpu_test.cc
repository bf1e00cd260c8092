// Speculative decoding on a GPU: sequences whose rows have drafts, right and wrong, with drafts of
// an oracle, of n-gram lookup and of a draft model, give the tokens and the bits of the
// log-probabilities of plain decoding, with and without graphs, in batches that change.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "common/clock.h"
#include "modeling/architectures/architecture.h"
#include "modeling/checkpoint/checkpoint.h"
#include "modeling/layout/cuda_draft_plan.h"
#include "modeling/spec/rank_model.h"
#include "tests/modeling/model_files.h"
#include "worker/cuda/cuda_backend.h"
#include "worker/engine/draft_model.h"
#include "worker/engine/engine.h"
#include "worker/engine/ngram_proposer.h"

namespace fathom::worker {
namespace {

using testing::ModelFiles;
using testing::TempFolder;

constexpr int32_t kSlots = 8, kStepTokens = 2048, kContext = 640, kBlocksEach = 10, kVocab = 512;
constexpr int32_t kDrafts = 4, kTokens = 90;

uint64_t Seed() {
  const char* text = std::getenv("FATHOM_SEED");
  const uint64_t seed = text != nullptr ? std::strtoull(text, nullptr, 10) : 20261201;
  std::printf("FATHOM_SEED=%llu\n", static_cast<unsigned long long>(seed));
  return seed;
}

struct OpenModel {
  OpenModel(int layers, uint64_t seed) {
    std::string config =
        testing::WithKey(testing::TinyConfig(), "num_hidden_layers", std::to_string(layers));
    ModelFiles files =
        testing::RandomModel(testing::WithKey(config, "vocab_size", std::to_string(kVocab)), seed);
    testing::Retype(files, StoredType::kBf16);
    testing::WriteModel(folder.path(), files);
    config_read = ReadModelConfig(folder.path()).value();
    checkpoint = OpenCheckpoint(folder.path(), config_read).value();
    spec = SpecOf(config_read);
  }
  TempFolder folder;
  ModelConfig config_read;
  ModelSpec spec;
  std::unique_ptr<Checkpoint> checkpoint;
};

struct Asked {
  std::vector<TokenId> prompt;
  Request request;
  uint64_t seed = 0;
};
struct Answer {
  std::vector<TokenId> ids;
  std::vector<TokenLogprob> logprobs;
  bool operator==(const Answer&) const = default;
};

std::vector<Asked> Questions(uint64_t seed) {
  std::mt19937_64 rng(seed);
  const auto below = [&](uint64_t n) { return static_cast<int32_t>(rng() % n); };
  std::vector<Asked> all;
  for (int32_t i = 0; i < kSlots; ++i) {
    Asked one;
    // Two of them cross a segment of 512 tokens while they are decoded.
    const int32_t length = i < 2 ? 470 + 30 * i : 1 + below(150);
    const int32_t period = 3 + below(20);
    for (int32_t t = 0; t < length; ++t) {
      one.prompt.push_back(t < period ? below(kVocab)
                                      : one.prompt[static_cast<size_t>(t - period)]);
    }
    one.seed = rng();
    SamplingParams& s = one.request.sampling;
    s.temperature = i % 2 == 0 ? 0.0f : 0.7f;
    if (below(2) == 0) s.top_k = 20;
    if (i == 5) s.repetition_penalty = 1.2f;  // Has no drafts on a GPU.
    if (below(2) == 0) s.logit_bias = {{9, 2.0f}};
    if (i % 3 != 0) one.request.output.logprobs = 3;
    one.request.stop.max_tokens = kTokens;
    all.push_back(std::move(one));
  }
  return all;
}

// Knows the answers of plain decoding; about three of four drafts are right.
class Oracle final : public Proposer {
 public:
  Oracle(const std::vector<Asked>* asked, const std::vector<Answer>* answers)
      : asked_(*asked), answers_(*answers) {}
  absl::Status Propose(std::span<DraftWork> rows) override {
    for (DraftWork& row : rows) {
      const auto index = static_cast<size_t>(row.id.value) - 1;
      const auto done = row.slot->ids.size() - asked_[index].prompt.size();
      for (size_t i = done; i < answers_[index].ids.size(); ++i) {
        if (std::ssize(row.drafts) == row.draft_max) break;
        const TokenId right = answers_[index].ids[i];
        row.drafts.push_back((i * 7 + index) % 4 == 0 ? (right + 1) % kVocab : right);
      }
    }
    return absl::OkStatus();
  }

 private:
  const std::vector<Asked>& asked_;
  const std::vector<Answer>& answers_;
};

class Gpu {
 public:
  Gpu(const OpenModel& model, const OpenModel& draft, bool graphs) {
    CudaMemoryRequest request;
    request.capacity_bytes = int64_t{8} << 30;
    request.kv_cache_bytes = int64_t{64} << 20;
    request.context_tokens = kContext;
    request.slots = kSlots;
    request.step_tokens = kStepTokens;
    request.draft_max = kDrafts;
    const CudaPlansWithDraft plans = PlanCudaWithDraft(model.spec, draft.spec, request).value();
    limits_ = plans.target.front().limits;
    EXPECT_EQ(limits_.draft_max, kDrafts);
    device_ = MakeDevice(model, plans.target.front(), graphs, &switch_);
    draft_device_ = MakeDevice(draft, plans.draft, graphs, nullptr);
    draft_model_ = std::make_unique<DraftModel>(draft_device_.get(), plans.draft.limits);
  }

  Proposer* draft_model() { return draft_model_.get(); }
  int64_t drafted = 0, kept = 0;

  // Decodes all questions. `grant`: the most drafts of a row; 0: plain. Some rows are left out of
  // some steps, so that batches change.
  std::vector<Answer> Run(const std::vector<Asked>& asked, Proposer* proposer, int32_t grant,
                          uint64_t seed) {
    switch_.proposer = proposer;
    GroupSeat seat{.term = {3}, .epoch = {5}};
    seat.limits = limits_;
    if (proposer == nullptr) seat.limits.draft_max = 0;
    seat.peers.resize(1);
    Engine engine(device_.get(), seat);
    std::mt19937_64 rng(seed);
    std::vector<Answer> answers(asked.size());
    std::vector<StepId> sampled_in(asked.size());
    drafted = kept = 0;
    StepPlan plan = Admission(asked);
    for (uint64_t step = 0; !plan.chunks.empty(); ++step) {
      SubmittedStep submitted;
      StepStream stream;
      const absl::Status status = engine.Submit(plan, &submitted);
      EXPECT_TRUE(status.ok()) << ToString(status);
      if (!status.ok()) break;
      const StepResult result = engine.Collect(submitted, &stream);
      for (const ResultRow& row : result.rows) {
        const Chunk& chunk = plan.chunks[static_cast<size_t>(row.row)];
        if (!chunk.sample) continue;
        const auto index = static_cast<size_t>(chunk.slot.value) - 1;
        Answer& answer = answers[index];
        EXPECT_EQ(row.fault, RowFault::kNone);
        EXPECT_EQ(row.position, std::ssize(answer.ids));
        answer.ids.insert(answer.ids.end(), row.ids.begin(), row.ids.end());
        answer.logprobs.insert(answer.logprobs.end(), row.logprobs.begin(), row.logprobs.end());
        sampled_in[index] = plan.step;
        drafted += row.drafted;
        kept += std::ssize(row.ids) - 1;
        if (row.ids.empty()) answer.ids.resize(kTokens);  // Ends the test.
      }
      plan = StepPlan{.term = {3}, .epoch = {5}, .step = {step + 1}};
      for (int pass = 0; pass < 2 && plan.chunks.empty(); ++pass) {
        for (size_t i = 0; i < asked.size(); ++i) {
          const int32_t left = kTokens - static_cast<int32_t>(answers[i].ids.size());
          if (left <= 0 || (pass == 0 && rng() % 5 == 0)) continue;
          const int32_t drafts = std::min(static_cast<int32_t>(rng() % 8), grant);
          plan.chunks.push_back({{static_cast<int32_t>(i) + 1},
                                 DecodeRow{sampled_in[i], std::min(drafts, left - 1)},
                                 true});
        }
      }
    }
    device_->Drain();
    draft_device_->Drain();
    return answers;
  }

 private:
  // Lets the test change the proposer of a device.
  struct Switch final : Proposer {
    void Begin() override {
      if (proposer != nullptr) proposer->Begin();
    }
    absl::Status Propose(std::span<DraftWork> rows) override { return proposer->Propose(rows); }
    Proposer* proposer = nullptr;
  };

  std::unique_ptr<Device> MakeDevice(const OpenModel& model, const CudaMemoryPlan& plan,
                                     bool graphs, Proposer* proposer) {
    CudaBackendOptions options;
    options.model = RankOf(model.spec, {});
    options.checkpoint = model.checkpoint.get();
    options.clock = &clock_;
    options.progress = &progress_;
    options.plan = plan;
    options.use_graphs = graphs;
    options.proposer = proposer;
    return MakeCudaDevice(options).value();
  }

  // The first plan: all prompts.
  StepPlan Admission(const std::vector<Asked>& asked) {
    StepPlan plan{.term = {3}, .epoch = {5}, .step = {0}};
    for (size_t i = 0; i < asked.size(); ++i) {
      const auto slot = static_cast<int32_t>(i) + 1;
      Admit admit{.slot = {slot}, .request = asked[i].request, .seed = asked[i].seed};
      admit.prompt_tokens = static_cast<int32_t>(asked[i].prompt.size());
      admit.ids = asked[i].prompt;
      plan.admits.push_back(std::move(admit));
      Extend extend{{slot}, {}};
      for (int32_t b = 0; b < kBlocksEach; ++b) {
        extend.block_ids.push_back({1 + static_cast<int32_t>(i) * kBlocksEach + b});
      }
      plan.extends.push_back(std::move(extend));
      plan.chunks.push_back({{slot}, static_cast<int32_t>(asked[i].prompt.size()), true});
    }
    return plan;
  }

  RealClock clock_;
  Progress progress_;
  EngineLimits limits_;
  Switch switch_;
  std::unique_ptr<Device> device_, draft_device_;
  std::unique_ptr<DraftModel> draft_model_;
};

void ExpectSameAnswers(const std::vector<Answer>& got, const std::vector<Answer>& want,
                       const std::string& what) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) {
    EXPECT_EQ(got[i].ids, want[i].ids) << what << ", sequence " << i;
    EXPECT_TRUE(got[i] == want[i]) << what << ", sequence " << i << ": log-probabilities";
  }
}

TEST(SpeculationOnAGpu, GivesTheTokensOfPlainDecoding) {
  const uint64_t seed = Seed();
  const OpenModel model(4, 11);
  const OpenModel same(4, 11), other(2, 12);
  const std::vector<Asked> asked = Questions(seed);
  for (const bool graphs : {false, true}) {
    Gpu gpu(model, same, graphs);
    const std::vector<Answer> want = gpu.Run(asked, nullptr, 0, seed);
    for (const Answer& answer : want) ASSERT_EQ(std::ssize(answer.ids), kTokens);
    Oracle oracle(&asked, &want);
    NgramProposer ngram(1, 3);
    const auto expect = [&](Proposer* proposer, int32_t grant, const char* name) {
      const std::string what = fmt::format("{}, {} drafts, graphs {}", name, grant, graphs);
      ExpectSameAnswers(gpu.Run(asked, proposer, grant, seed + static_cast<uint64_t>(grant)), want,
                        what);
      std::printf("%s: %lld of %lld drafts kept\n", what.c_str(), static_cast<long long>(gpu.kept),
                  static_cast<long long>(gpu.drafted));
      EXPECT_GT(gpu.drafted, 0) << what;
    };
    for (int32_t grant = 1; grant <= kDrafts; ++grant) expect(&oracle, grant, "oracle");
    EXPECT_GT(gpu.kept, gpu.drafted / 4);
    EXPECT_LT(gpu.kept, gpu.drafted);
    expect(&ngram, kDrafts, "ngram");
    // The target as its own draft: all drafts of greedy and of sampled sequences are right.
    expect(gpu.draft_model(), kDrafts, "the same model");
    EXPECT_EQ(gpu.kept, gpu.drafted);
  }
  Gpu gpu(model, other, true);
  const std::vector<Answer> want = gpu.Run(asked, nullptr, 0, seed);
  ExpectSameAnswers(gpu.Run(asked, gpu.draft_model(), kDrafts, seed + 9), want, "another model");
  EXPECT_GT(gpu.drafted, 0);
}

}  // namespace
}  // namespace fathom::worker
