// A trace in the form that Perfetto reads: valid JSON, rows whose slices are in order and do not
// overlap, for any time stamps of the worker.
#include "cli/trace_json.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <nlohmann/json.hpp>
#include <random>

namespace fathom::client {
namespace {

using Json = nlohmann::ordered_json;

StepTrace DecodeStep(uint64_t step, TimeUs read_at_us) {
  StepTrace trace;
  trace.term = {2};
  trace.epoch = {7};
  trace.step = {step};
  trace.chunks = trace.decode_rows = 8;
  trace.graph = true;
  trace.wait_from_us = read_at_us - 40;
  trace.read_at_us = trace.submit_from_us = read_at_us;
  trace.submit_end_us = read_at_us + 30;
  trace.device_from_us = read_at_us + 35;
  trace.device_end_us = read_at_us + 100;
  trace.ready_at_us = read_at_us + 105;
  trace.written_at_us = read_at_us + 120;
  return trace;
}

// The slices of each row; every event is checked too.
std::map<std::string, std::vector<Json>> RowsOf(const std::string& text) {
  const Json all = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  EXPECT_TRUE(all.is_object());
  std::map<int, std::string> names;
  std::map<std::string, std::vector<Json>> rows;
  int64_t last_ts = 0;
  for (const Json& event : all["traceEvents"]) {
    EXPECT_EQ(event["pid"], 1);
    if (event["ph"] == "M") {
      if (event["name"] == "thread_name") names[event["tid"]] = event["args"]["name"];
      continue;
    }
    EXPECT_EQ(event["ph"], "X");
    EXPECT_GE(event["ts"].get<int64_t>(), last_ts);
    EXPECT_GE(event["dur"].get<int64_t>(), 0);
    last_ts = event["ts"];
    rows[names.at(event["tid"])].push_back(event);
  }
  for (const auto& [name, slices] : rows) {
    int64_t end = 0;
    for (const Json& slice : slices) {
      EXPECT_GE(slice["ts"].get<int64_t>(), end) << name << ": " << slice;
      end = slice["ts"].get<int64_t>() + slice["dur"].get<int64_t>();
    }
  }
  return rows;
}

TEST(TraceJsonTest, AStepInThreeRows) {
  auto rows = RowsOf(TraceJson({{"worker x", {DecodeStep(5, 1'000'040)}}}).dump());
  ASSERT_EQ(rows.size(), 3u);
  ASSERT_EQ(rows["engine"].size(), 2u);
  EXPECT_EQ(rows["engine"][0]["name"], "read");
  EXPECT_EQ(rows["engine"][0]["ts"], 0);  // The axis starts with the first wait.
  EXPECT_EQ(rows["engine"][0]["dur"], 40);
  EXPECT_EQ(rows["engine"][1]["name"], "submit");
  ASSERT_EQ(rows["device"].size(), 1u);
  EXPECT_EQ(rows["device"][0]["name"], "decode 8");
  EXPECT_EQ(rows["device"][0]["ts"], 75);
  EXPECT_EQ(rows["device"][0]["dur"], 65);
  EXPECT_EQ(rows["device"][0]["args"]["step"], 5);
  EXPECT_EQ(rows["device"][0]["args"]["epoch"], 7);
  EXPECT_EQ(rows["device"][0]["args"]["launch"], "graph");
  ASSERT_EQ(rows["result"].size(), 2u);
  EXPECT_EQ(rows["result"][0]["name"], "collect");
  EXPECT_EQ(rows["result"][1]["name"], "write");
}

TEST(TraceJsonTest, NamesTellTheRows) {
  StepTrace mixed = DecodeStep(1, 100);
  mixed.chunks = 10;
  mixed.prompt_chunks = 2;
  mixed.prompt_tokens = 700;
  StepTrace prefill = DecodeStep(2, 300);
  prefill.chunks = prefill.prompt_chunks = 1;
  prefill.prompt_tokens = 512;
  prefill.decode_rows = 0;
  StepTrace empty = DecodeStep(3, 500);
  empty.chunks = empty.decode_rows = 0;
  auto rows = RowsOf(TraceJson({{"w", {mixed, prefill, empty}}}).dump());
  ASSERT_EQ(rows["device"].size(), 3u);
  EXPECT_EQ(rows["device"][0]["name"], "prefill 700 + decode 8");
  EXPECT_EQ(rows["device"][1]["name"], "prefill 512");
  EXPECT_EQ(rows["device"][2]["name"], "no rows");
}

// The host saw the end of the first step 20 us late: it cannot have ended after the second step
// began.
TEST(TraceJsonTest, AnEndThatWasSeenLateIsMovedAndKeepsItsDuration) {
  StepTrace first = DecodeStep(1, 100);
  first.device_from_us = 150;
  first.device_end_us = 220;
  StepTrace second = DecodeStep(2, 180);
  second.device_from_us = 200;
  second.device_end_us = 270;
  auto rows = RowsOf(TraceJson({{"w", {first, second}}}).dump());
  EXPECT_EQ(rows["device"][0]["ts"], 70);
  EXPECT_EQ(rows["device"][0]["dur"], 70);
  EXPECT_EQ(rows["device"][1]["ts"], 140);
  EXPECT_EQ(rows["device"][1]["dur"], 70);
}

TEST(TraceJsonTest, NothingIsStillATrace) {
  EXPECT_TRUE(RowsOf(TraceJson({{"\"quoted\"\n", {}}}).dump()).empty());
  EXPECT_EQ(TraceText({}), "no steps");
}

// The second worker's clock is 5,000 us ahead; on the axis its step begins 10 us after the first's.
TEST(TraceJsonTest, SeveralWorkersShareOneAxis) {
  const Json all =
      TraceJson({{"rank 0", {DecodeStep(5, 1040)}}, {"rank 1", {DecodeStep(5, 6050)}, 5000}});
  std::map<int, std::string> names;
  std::map<int, int64_t> begins;
  int64_t last_ts = 0;
  for (const Json& event : all["traceEvents"]) {
    if (event["name"] == "process_name") names[event["pid"]] = event["args"]["name"];
    if (event["ph"] != "X") continue;
    EXPECT_GE(event["ts"].get<int64_t>(), last_ts);
    last_ts = event["ts"];
    if (event["name"] == "read") begins[event["pid"]] = event["ts"];
  }
  EXPECT_EQ(names, (std::map<int, std::string>{{1, "rank 0"}, {2, "rank 1"}}));
  EXPECT_EQ(begins, (std::map<int, int64_t>{{1, 0}, {2, 10}}));
}

TEST(ClockDifferenceTest, TheShortestRoundTripDecides) {
  const std::vector<ClockSample> samples = {
      {100, 9000, 900}, {1000, 8050, 1100}, {2000, 9400, 2700}};
  EXPECT_EQ(BestDifference(samples).ahead_us, 7000);
  EXPECT_EQ(BestDifference(samples).error_us, 50);
  EXPECT_EQ(BestDifference({{1000, 400, 1100}}).ahead_us, -650);
  // One machine's clock, whatever the round trips are.
  for (const TimeUs answered : {1000, 1010, 1100}) {
    EXPECT_EQ(BestDifference({{1000, answered, 1100}}).ahead_us, 0);
  }
}

TEST(TraceJsonTest, TextSumsUp) {
  EXPECT_EQ(TraceText({DecodeStep(1, 100), DecodeStep(2, 165)}),
            "2 steps in 0.1 ms, computing 100.0 % of it; medians: device 65 us, submit 30 us, "
            "write 15 us");
}

// Pipelined steps with jitter in what the host saw, wrong stamps, and restarts of the step count.
TEST(TraceJsonTest, PropertyRowsAreInOrderAndEveryStepIsThere) {
  const char* text = std::getenv("FATHOM_SEED");
  const uint64_t seed = text != nullptr ? std::strtoull(text, nullptr, 10) : 29;
  SCOPED_TRACE("FATHOM_SEED=" + std::to_string(seed));
  std::mt19937_64 rng(seed);
  const auto below = [&](uint64_t limit) { return static_cast<int64_t>(rng() % limit); };
  for (int round = 0; round < 300; ++round) {
    std::vector<StepTrace> steps;
    TimeUs cursor_us = below(1000);
    for (int64_t i = 0, count = 1 + below(30); i < count; ++i) {
      StepTrace step = DecodeStep(rng() % 100, cursor_us + below(50));
      for (TimeUs* stamp :
           {&step.read_at_us, &step.submit_from_us, &step.submit_end_us, &step.device_from_us,
            &step.device_end_us, &step.ready_at_us, &step.written_at_us}) {
        *stamp += below(200) - 100;
      }
      cursor_us += below(120);
      steps.push_back(step);
    }
    auto rows = RowsOf(TraceJson({{"w", steps}}).dump());
    ASSERT_EQ(rows["device"].size(), steps.size());
    for (size_t i = 0; i < steps.size(); ++i) {
      ASSERT_EQ(rows["device"][i]["args"]["step"], steps[i].step.value);
      ASSERT_EQ(rows["device"][i]["dur"],
                std::max<int64_t>(steps[i].device_end_us - steps[i].device_from_us, 0));
    }
    ASSERT_FALSE(TraceText(steps).empty());
  }
}

}  // namespace
}  // namespace fathom::client
