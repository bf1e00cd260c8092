#include "modeling/layout/cuda_memory_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>
#include <sstream>

#include "common/status.h"
#include "modeling/architectures/architecture.h"
#include "modeling/layout/cuda_step_buffers.h"
#include "modeling/layout/cuda_step_layout.h"
#include "modeling/layout/device_weight_layout.h"
#include "modeling/spec/rank_model.h"
#include "tests/modeling/model_files.h"

namespace fathom {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr int64_t kGib = int64_t{1} << 30;
constexpr int64_t k80Gb = 79 * kGib + kGib / 5;    // As an H100's driver reports it.
constexpr int64_t k141Gb = 139 * kGib + kGib / 2;  // An H200.
constexpr const char* kShapes[] = {
    "deepseek-coder-33b", "deepseek-coder-6.7b", "deepseek-llm-67b",  "deepseek-llm-7b",
    "llama-2-13b",        "r1-distill-llama-8b", "r1-distill-qwen-7b"};

ModelConfig Shape(const std::string& name) {
  const auto config = ReadModelConfig(testing::BundledModel("shapes") / (name + ".json"));
  EXPECT_TRUE(config.ok()) << ToString(config.status());
  return *config;
}

std::map<std::string, int64_t> BuffersOf(const CudaMemoryPlan& plan) {
  std::map<std::string, int64_t> buffers;
  for (const CudaBuffer& buffer : plan.buffers) {
    EXPECT_TRUE(buffers.emplace(buffer.name, buffer.bytes).second) << buffer.name;
  }
  return buffers;
}

// The properties of every plan.
void ExpectSound(const ModelConfig& config, const CudaMemoryRequest& request,
                 const CudaMemoryPlan& plan) {
  std::map<std::string, int64_t> by_arena;
  for (const CudaBuffer& buffer : plan.buffers) {
    EXPECT_GT(buffer.bytes, 0) << buffer.name;
    by_arena[buffer.arena] += (buffer.bytes + 255) / 256 * 256;
  }
  int64_t total = 0;
  for (const CudaArena& arena : plan.arenas) {
    total += arena.bytes;
    EXPECT_EQ(arena.bytes, plan.Bytes(arena.name));
    if (arena.ours) {
      EXPECT_EQ(arena.bytes, by_arena[arena.name]) << arena.name;
      by_arena.erase(arena.name);
    }
  }
  EXPECT_TRUE(by_arena.empty()) << by_arena.begin()->first;
  EXPECT_EQ(total, plan.total_bytes);
  EXPECT_LE(plan.total_bytes, plan.budget_bytes);
  EXPECT_LE(plan.budget_bytes + request.taken_bytes,
            static_cast<int64_t>(request.utilization * static_cast<double>(plan.capacity_bytes)));
  if (request.stages == 1) {
    EXPECT_EQ(plan.Bytes("weights"),
              LayOutDeviceWeights(RankOf(SpecOf(config), {.tp = request.tp}), request.dtype).bytes);
  }
  EXPECT_EQ(plan.Bytes("kv"), plan.limits.pool_blocks * plan.kv_bytes_per_block);
  EXPECT_EQ(plan.limits.block_tokens, 64);
  EXPECT_LE(plan.limits.context_tokens, plan.pool_tokens());
  EXPECT_LE(plan.limits.context_tokens, config.context);
  EXPECT_LE(plan.limits.slots, plan.limits.step_tokens);
  EXPECT_EQ(plan.logits_rows, std::min(plan.limits.step_tokens, std::max(plan.limits.slots, 64)));
  // No useful memory is left: the pool serves every slot completely, or one more block does not fit
  // (if the context was cut to the pool, a larger pool would also need a larger context).
  const int64_t blocks_each = (plan.limits.context_tokens + 63) / 64;
  if (plan.limits.pool_blocks < plan.limits.slots * blocks_each + 1 &&
      request.kv_cache_bytes == 0 && request.stages == 1) {
    const int64_t spare = plan.budget_bytes - plan.total_bytes;
    EXPECT_LT(spare, plan.kv_bytes_per_block + 128 * (int64_t{1} << 20));
  }
}

// Several ranks have memory that they share, and no logits and partial sums outside of it.
TEST(CudaMemoryPlan, RanksHaveMemoryForEachOther) {
  for (const char* name : kShapes) {
    const ModelConfig config = Shape(name);
    for (const int32_t tp : {2, 4, 8}) {
      const ModelSpec spec = SpecOf(config);
      if (!CheckTensorParallel(spec, tp).ok()) continue;
      SCOPED_TRACE(fmt::format("{} with -tp {}", name, tp));
      CudaMemoryRequest request;
      request.capacity_bytes = k80Gb;
      request.tp = tp;
      const auto plan = PlanCudaMemory(spec, request);
      ASSERT_TRUE(plan.ok()) << ToString(plan.status());
      ExpectSound(config, request, *plan);
      const auto sizes = PeerSizesOf(RankOf(spec, {.tp = tp}), plan->limits);
      EXPECT_TRUE(IsValid(sizes));
      EXPECT_EQ(plan->Bytes("peers"), LayoutOf(sizes).bytes);
      EXPECT_GE(sizes.exchange_bytes * tp, int64_t{plan->logits_rows} * config.vocab * 4);
      EXPECT_GE(sizes.rows_max, plan->limits.step_tokens);
      const auto buffers = BuffersOf(*plan);
      EXPECT_FALSE(buffers.contains("logits"));
      EXPECT_FALSE(buffers.contains("product"));
      EXPECT_EQ(buffers.at("gathered_outputs"), tp * plan->logits_rows * kSampleOutBytes);
    }
  }
}

// Stages have the weights and the KV of their layers, equal limits, and memory for messages; only
// the last one has what samples.
TEST(CudaMemoryPlan, StagesShareTheModel) {
  for (const char* name : kShapes) {
    const ModelConfig config = Shape(name);
    const ModelSpec spec = SpecOf(config);
    for (const auto& [tp, stages] : {std::pair{1, 2}, {1, 3}, {2, 2}, {1, 8}}) {
      if (!CheckTensorParallel(spec, tp).ok()) continue;
      SCOPED_TRACE(fmt::format("{} with -tp {} -pp {}", name, tp, stages));
      CudaMemoryRequest request;
      request.capacity_bytes = k141Gb;
      request.tp = tp;
      request.stages = stages;
      const auto plans = PlanCudaStages(spec, request);
      ASSERT_TRUE(plans.ok()) << ToString(plans.status());
      ASSERT_EQ(std::ssize(*plans), stages);
      int64_t layers = 0, least_spare = k141Gb;
      for (int32_t stage = 0; stage < stages; ++stage) {
        const CudaMemoryPlan& plan = (*plans)[static_cast<size_t>(stage)];
        const RankModel rank = RankOf(spec, {.tp = tp, .stage = stage, .stages = stages});
        ExpectSound(config, request, plan);
        EXPECT_EQ(plan.limits, plans->front().limits);
        EXPECT_EQ(plan.Bytes("weights"), LayOutDeviceWeights(rank, request.dtype).bytes);
        EXPECT_EQ(plan.kv_bytes_per_block, KvBytes(rank, 2, 64));
        EXPECT_EQ(plan.Bytes("peers") > 0, tp > 1);
        const StagePeerSizes sizes = StageSizesOf(rank, plan.limits);
        EXPECT_TRUE(IsValid(sizes.rows) && IsValid(sizes.samples));
        EXPECT_EQ(plan.Bytes("stages"), LayoutOf(sizes.rows).bytes + LayoutOf(sizes.samples).bytes);
        // The last stage never waits for the first one.
        EXPECT_GE(sizes.samples.mail_places, stages + 1);
        EXPECT_GE(sizes.samples.mail_bytes, plan.limits.step_tokens * kSlotSampleBytes);
        EXPECT_EQ(sizes.rows.mail_bytes, plan.limits.step_tokens * (config.hidden * 2 + 4));
        const auto buffers = BuffersOf(plan);
        EXPECT_GE(buffers.at("x"), sizes.rows.mail_bytes);
        const bool last = stage + 1 == stages;
        for (const char* one : {"seen", "slot_params", "bias_ids", "end_ids"}) {
          EXPECT_EQ(buffers.contains(one), last) << one;
        }
        EXPECT_EQ(buffers.contains("logits"), last && tp == 1);
        EXPECT_EQ(buffers.contains("gathered_outputs"), last && tp > 1);
        EXPECT_EQ(buffers.contains("slot_since"), stage == 0);
        EXPECT_EQ(buffers.contains("slot_samples"), stage == 0 || last);
        layers += std::ssize(rank.layers);
        least_spare = std::min(least_spare, plan.budget_bytes - plan.total_bytes);
      }
      EXPECT_EQ(layers, std::ssize(spec.layers));
      const EngineLimits& limits = plans->front().limits;
      if (limits.pool_blocks < limits.slots * ((limits.context_tokens + 63) / 64) + 1) {
        EXPECT_LT(least_spare, LargestOf(*plans).kv_bytes_per_block + 128 * (int64_t{1} << 20));
      }
    }
  }
}

// The last stage of a model with tied embeddings has the rows of its LM head and no others.
TEST(CudaMemoryPlan, ATiedHeadIsNoWholeEmbedding) {
  ModelSpec spec = SpecOf(Shape("deepseek-llm-7b"));
  spec.lm_head.reset();
  for (const int32_t tp : {1, 4}) {
    for (int32_t rank = 0; rank < tp; ++rank) {
      const RankModel last = RankOf(spec, {.tp = tp, .tp_rank = rank, .stage = 1, .stages = 2});
      const DeviceWeightLayout layout = LayOutDeviceWeights(last, kernels::DType::kBf16);
      const WeightRegion* head = layout.Find(Operand::kEmbedding);
      ASSERT_NE(head, nullptr);
      EXPECT_EQ(head->rows, last.HeadRowsOfTied().rows());
      EXPECT_EQ(head->rows + head->padding_rows, HeadRows(last.vocab_rows));
      EXPECT_EQ(head->parts.front().slice, last.HeadRowsOfTied());
      EXPECT_EQ(head, &layout.regions.back());
    }
  }
  const RankModel first = RankOf(spec, {.stage = 0, .stages = 2});
  EXPECT_EQ(LayOutDeviceWeights(first, kernels::DType::kBf16).Find(Operand::kEmbedding)->rows,
            spec.vocab);
}

TEST(CudaMemoryPlan, EveryPublishedShapeOnTwoCards) {
  for (const char* name : kShapes) {
    const ModelConfig config = Shape(name);
    for (const int64_t capacity : {k80Gb, k141Gb}) {
      for (const auto dtype : {kernels::DType::kBf16, kernels::DType::kF16}) {
        CudaMemoryRequest request;
        request.capacity_bytes = capacity;
        request.dtype = dtype;
        const auto plan = PlanCudaMemory(SpecOf(config), request);
        SCOPED_TRACE(fmt::format("{} on {}", name, capacity));
        if (std::string(name) == "deepseek-llm-67b" && capacity == k80Gb) {
          EXPECT_EQ(plan.status().code(), absl::StatusCode::kResourceExhausted);
          continue;
        }
        ASSERT_TRUE(plan.ok()) << ToString(plan.status());
        ExpectSound(config, request, *plan);
        EXPECT_GE(plan->limits.step_tokens, 256);
        EXPECT_LE(plan->limits.step_tokens, 8192);
        EXPECT_EQ(plan->limits.step_tokens % 64, 0);
        EXPECT_LE(plan->limits.mixed_step_tokens, plan->limits.step_tokens);
        EXPECT_GE(plan->limits.mixed_step_tokens, plan->limits.slots);
        EXPECT_GE(plan->pool_tokens(), int64_t{plan->limits.slots} * 4 * 64 - 64);
      }
    }
  }
}

TEST(CudaMemoryPlan, FiguresOfTheSevenBillion) {
  const ModelConfig config = Shape("deepseek-llm-7b");
  CudaMemoryRequest request;
  request.capacity_bytes = k80Gb;
  request.slots = 128;
  request.step_tokens = 1024;
  const auto plan = PlanCudaMemory(SpecOf(config), request);
  ASSERT_TRUE(plan.ok()) << ToString(plan.status());
  // All parameters in two bytes, and two more for each element of a norm.
  EXPECT_EQ(plan->Bytes("weights"), 2 * int64_t{6'910'365'696} + 2 * (2 * 30 + 1) * 4096);
  EXPECT_EQ(plan->kv_bytes_per_block, int64_t{64} * 2 * 30 * 32 * 128 * 2);
  auto bytes = BuffersOf(*plan);
  EXPECT_EQ(bytes["x"], 1024 * 4096 * 2);
  EXPECT_EQ(bytes["qkv"], 1024 * 3 * 4096 * 2);
  EXPECT_EQ(bytes["gate_up"], 1024 * 2 * 11008 * 2);
  EXPECT_EQ(bytes["rope_cos"], 4096 * 64 * 4);
  EXPECT_EQ(bytes["logits"], 128 * 102400 * 4);
  EXPECT_EQ(bytes["seen"], 129 * 102400 * 2);
  EXPECT_EQ(bytes["arrived"], 129 * 32 * 4);
  EXPECT_EQ(bytes["step_outputs"], 1024 * kSampleOutBytes);
  EXPECT_EQ(bytes["step_inputs"], CudaStepBytesMax(plan->limits));
  // The segments of every decode row have a place: the full ones of the pool, and one of each slot.
  EXPECT_EQ(bytes["partial_o"] / (32 * 128 * 4), bytes["partial_ml"] / (32 * 2 * 4));
  EXPECT_EQ(bytes["partial_ml"] / (32 * 2 * 4), plan->limits.pool_blocks / 8 + 129);
}

TEST(CudaMemoryPlan, SegmentsOfFewShortSequencesAreBoundByTheirContext) {
  CudaMemoryRequest request;
  request.capacity_bytes = k80Gb;
  request.slots = 4;
  request.context_tokens = 1000;  // Two segments.
  const auto plan = PlanCudaMemory(SpecOf(Shape("deepseek-llm-7b")), request);
  ASSERT_TRUE(plan.ok()) << ToString(plan.status());
  EXPECT_EQ(plan->limits.pool_blocks, 4 * 16 + 1);  // No more than the slots can use.
  EXPECT_EQ(BuffersOf(*plan)["partial_ml"], 4 * 2 * 32 * 2 * 4);
}

// Whole groups of 64 rows are read, also in a smaller step.
TEST(CudaMemoryPlan, ActivationsHaveWholeGroupsOfRows) {
  CudaMemoryRequest request;
  request.capacity_bytes = k80Gb;
  request.slots = 8;
  for (const auto& [tokens, rows] : {std::pair{8, 64}, {32, 64}, {64, 64}, {65, 128}, {100, 128}}) {
    request.step_tokens = tokens;
    const auto plan = PlanCudaMemory(SpecOf(Shape("deepseek-llm-7b")), request);
    ASSERT_TRUE(plan.ok()) << ToString(plan.status());
    for (const char* name : {"x", "normed", "attended"}) {
      EXPECT_EQ(BuffersOf(*plan)[name], rows * 4096 * 2) << name << ", " << tokens;
    }
    EXPECT_EQ(BuffersOf(*plan)["ffn"], rows * 11008 * 2) << tokens;
  }
}

TEST(CudaMemoryPlan, DefaultsFollowTheModelAndTheCard) {
  CudaMemoryRequest request;
  request.capacity_bytes = k80Gb;
  const auto seven = PlanCudaMemory(SpecOf(Shape("deepseek-llm-7b")), request);
  ASSERT_TRUE(seven.ok());
  EXPECT_EQ(seven->limits.slots, 256);
  EXPECT_EQ(seven->limits.mixed_step_tokens, 1792);  // 2,048 take 43.8 ms on an H100.
  EXPECT_EQ(seven->limits.step_tokens, 3584);
  EXPECT_EQ(seven->limits.context_tokens, 4096);
  // A 33B model leaves few blocks on 80 GB.
  const auto large = PlanCudaMemory(SpecOf(Shape("deepseek-coder-33b")), request);
  ASSERT_TRUE(large.ok()) << ToString(large.status());
  EXPECT_LT(large->limits.slots, 256);
  EXPECT_EQ(large->limits.mixed_step_tokens, 256);
  EXPECT_EQ(large->limits.step_tokens, 512);
  EXPECT_EQ(large->limits.context_tokens, 16384);
}

TEST(CudaMemoryPlan, ContextIsTheModelsOrWhatThePoolHolds) {
  const ModelConfig config = Shape("r1-distill-llama-8b");  // 131,072.
  CudaMemoryRequest request;
  request.capacity_bytes = k80Gb;
  auto plan = PlanCudaMemory(SpecOf(config), request);
  ASSERT_TRUE(plan.ok());
  EXPECT_EQ(plan->limits.context_tokens, 131072);
  EXPECT_THAT(ToTable(*plan), HasSubstr("context 131072 (the model's)"));
  request.capacity_bytes = 24 * kGib;
  plan = PlanCudaMemory(SpecOf(config), request);
  ASSERT_TRUE(plan.ok()) << ToString(plan.status());
  EXPECT_EQ(plan->limits.context_tokens, plan->pool_tokens());
  EXPECT_THAT(ToTable(*plan), HasSubstr("what the KV blocks hold; the model's is 131072"));
  request.context_tokens = 2000;
  plan = PlanCudaMemory(SpecOf(config), request);
  ASSERT_TRUE(plan.ok());
  EXPECT_EQ(plan->limits.context_tokens, 2000);
  EXPECT_THAT(ToTable(*plan), HasSubstr("context 2000 (--max-model-len)"));
}

TEST(CudaMemoryPlan, MoreMemoryNeverGivesLess) {
  for (const char* name : {"deepseek-coder-33b", "deepseek-llm-7b", "r1-distill-qwen-7b"}) {
    const ModelConfig config = Shape(name);
    CudaMemoryRequest request;
    request.slots = 64;
    request.step_tokens = 512;
    int64_t before = 0;
    for (int64_t gib = 8; gib <= 160; gib += 2) {
      request.capacity_bytes = gib * kGib;
      const auto plan = PlanCudaMemory(SpecOf(config), request);
      const int64_t tokens = plan.ok() ? plan->pool_tokens() : 0;
      if (plan.ok()) ExpectSound(config, request, *plan);
      EXPECT_GE(tokens, before) << name << " " << gib;
      before = tokens;
    }
    EXPECT_GT(before, 0);
  }
}

TEST(CudaMemoryPlan, EachWantTakesFromThePool) {
  const ModelConfig config = Shape("llama-2-13b");
  CudaMemoryRequest base;
  base.capacity_bytes = k80Gb;
  base.slots = 64;
  base.step_tokens = 512;
  const auto tokens = [&](auto change) {
    CudaMemoryRequest request = base;
    change(request);
    const auto plan = PlanCudaMemory(SpecOf(config), request);
    EXPECT_TRUE(plan.ok()) << ToString(plan.status());
    return plan.ok() ? plan->pool_tokens() : 0;
  };
  const int64_t all = tokens([](auto&) {});
  EXPECT_LT(tokens([](auto& r) { r.step_tokens = 8192; }), all);
  EXPECT_LT(tokens([](auto& r) { r.slots = 512; }), all);
  EXPECT_LT(tokens([](auto& r) { r.utilization = 0.8; }), all);
  EXPECT_LT(tokens([](auto& r) { r.taken_bytes = kGib; }), all);
  EXPECT_GT(tokens([](auto& r) { r.tp = 2; }), 2 * all);
  EXPECT_EQ(tokens([](auto& r) { r.kv_cache_bytes = 10 * kGib; }),
            (10 * kGib / (int64_t{64} * 2 * 40 * 40 * 128 * 2) - 1) * 64);
}

// Applies the ways out of a message, one at a time; each must be enough.
void ExpectWaysWork(const ModelConfig& config, const CudaMemoryRequest& request,
                    const std::string& message, std::set<std::string>* seen) {
  const size_t begin = message.find("What would fit: ");
  ASSERT_NE(begin, std::string::npos) << message;
  std::string rest = message.substr(begin + 16);
  while (!rest.empty()) {
    const size_t cut = rest.find("; or ");
    const std::string way = rest.substr(0, cut);
    rest = cut == std::string::npos ? "" : rest.substr(cut + 5);
    CudaMemoryRequest changed = request;
    std::istringstream words(way);
    for (std::string flag, value; words >> flag;) {
      if (flag[0] != '-') continue;
      words >> value;
      seen->insert(flag);
      if (flag == "--max-num-batched-tokens") changed.step_tokens = std::stoi(value);
      if (flag == "--max-num-seqs") changed.slots = std::stoi(value);
      if (flag == "--max-model-len") changed.context_tokens = std::stoi(value);
      if (flag == "--kv-cache-memory") changed.kv_cache_bytes = std::stoll(value);
      if (flag == "--gpu-memory-utilization") changed.utilization = std::stod(value);
      if (flag == "-tp") changed.tp = std::stoi(value);
    }
    const auto plan = PlanCudaMemory(SpecOf(config), changed);
    EXPECT_TRUE(plan.ok()) << way << " of: " << message << "\n-> " << ToString(plan.status());
  }
}

TEST(CudaMemoryPlan, ARefusalNamesWhatWouldFit) {
  std::set<std::string> seen;
  for (const char* name : kShapes) {
    const ModelConfig config = Shape(name);
    for (int64_t gib = 12; gib <= 140; gib += 8) {
      for (int32_t variant = 0; variant < 6; ++variant) {
        CudaMemoryRequest request;
        request.capacity_bytes = gib * kGib;
        if (variant == 1) request.step_tokens = 65536;
        if (variant == 2) request.slots = request.step_tokens = 4096;
        if (variant == 3) request.context_tokens = config.context;
        if (variant == 4) request.kv_cache_bytes = 20 * kGib;
        if (variant == 5) request.utilization = 0.5;
        const auto plan = PlanCudaMemory(SpecOf(config), request);
        if (plan.ok()) {
          ExpectSound(config, request, *plan);
          continue;
        }
        ASSERT_EQ(plan.status().code(), absl::StatusCode::kResourceExhausted);
        const std::string message(Message(plan.status()));
        if (message.find("a device with more memory") != std::string::npos) continue;
        ExpectWaysWork(config, request, message, &seen);
      }
    }
  }
  EXPECT_EQ(seen, (std::set<std::string>{"--gpu-memory-utilization", "--kv-cache-memory",
                                         "--max-model-len", "--max-num-batched-tokens",
                                         "--max-num-seqs", "-tp"}));
}

TEST(CudaMemoryPlan, SixtySevenBillionOnEightyGigabytes) {
  CudaMemoryRequest request;
  request.capacity_bytes = k80Gb;
  const auto plan = PlanCudaMemory(SpecOf(Shape("deepseek-llm-67b")), request);
  EXPECT_EQ(plan.status().code(), absl::StatusCode::kResourceExhausted);
  const std::string message(Message(plan.status()));
  EXPECT_THAT(message, AllOf(HasSubstr("72.86 GiB may be used (0.92 of 79.20 GiB)"),
                             HasSubstr("weights 125.59 GiB"), HasSubstr("2 such GPUs with -tp 2"),
                             Not(HasSubstr("\n"))));
}

TEST(CudaMemoryPlan, RefusesWhatNoMemoryMakesRight) {
  const ModelConfig config = Shape("deepseek-llm-7b");
  const auto message = [&](auto change) {
    CudaMemoryRequest request;
    request.capacity_bytes = k80Gb;
    change(request);
    const auto plan = PlanCudaMemory(SpecOf(config), request);
    EXPECT_EQ(plan.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(Message(plan.status()));
  };
  EXPECT_THAT(message([](auto& r) { r.block_tokens = 16; }),
              HasSubstr("--block-size 16: on a GPU a block has 64 tokens"));
  EXPECT_THAT(message([](auto& r) { r.context_tokens = 4097; }), HasSubstr("context of 4096"));
  EXPECT_THAT(message([](auto& r) {
                r.slots = 65;
                r.step_tokens = 64;
              }),
              HasSubstr("--max-num-seqs 65"));
  EXPECT_THAT(message([](auto& r) { r.utilization = 1.0; }), HasSubstr("0.1 to 0.99"));
  EXPECT_THAT(message([](auto& r) { r.dtype = kernels::DType::kF32; }), HasSubstr("--device cpu"));
  EXPECT_THAT(message([](auto& r) { r.tp = 3; }), HasSubstr("use one of"));
  EXPECT_THAT(message([](auto& r) { r.stages = 31; }), HasSubstr("use 1 to 30"));
}

TEST(CudaMemoryPlan, KvCacheMemoryTooSmallForASequence) {
  CudaMemoryRequest request;
  request.capacity_bytes = k80Gb;
  const int64_t block = int64_t{64} * 2 * 30 * 32 * 128 * 2;
  request.kv_cache_bytes = 10 * block + 5;
  const auto plan = PlanCudaMemory(SpecOf(Shape("deepseek-llm-7b")), request);
  EXPECT_EQ(plan.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(
      std::string(Message(plan.status())),
      AllOf(HasSubstr("holds 10 blocks"), HasSubstr(fmt::format("give {} bytes", 17 * block)),
            HasSubstr("--max-model-len 576")));
  request.context_tokens = 576;
  EXPECT_TRUE(PlanCudaMemory(SpecOf(Shape("deepseek-llm-7b")), request).ok());
}

}  // namespace
}  // namespace fathom
