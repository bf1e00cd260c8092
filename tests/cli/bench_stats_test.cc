#include "cli/bench/bench_stats.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "cli/bench/bench_json.h"
#include "cli/plan/roofline.h"
#include "modeling/architectures/architecture.h"
#include "tests/cli/model_shape.h"

namespace fathom::client {
namespace {

TEST(BenchStatsTest, NearestRank) {
  EXPECT_EQ(Distribute({}).median, 0);
  const Distribution one = Distribute({4});
  EXPECT_EQ(one.median, 4);
  EXPECT_EQ(one.p99, 4);
  std::vector<double> values;
  for (int i = 200; i >= 1; --i) values.push_back(i);
  const Distribution many = Distribute(values);
  EXPECT_EQ(many.median, 100);
  EXPECT_EQ(many.p90, 180);
  EXPECT_EQ(many.p99, 198);
  EXPECT_EQ(many.max, 200);
  EXPECT_EQ(many.mean, 100.5);
}

TEST(BenchStatsTest, DefinitionsCountTokensNotFrames) {
  // The first token comes after 10 ms, a frame of two tokens 4 ms later, and one token 3 ms after
  // that.
  RequestTrace trace{.sent_us = 1000,
                     .end_us = 20'000,
                     .frames = {{11'000, 1}, {15'000, 2}, {18'000, 1}},
                     .prompt_tokens = 7};
  const BenchSummary s = Summarize({trace}, 20'000);
  EXPECT_EQ(s.requests, 1);
  EXPECT_EQ(s.output_tokens, 4);
  EXPECT_EQ(s.prompt_tokens, 7);
  EXPECT_DOUBLE_EQ(s.ttft_ms.median, 10);
  EXPECT_DOUBLE_EQ(s.tpot_ms.median, 7.0 / 3);
  EXPECT_DOUBLE_EQ(s.itl_ms.median, 2);  // 2, 2, 3.
  EXPECT_DOUBLE_EQ(s.itl_ms.max, 3);
  EXPECT_DOUBLE_EQ(s.e2e_ms.median, 19);
  EXPECT_DOUBLE_EQ(s.output_tokens_per_s, 200);
  EXPECT_DOUBLE_EQ(s.total_tokens_per_s, 550);
}

TEST(BenchStatsTest, OneTokenHasNoTpot) {
  const BenchSummary s = Summarize({{.sent_us = 0, .end_us = 5, .frames = {{4, 1}}}}, 5);
  EXPECT_EQ(s.tpot_ms.max, 0);
  EXPECT_EQ(s.itl_ms.max, 0);
}

TEST(BenchStatsTest, AStepIsTheDifferenceOfTheLeastWalls) {
  const Metric step = StepMetric({1.02, 1.0}, 65, {3.56, 3.6}, 193);
  EXPECT_DOUBLE_EQ(step.value, 2.56e3 / 128);
  EXPECT_NEAR(step.noise, 0.06 / 2.56, 1e-12);
}

TEST(BenchStatsTest, LossesBeyondNoiseAlone) {
  const Metric before{.name = "step_ms", .value = 10, .noise = 0.01};
  const auto losses = [&](double value, double noise) {
    return Losses(Compare({{.name = "step_ms", .value = value, .noise = noise}}, {before}));
  };
  EXPECT_TRUE(losses(10.19, 0).empty());
  EXPECT_TRUE(losses(5, 0).empty());
  ASSERT_EQ(losses(10.3, 0).size(), 1);
  EXPECT_TRUE(losses(10.3, 0.03).empty());  // 1.5 times its own spread.
  const Metric rate{.name = "rate", .value = 100, .higher_is_better = true};
  const auto changes = Compare({{.name = "rate", .value = 120, .higher_is_better = true}}, {rate});
  EXPECT_TRUE(Losses(changes).empty());
  EXPECT_NE(ChangesText(changes).find("20.0 % better; noise 2.0 %"), std::string::npos);
  const auto worse = Compare({{.name = "rate", .value = 90, .higher_is_better = true}}, {rate});
  EXPECT_EQ(Losses(worse).size(), 1);
  EXPECT_NE(ChangesText(worse).find("10.0 % worse; noise 2.0 %  LOST"), std::string::npos);
  EXPECT_TRUE(Compare({{.name = "new", .value = 1}}, {before}).empty());
}

TEST(BenchJsonTest, BaselineIsWhatWasPrinted) {
  const nlohmann::ordered_json run = {
      {"bench", "step"},
      {"input_len", 160},
      {"metrics",
       MetricsJson({{.name = "step_ms", .value = 4.5, .unit = "ms", .noise = 0.01, .floor = 4}})}};
  EXPECT_NEAR(run["metrics"][0]["share"].get<double>(), 4 / 4.5, 1e-12);
  const std::string text = "some words\n" + run.dump() + "\n";
  const auto metrics = ParseBaseline(text, {{"bench", "step"}, {"input_len", "160"}});
  ASSERT_TRUE(metrics.ok()) << metrics.status();
  ASSERT_EQ(metrics->size(), 1);
  EXPECT_EQ((*metrics)[0].name, "step_ms");
  EXPECT_EQ((*metrics)[0].value, 4.5);
  EXPECT_EQ((*metrics)[0].noise, 0.01);
  const auto other = ParseBaseline(text, {{"bench", "step"}, {"input_len", "128"}});
  EXPECT_NE(Message(other.status()).find("input_len is 160 there and 128 here"), std::string::npos);
  for (const char* bad : {"", "{}", "[1]", R"({"metrics":[{}]})", "{", R"({"metrics":3})"}) {
    EXPECT_FALSE(ParseBaseline(bad, {}).ok()) << bad;
  }
}

TEST(BenchJsonTest, StartsAreMediansOfTheirParts) {
  const auto start = [](int64_t load_us) {
    const nlohmann::json line = {{"event", "ready"},
                                 {"start_us", load_us + 5000},
                                 {"timeline",
                                  {{{"name", "scheduler"}, {"us", 5000}},
                                   {{"name", "worker 0: start"}, {"us", 1000}},
                                   {{"name", "worker 0: load"}, {"us", load_us - 1000}}}}};
    return *ParseReady(line.dump());
  };
  const std::vector<Metric> metrics = StartMetrics({start(9000), start(3000), start(4000)});
  ASSERT_EQ(metrics.size(), 5);
  EXPECT_EQ(metrics[0].name, "start_ms");
  EXPECT_EQ(metrics[0].value, 9);
  EXPECT_EQ(metrics[1].name, "worker_ms");
  EXPECT_EQ(metrics[1].value, 4);
  EXPECT_EQ(metrics[4].name, "worker 0: load");
  EXPECT_EQ(metrics[4].value, 3);
  EXPECT_FALSE(ParseReady("ready").ok());
  EXPECT_FALSE(ParseReady(R"({"event":"phase"})").ok());
}

// The floors that were computed by hand for an H100 (3.10 TB/s, 781 TFLOP/s).
TEST(RooflineTest, PublishedShapes) {
  const CardLimits card = *LimitsOf("h100");
  const ModelConfig llm_7b = Shape("deepseek-llm-7b");
  EXPECT_EQ(StepWeightBytes(SpecOf(llm_7b)), 12'981'370'880);
  EXPECT_EQ(KvBytesPerToken(SpecOf(llm_7b)), 480 * 1024);
  EXPECT_NEAR(StepFloorMs(SpecOf(llm_7b), card, 1, 0), 4.19, 0.005);
  EXPECT_NEAR(StepFloorMs(SpecOf(llm_7b), card, 8, 290), 4.55, 0.01);
  EXPECT_NEAR(StepFloorMs(SpecOf(llm_7b), card, 64, 290), 7.13, 0.01);
  EXPECT_NEAR(StepFloorMs(SpecOf(llm_7b), card, 128, 290), 10.07, 0.01);
  EXPECT_NEAR(StepFloorMs(SpecOf(llm_7b), card, 512, 0), 8.51, 0.01);  // GEMMs.
  EXPECT_NEAR(StepFloorMs(SpecOf(Shape("deepseek-coder-33b")), card, 1, 0), 21.36, 0.05);
  EXPECT_NEAR(PrefillFloorMs(SpecOf(llm_7b), card, 128), 4.19, 0.005);
  EXPECT_NEAR(PrefillFloorMs(SpecOf(llm_7b), card, 2048), 33.2, 0.2);
  EXPECT_NEAR(ThroughputCeilingTps(SpecOf(llm_7b), card, 1024, 128, 128), 15'900, 300);
  EXPECT_NEAR(ThroughputCeilingTps(SpecOf(llm_7b), card, 300, 1000, 1000), 3'300, 50);
  EXPECT_FALSE(LimitsOf("none").has_value());
}

}  // namespace
}  // namespace fathom::client
