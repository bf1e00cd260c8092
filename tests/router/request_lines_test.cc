#include "router/request_lines.h"

#include <gtest/gtest.h>

namespace fathom::router {
namespace {

TEST(RequestLines, HasThePartsThatTookTime) {
  RequestReport report;
  report.outcome = "LENGTH";
  report.usage = {34, 200, 2};
  report.whole_us = 1'204'000;
  EXPECT_EQ(RequestLine(report),
            "ended LENGTH after 1.204 s: 34 prompt tokens, 2 of them cached, 200 generated");
  report.first_token_us = 31'000;
  RequestTimings timings;
  timings.queue_us = 4'000;
  timings.decode_us = 1'171'000;
  timings.preemptions = 2;
  report.timings = timings;
  EXPECT_EQ(RequestLine(report),
            "ended LENGTH after 1.204 s: 34 prompt tokens, 2 of them cached, 200 generated; first "
            "token after 0.031 s; queue 0.004 s, decode 1.171 s, transport 0.029 s; 2 preemptions");
  RequestReport failed;
  failed.outcome = "UNAVAILABLE";
  failed.reason = "NO_WORKERS";
  failed.message = "no group";
  EXPECT_EQ(RequestLine(failed),
            "ended UNAVAILABLE after 0.000 s: 0 prompt tokens, 0 of them cached, 0 generated; "
            "NO_WORKERS: no group");
}

// The next sink gets every report too.
TEST(RequestLines, PassesReportsOn) {
  struct Next final : ReportSink {
    void Ended(const RequestReport& report) override { outcome = report.outcome; }
    std::string outcome;
  } next;
  RequestReport report;
  report.outcome = "LENGTH";
  RequestLines(&next).Ended(report);
  EXPECT_EQ(next.outcome, "LENGTH");
  RequestLines(nullptr).Ended(report);
}

}  // namespace
}  // namespace fathom::router
