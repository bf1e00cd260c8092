#include "common/metrics.h"

#include <gtest/gtest.h>

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

TEST(Metrics, ServesOnAnyFreePortAndSaysWhenItCannot) {
  Metrics first("router"), second("worker");
  const auto port = first.Serve("127.0.0.1", 0);
  ASSERT_TRUE(port.ok()) << ToString(port.status());
  EXPECT_GT(*port, 0);
  const auto taken = second.Serve("127.0.0.1", *port);
  EXPECT_EQ(taken.status().code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace fathom
