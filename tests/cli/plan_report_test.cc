#include "cli/plan/plan_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "cli/plan/cpu_plan_report.h"
#include "cli/plan/roofline.h"
#include "modeling/architectures/architecture.h"
#include "tests/cli/model_shape.h"

namespace fathom::client {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

std::string Refusal(const PlanFlags& flags, const char* shape = "deepseek-llm-7b") {
  const auto report = MakePlanReport("m", Shape(shape), flags);
  EXPECT_FALSE(report.ok());
  return report.ok() ? "" : std::string(Message(report.status()));
}

TEST(PlanReportTest, SevenBillionOnOneH100) {
  const ModelConfig config = Shape("deepseek-llm-7b");
  const auto report = MakePlanReport("deepseek-llm-7b", config, {});
  ASSERT_TRUE(report.ok()) << ToString(report.status());
  EXPECT_EQ(report->request.dtype, kernels::DType::kBf16);
  EXPECT_EQ(report->plan().limits.slots, 256);
  EXPECT_GE(report->plan().limits.step_tokens, 1500);
  EXPECT_LE(report->plan().limits.mixed_step_tokens, 2048);
  ASSERT_EQ(report->floors.size(), 3u);
  // Weights without the embedding and 1,024 tokens of KV, at 3.10 TB/s.
  EXPECT_NEAR(report->floors[0].ms, (12'981'370'880 + 1024.0 * 480 * 1024) / 3.10e9, 0.001);
  EXPECT_THAT(ToText(*report),
              AllOf(HasSubstr("deepseek-llm-7b in bfloat16"), HasSubstr("on h100 of 79.18 GiB"),
                    HasSubstr("weights "), HasSubstr("tokens/s"), HasSubstr("measured")));
}

TEST(PlanReportTest, JsonAddsUp) {
  for (const char* shape : {"deepseek-llm-7b", "deepseek-coder-33b", "r1-distill-qwen-7b"}) {
    const auto report = MakePlanReport(shape, Shape(shape), {.gpu = "h200"});
    ASSERT_TRUE(report.ok()) << ToString(report.status());
    const nlohmann::ordered_json json = ToJson(*report);
    int64_t arenas = 0, kv = 0;
    for (const auto& arena : json["arenas"]) {
      arenas += arena["bytes"].get<int64_t>();
      if (arena["name"] == "kv") kv = arena["bytes"];
    }
    EXPECT_EQ(arenas, json["total_bytes"]);
    EXPECT_EQ(kv, json["pool_blocks"].get<int64_t>() * json["kv_bytes_per_block"].get<int64_t>());
    EXPECT_EQ(json["pool_tokens"], (json["pool_blocks"].get<int64_t>() - 1) * 64);
    EXPECT_EQ(json["step_floors"].size(), report->floors.size());
    EXPECT_EQ(json["gpu"], "h200");
    EXPECT_FALSE(json["buffers"].empty());
  }
}

TEST(PlanReportTest, AGpuGivenAsBytesHasNoFloors) {
  const auto report = MakePlanReport("m", Shape("deepseek-llm-7b"), {.gpu = "24G"});
  ASSERT_TRUE(report.ok()) << ToString(report.status());
  EXPECT_EQ(report->plan().capacity_bytes, int64_t{24} << 30);
  EXPECT_TRUE(report->floors.empty());
  EXPECT_THAT(ToText(*report), Not(HasSubstr("TB/s")));
}

TEST(PlanReportTest, SequencesThatDoNotFitHaveNoFloor) {
  const auto report = MakePlanReport("m", Shape("deepseek-coder-33b"), {});
  ASSERT_TRUE(report.ok()) << ToString(report.status());
  EXPECT_EQ(report->floors.size(), 2u);  // 64 sequences of 1,024 tokens are too many.
  EXPECT_THAT(ToText(*report), HasSubstr("more of them do not fit"));
}

TEST(PlanReportTest, RanksShareTheStep) {
  const ModelConfig config = Shape("deepseek-llm-67b");
  const auto report = MakePlanReport("m", config, {.tp = 2});
  ASSERT_TRUE(report.ok()) << ToString(report.status());
  const CardLimits card = *LimitsOf("h100");
  // 95 layers with two sums of 16 KiB each.
  const double sums_ms = 190 * (5.4 + 16384 / 0.30e6) / 1e3;
  EXPECT_NEAR(RankSumsMs(SpecOf(config), 2, 1), sums_ms, 1e-9);
  EXPECT_EQ(RankSumsMs(SpecOf(config), 1, 1), 0);
  EXPECT_NEAR(report->floors[0].ms, StepFloorMs(SpecOf(config), card, 1, 1024) / 2 + sums_ms, 1e-9);
}

// The step passes through all stages, so its floor is that of one stage.
TEST(PlanReportTest, StagesDivideTheMemory) {
  const ModelConfig config = Shape("deepseek-llm-7b");
  const auto one = MakePlanReport("seven", config, {});
  const auto two = MakePlanReport("seven", config, {.pp = 2});
  ASSERT_TRUE(one.ok() && two.ok()) << ToString(two.status());
  ASSERT_EQ(two->plans.size(), 2u);
  EXPECT_EQ(two->floors.front().ms, one->floors.front().ms);
  EXPECT_GT(two->plan().pool_tokens(), one->plan().pool_tokens());
  EXPECT_THAT(ToText(*two), AllOf(HasSubstr("each of 2 ranks"), HasSubstr("stage 0: layers 0 to "),
                                  HasSubstr(", LM head"), HasSubstr("in all stages")));
  EXPECT_THAT(ToText(*one), AllOf(HasSubstr("all of 1 rank"), Not(HasSubstr("stage"))));
  const nlohmann::ordered_json json = ToJson(*two);
  EXPECT_EQ(json["pp"], 2);
  ASSERT_EQ(json["stages"].size(), 2u);
  int32_t layers = 0;
  for (const auto& stage : json["stages"]) {
    EXPECT_EQ(stage["first_layer"], layers);
    layers += stage["layers"].get<int32_t>();
    EXPECT_LE(stage["total_bytes"], json["total_bytes"]);
    int64_t arenas = 0;
    for (const auto& arena : stage["arenas"]) arenas += arena["bytes"].get<int64_t>();
    EXPECT_EQ(arenas, stage["total_bytes"]);
  }
  EXPECT_EQ(layers, 30);
  // A model that two GPUs hold by stages too.
  EXPECT_TRUE(MakePlanReport("m", Shape("deepseek-llm-67b"), {.gpu = "h200", .pp = 2}).ok());
}

TEST(PlanReportTest, Refusals) {
  EXPECT_THAT(Refusal({}, "deepseek-llm-67b"), HasSubstr("2 such GPUs with -tp 2"));
  EXPECT_THAT(Refusal({.gpu = "h900"}), AllOf(HasSubstr("h900"), HasSubstr("h100, ")));
  EXPECT_THAT(Refusal({.gpu = "5"}), HasSubstr("e.g. 80G"));
  EXPECT_THAT(Refusal({.dtype = "float"}), HasSubstr("bfloat16 or half"));
  EXPECT_THAT(Refusal({.block_tokens = 16}), HasSubstr("64 tokens"));
  EXPECT_THAT(Refusal({.context = "many"}), HasSubstr("or auto"));
  EXPECT_THAT(Refusal({.context = "1"}), HasSubstr("from 2 "));
  EXPECT_THAT(Refusal({.context = "4097"}), HasSubstr("context of 4096"));
}

TEST(GpuCardsTest, NamesAreFoundAndUnique) {
  std::set<std::string_view> names;
  for (const GpuCard& card : GpuCards()) {
    EXPECT_TRUE(names.insert(card.name).second) << card.name;
    EXPECT_EQ(FindGpuCard(card.name), &card);
    EXPECT_EQ(GpuCardOfDevice(fmt::format("NVIDIA {}", card.driver_name)), &card);
    EXPECT_THAT(GpuCardNames(), HasSubstr(std::string(card.name)));
    EXPECT_GT(card.memory_bytes, int64_t{20} << 30);
    EXPECT_GT(card.read_tbs, 0);
    EXPECT_GT(card.matrix_tflops, 0);
  }
  const auto name_of = [](std::string_view device) {
    const GpuCard* card = GpuCardOfDevice(device);
    return card == nullptr ? std::string_view() : card->name;
  };
  EXPECT_EQ(name_of("NVIDIA H100 80GB HBM3"), "h100");
  EXPECT_EQ(name_of("NVIDIA H100 PCIe"), "h100-pcie");
  EXPECT_EQ(name_of("NVIDIA H200"), "h200");
  EXPECT_EQ(name_of("NVIDIA A100-SXM4-80GB"), "a100-80");
  EXPECT_EQ(name_of("NVIDIA A100-SXM4-40GB"), "a100-40");
  EXPECT_EQ(name_of("NVIDIA L40S"), "l40s");
  EXPECT_EQ(name_of("NVIDIA L4"), "l4");
  EXPECT_EQ(name_of("NVIDIA L40"), "");
  EXPECT_EQ(name_of("NVIDIA GeForce RTX 4090"), "");
}

TEST(CpuPlanReportTest, EachStageHasItsBytes) {
  const ModelConfig config = Shape("deepseek-llm-7b");
  const PlanFlags flags{.device = "cpu", .tp = 2, .pp = 3, .kv_cache_bytes = int64_t{4} << 30};
  EXPECT_TRUE(flags.on_cpu());
  const auto report = MakeCpuPlanReport("seven", config, flags);
  ASSERT_TRUE(report.ok()) << ToString(report.status());
  const nlohmann::ordered_json json = ToJson(*report);
  ASSERT_EQ(json["stages"].size(), 3u);
  int32_t layers = 0;
  int64_t most = 0;
  for (const auto& stage : json["stages"]) {
    EXPECT_EQ(stage["first_layer"], layers);
    layers += stage["layers"].get<int32_t>();
    EXPECT_EQ(stage["total_bytes"], stage["weights_bytes"].get<int64_t>() +
                                        stage["kv_bytes"].get<int64_t>() +
                                        stage["work_bytes"].get<int64_t>());
    most = std::max(most, stage["total_bytes"].get<int64_t>());
  }
  EXPECT_EQ(layers, 30);
  EXPECT_EQ(json["total_bytes_of_largest_rank"], most);
  EXPECT_THAT(ToText(*report), AllOf(HasSubstr("tp 2 x pp 3"), HasSubstr("layers 0 to "),
                                     HasSubstr(", embedding"), HasSubstr(", LM head")));
}

TEST(CpuPlanReportTest, RefusalsSayWhatFits) {
  const auto refusal = [](const PlanFlags& flags) {
    return std::string(Message(MakeCpuPlanReport("m", Shape("deepseek-llm-7b"), flags).status()));
  };
  EXPECT_THAT(refusal({.pp = 31}), HasSubstr("use 1 to 30"));
  EXPECT_THAT(refusal({.tp = 16, .pp = 5}), HasSubstr("use 1 to 4 stages"));
  EXPECT_THAT(refusal({.pp = 2, .kv_cache_bytes = 1000}), HasSubstr("bytes or more"));
  EXPECT_THAT(refusal({.dtype = "half", .pp = 2}), HasSubstr("--dtype half"));
  EXPECT_THAT(Refusal({.tp = 16, .pp = 5}), HasSubstr("use 1 to 4 stages"));
}

}  // namespace
}  // namespace fathom::client
