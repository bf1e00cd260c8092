#include "common/metrics.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "common/process.h"

namespace fathom {
namespace {

TEST(Metrics, TextHasNamesLabelsAndValues) {
  Metrics metrics("router");
  Counter ok = metrics.AddCounter("requests_total", "Requests by outcome", {{"outcome", "ok"}});
  Counter refused =
      metrics.AddCounter("requests_total", "Requests by outcome", {{"outcome", "refused"}});
  Gauge running = metrics.AddGauge("requests_running", "Running");
  Histogram ttft = metrics.AddHistogram("ttft_seconds", "Time to first token", {0.1, 1});
  ok.Add();
  ok.Add(2);
  refused.Add();
  running.Set(4);
  ttft.Observe(0.5);
  const std::string text = metrics.Text();
  for (const char* line :
       {"fathom_router_requests_total{outcome=\"ok\"} 3", "outcome=\"refused\"} 1",
        "fathom_router_requests_running 4", "fathom_router_ttft_seconds_bucket{le=\"1\"} 1",
        "fathom_router_ttft_seconds_bucket{le=\"0.1\"} 0"}) {
    EXPECT_NE(text.find(line), std::string::npos) << line << "\n" << text;
  }
  EXPECT_EQ(ok.value(), 3);
}

// An alias shows the value of its metric under another name, and of a histogram the chosen buckets.
TEST(Metrics, AnAliasIsAViewOfItsMetric) {
  Metrics metrics("router");
  Counter a = metrics.AddCounter("ended_total", "Ended", {{"outcome", "A"}});
  Counter b = metrics.AddCounter("ended_total", "Ended", {{"outcome", "B"}});
  Gauge running = metrics.AddGauge("running", "Running");
  Histogram time = metrics.AddHistogram("time_seconds", "Time", {0.1, 0.2, 1, 5});
  metrics.AddAlias("vllm:success_total", "Success", {{"reason", "stop"}}, {a, b});
  metrics.AddAlias("vllm:success_total", "Success", {{"reason", "length"}}, {b});
  metrics.AddAlias("vllm:running", "Running", {{"model", "m"}}, running);
  metrics.AddAlias("vllm:time_seconds", "Time", {}, time, {0.2, 5});
  a.Add(2);
  b.Add(3);
  running.Set(4);
  for (const double t : {0.05, 0.15, 0.7, 60.0}) time.Observe(t);
  const std::string text = metrics.Text();
  for (const char* lines : {"# TYPE vllm:success_total counter\n"
                            "vllm:success_total{reason=\"stop\"} 5\n"
                            "vllm:success_total{reason=\"length\"} 3\n",
                            "# TYPE vllm:running gauge\nvllm:running{model=\"m\"} 4\n",
                            "# TYPE vllm:time_seconds histogram\n"
                            "vllm:time_seconds_count 4\n"
                            "vllm:time_seconds_sum 60.9\n"
                            "vllm:time_seconds_bucket{le=\"0.2\"} 2\n"
                            "vllm:time_seconds_bucket{le=\"5\"} 3\n"
                            "vllm:time_seconds_bucket{le=\"+Inf\"} 4\n"}) {
    EXPECT_NE(text.find(lines), std::string::npos) << lines << "\n" << text;
  }
}

// vLLM's bounds for each of its times, which its dashboards expect.
TEST(Metrics, TheBucketsContainThoseOfVllm) {
  const auto contains = [](const std::vector<double>& all, const std::vector<double>& some) {
    EXPECT_TRUE(std::is_sorted(all.begin(), all.end()));
    return std::includes(all.begin(), all.end(), some.begin(), some.end());
  };
  EXPECT_TRUE(
      contains(RequestBucketsSeconds(), {.001, .005, .01, .02, .04, .06, .08, .1, .25, .5,  .75,
                                         1,    2.5,  5,   7.5, 10,  20,  40,  80, 160, 640, 2560}));
  EXPECT_TRUE(contains(RequestBucketsSeconds(), {.3, .5, .8, 1,  1.5, 2,   2.5, 5,   10,   15,  20,
                                                 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680}));
  EXPECT_TRUE(contains(LatencyBucketsSeconds(), {.01, .025, .05, .075, .1, .15, .2, .3, .4, .5, .75,
                                                 1, 2.5, 5, 7.5, 10, 20, 40, 80}));
  EXPECT_TRUE(contains(TokenBuckets(), {1, 2, 5, 10, 200, 5000, 20000, 1e6}));
}

TEST(Metrics, EveryRoleSaysWhatItIsAndHowItStarted) {
  PrintPhase("config", 250'000);
  const std::string text = Metrics("worker").Text();
  for (const char* part : {"fathom_worker_build_info{commit=\"", ",version=\"",
                           "fathom_worker_start_seconds{phase=\"config\"} 0.25\n"}) {
    EXPECT_NE(text.find(part), std::string::npos) << part << "\n" << text;
  }
}

}  // namespace
}  // namespace fathom
