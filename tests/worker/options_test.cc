#include "worker/options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>

#include "common/flags.h"
#include "tests/modeling/model_files.h"

namespace fathom::worker {
namespace {

using ::testing::HasSubstr;

// Returns the exit code, or nullopt with `options` filled in.
std::optional<int> Parse(std::vector<std::string> words, Options* options) {
  words.insert(words.begin(), {"fathom-worker", "--model", "m"});
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  return ParseOptions(static_cast<int>(argv.size()), argv.data(), options);
}

ModelConfig Shape(const char* name) {
  const auto config =
      ReadModelConfig(testing::BundledModel("shapes") / (std::string(name) + ".json"));
  EXPECT_TRUE(config.ok()) << ToString(config.status());
  return *config;
}

DeviceFacts H100() {
  DeviceFacts facts;
  facts.name = "NVIDIA H100 80GB HBM3";
  facts.sm = 90;
  facts.capacity_bytes = int64_t{79} << 30;
  return facts;
}

TEST(Options, ThreadsAreSharedByTheWorkersOfTheMachine) {
  EXPECT_EQ(ThreadsFor({.threads = 3}, 64), 3);
  EXPECT_EQ(ThreadsFor({}, 16), 15);
  EXPECT_EQ(ThreadsFor({.tp = 2}, 16), 7);
  EXPECT_EQ(ThreadsFor({.tp = 2, .local_workers = 8}, 16), 1);  // -dp 4
  EXPECT_EQ(ThreadsFor({.tp = 4}, 2), 1);
  EXPECT_EQ(LocalWorkers({}), 1);
  EXPECT_EQ(LocalWorkers({.tp = 2}), 2);
  EXPECT_EQ(LocalWorkers({.tp = 2, .pp = 3}), 6);
  EXPECT_EQ(ThreadsFor({.tp = 2, .pp = 2}, 16), 3);
  EXPECT_EQ(LocalWorkers({.tp = 2, .local_workers = 8}), 8);
}

TEST(Options, SwapSpaceIsInGibibytesAndPartOfTheMemory) {
  for (const auto& [text, bytes] : std::map<std::string, int64_t>{{"4", int64_t{4} << 30},
                                                                  {"0.5", int64_t{1} << 29},
                                                                  {"16G", int64_t{16} << 30},
                                                                  {"512MiB", int64_t{512} << 20},
                                                                  {"0", 0}}) {
    Options options;
    ASSERT_FALSE(Parse({"--swap-space", text}, &options));
    EXPECT_EQ(options.swap_bytes, bytes) << text;
  }
  Options wrong;
  EXPECT_TRUE(Parse({"--swap-space", "lots"}, &wrong));
  Options options;
  ASSERT_FALSE(Parse({"--max-model-len", "1024", "--swap-space", "64M"}, &options));
  ASSERT_TRUE(ResolveDevice(false, &options).ok());
  const ModelConfig config = Shape("deepseek-llm-7b");
  const auto with = SizesFor(options, config);
  ASSERT_TRUE(with.ok()) << ToString(with.status());
  options.swap_bytes = 0;
  const auto without = SizesFor(options, config);
  ASSERT_TRUE(without.ok());
  EXPECT_EQ(without->limits.host_blocks, 0);
  EXPECT_GT(with->limits.host_blocks, 0);
  const int64_t block_bytes = without->kv_cache_bytes / without->limits.pool_blocks;
  EXPECT_EQ(with->total_bytes - without->total_bytes, (with->limits.host_blocks + 1) * block_bytes);
  EXPECT_EQ(with->limits.pool_blocks, without->limits.pool_blocks);
  options.swap_bytes = 1000;
  const auto little = SizesFor(options, config);
  EXPECT_TRUE(absl::IsInvalidArgument(little.status()));
  EXPECT_THAT(std::string(Message(little.status())), HasSubstr("--swap-space: 1000 bytes"));
}

TEST(Options, DefaultsFollowTheDevice) {
  Options cpu;
  ASSERT_FALSE(Parse({}, &cpu));
  Options gpu = cpu;
  ASSERT_TRUE(ResolveDevice(false, &cpu).ok());
  EXPECT_EQ(cpu.device, "cpu");
  EXPECT_EQ(cpu.slots, 64);
  EXPECT_EQ(cpu.step_tokens, 512);
  EXPECT_EQ(cpu.block_tokens, 16);
  ASSERT_TRUE(ResolveDevice(true, &gpu).ok());
  EXPECT_EQ(gpu.device, "cuda");
  EXPECT_EQ(gpu.block_tokens, 64);
  const auto plan = PlansFor(gpu, Shape("deepseek-llm-7b"), kernels::DType::kBf16, H100());
  ASSERT_TRUE(plan.ok()) << ToString(plan.status());
  ASSERT_EQ(plan->size(), 1u);
  EXPECT_EQ(plan->front().limits.slots, 256);
  EXPECT_EQ(plan->front().limits.context_tokens, 4096);
}

TEST(Options, AskedLimitsReachThePlan) {
  Options options;
  ASSERT_FALSE(Parse({"--max-model-len", "2048", "--max-num-seqs", "32", "--max-num-batched-tokens",
                      "640", "--gpu-memory-utilization", "0.5", "--kv-cache-memory", "4G"},
                     &options));
  ASSERT_TRUE(ResolveDevice(true, &options).ok());
  const auto plan = PlansFor(options, Shape("deepseek-llm-7b"), kernels::DType::kF16, H100());
  ASSERT_TRUE(plan.ok()) << ToString(plan.status());
  const CudaMemoryPlan& one = plan->front();
  EXPECT_EQ(one.limits.context_tokens, 2048);
  EXPECT_EQ(one.limits.slots, 32);
  EXPECT_EQ(one.limits.step_tokens, 640);
  EXPECT_EQ(one.budget_bytes, (int64_t{79} << 30) / 2);
  EXPECT_EQ(one.limits.pool_blocks, (int64_t{4} << 30) / one.kv_bytes_per_block);
  options.pp = 3;
  const auto stages = PlansFor(options, Shape("deepseek-llm-7b"), kernels::DType::kF16, H100());
  ASSERT_TRUE(stages.ok()) << ToString(stages.status());
  EXPECT_EQ(stages->size(), 3u);
}

TEST(Options, MaxModelLenIsANumberOrAuto) {
  Options options;
  ASSERT_FALSE(Parse({"--max-model-len", "auto"}, &options));
  EXPECT_EQ(options.context_tokens, 0);
  for (const char* wrong : {"many", "-1", "1", "4k", "99999999999", ""}) {
    Options other;
    EXPECT_EQ(Parse({"--max-model-len", wrong}, &other), kExitUsage) << wrong;
  }
}

TEST(Options, TheGpusTypes) {
  Options options;
  EXPECT_EQ(*CudaDType(options, StoredType::kBf16), kernels::DType::kBf16);
  EXPECT_EQ(*CudaDType(options, StoredType::kF16), kernels::DType::kF16);
  EXPECT_EQ(*CudaDType(options, StoredType::kF32), kernels::DType::kBf16);
  options.dtype = "half";
  EXPECT_EQ(*CudaDType(options, StoredType::kBf16), kernels::DType::kF16);
  options.dtype = "float";
  EXPECT_THAT(std::string(Message(CudaDType(options, StoredType::kF32).status())),
              HasSubstr("--device cpu"));
}

// A rank may be in any stage, so its numbers are those of the largest one.
TEST(Options, StagesShareTheModelAndThePoolIsThatOfTheLargestStage) {
  const ModelConfig config = Shape("deepseek-llm-7b");
  Options options;
  ASSERT_FALSE(Parse({"-pp", "2", "--kv-cache-memory", "4G", "--max-num-seqs", "8"}, &options));
  ASSERT_TRUE(ResolveDevice(false, &options).ok());
  const auto two = SizesFor(options, config);
  ASSERT_TRUE(two.ok()) << ToString(two.status());
  options.pp = 1;
  const auto one = SizesFor(options, config);
  ASSERT_TRUE(one.ok()) << ToString(one.status());
  EXPECT_LT(two->total_bytes - two->kv_cache_bytes,
            (one->total_bytes - one->kv_cache_bytes) * 2 / 3);
  EXPECT_NEAR(two->limits.pool_blocks, 2 * one->limits.pool_blocks, one->limits.pool_blocks / 8.0);
  Options many;
  EXPECT_EQ(Parse({"-tp", "16", "-pp", "8"}, &many), kExitUsage);
}

// Each of the workers that share a GPU takes its part of the share, whatever the others have taken.
TEST(Options, WorkersThatShareAGpuDivideItsMemory) {
  const ModelConfig config = Shape("deepseek-llm-7b");
  const auto total = [&](const std::vector<std::string>& words, int64_t taken_bytes) {
    Options options;
    EXPECT_FALSE(Parse(words, &options));
    EXPECT_TRUE(ResolveDevice(true, &options).ok());
    DeviceFacts device = H100();
    device.taken_bytes = taken_bytes;
    const auto plan = PlansFor(options, config, kernels::DType::kBf16, device);
    EXPECT_TRUE(plan.ok()) << ToString(plan.status());
    return plan.ok() ? plan->front().budget_bytes : 0;
  };
  const int64_t alone = total({"-tp", "2"}, 0);
  EXPECT_EQ(total({"-tp", "2", "--allow-shared-device"}, 0), alone / 2);
  EXPECT_EQ(total({"-pp", "4", "--allow-shared-device"}, 0), alone / 4);
  EXPECT_EQ(total({"-tp", "2", "--allow-shared-device"}, int64_t{30} << 30), alone / 2);
}

TEST(Options, TheSettingsOfNccl) {
  Options options;
  EXPECT_FALSE(Parse({"--nccl-interface", "eth0", "--nccl-debug", "INFO", "--nccl-debug-file", "f"},
                     &options));
  EXPECT_EQ(options.nccl_interface, "eth0");
  EXPECT_EQ(options.nccl_debug, "INFO");
  EXPECT_EQ(options.nccl_debug_file, "f");
  EXPECT_EQ(Parse({"--nccl-debug", "LOUD"}, &options), kExitUsage);
}

TEST(Options, WhatADeviceDoesNotDo) {
  const auto refusal = [](bool cuda, const std::vector<std::string>& words) {
    Options options;
    EXPECT_FALSE(Parse(words, &options));
    return std::string(Message(ResolveDevice(cuda, &options)));
  };
  EXPECT_THAT(refusal(true, {"-tp", "9"}), HasSubstr("use -dp"));
  EXPECT_EQ(refusal(true, {"-tp", "8"}), "");
  EXPECT_EQ(refusal(true, {"-pp", "8", "-tp", "2"}), "");
  EXPECT_THAT(refusal(true, {"-pp", "9"}), HasSubstr("1 to 8 stages"));
  EXPECT_THAT(refusal(false, {"--dtype", "half"}), HasSubstr("--dtype auto"));
  EXPECT_THAT(refusal(false, {"--block-size", "48"}), HasSubstr("16, 32, 64 or 128"));
  EXPECT_THAT(refusal(false, {"--max-num-seqs", "8", "--max-num-batched-tokens", "7"}),
              HasSubstr("--max-num-seqs 8"));
  Options blocks;
  ASSERT_FALSE(Parse({"--block-size", "16"}, &blocks));
  ASSERT_TRUE(ResolveDevice(true, &blocks).ok());
  EXPECT_THAT(
      std::string(Message(
          PlansFor(blocks, Shape("deepseek-llm-7b"), kernels::DType::kBf16, H100()).status())),
      HasSubstr("--block-size 16"));
}

}  // namespace
}  // namespace fathom::worker
