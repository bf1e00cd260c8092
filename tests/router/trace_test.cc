// The spans of requests, and the exporter with a collector of the test.
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "common/clock.h"
#include "common/listener.h"
#include "router/trace/otlp_json.h"
#include "router/trace/trace_exporter.h"

namespace fathom::router {
namespace {

using nlohmann::json;

const std::string kTrace = "4bf92f3577b34da6a3ce929d0e0e4736";
const std::string kSpan = "00f067aa0ba902b7";

RequestReport Preempted() {
  RequestReport report;
  report.key = {"default", "r-1"};
  report.trace = {{kTrace, "1111111111111111", true}, kSpan};
  report.model = "tiny";
  report.outcome = "LENGTH";
  report.usage = {7, 20, 0};
  report.max_tokens = 20;
  report.first_token_us = 260;
  report.submits = 1;
  RequestTimings timings;
  timings.queue_us = 100;
  timings.queue_behind_us = {90, 0, 0, 10};
  timings.prefill_us = 50;
  timings.decode_us = 300;
  timings.suspended_us = 40;
  timings.replay_us = 60;
  timings.preemptions = timings.suspensions = 1;
  timings.stays_total = 2;
  timings.stays = {{GroupId{1}, EpochId{2}, 100, 150, StayEnd::kPreempted, 50},
                   {GroupId{1}, EpochId{2}, 290, 260, StayEnd::kFinished, 60}};
  report.Take(timings, 600);
  return report;
}

TEST(OtlpParts, FollowEachOtherAndEndWithTheWhole) {
  const RequestReport report = Preempted();
  std::vector<std::pair<std::string, int64_t>> parts;
  int64_t at_us = 0;
  for (const PartSpan& part : PartsOf(report)) {
    EXPECT_EQ(part.at_us, at_us);
    at_us += part.us;
    parts.emplace_back(part.name, part.us);
  }
  EXPECT_EQ(at_us, report.whole_us);
  EXPECT_EQ(parts, (std::vector<std::pair<std::string, int64_t>>{{"transport", 50},
                                                                 {"queue", 100},
                                                                 {"prefill", 50},
                                                                 {"decode", 100},
                                                                 {"suspended", 40},
                                                                 {"replay", 60},
                                                                 {"decode", 200}}));
}

TEST(OtlpParts, WithoutTheSchedulersTimesAllIsTransport) {
  RequestReport report;
  report.whole_us = 70;
  const auto parts = PartsOf(report);
  ASSERT_EQ(parts.size(), 1u);
  EXPECT_STREQ(parts[0].name, "transport");
  EXPECT_EQ(parts[0].us, 70);
}

TEST(OtlpJson, HasTheSpanOfTheRequestAndItsParts) {
  const TracedRequest request{Preempted(), 1'000'000'000'000};
  int spans_made = 0;
  const auto all = json::parse(OtlpTraces({&request, 1}, {"0.2.0", "i"},
                                          [&] { return fmt::format("{:016x}", ++spans_made); }));
  const json& spans = all["resourceSpans"][0]["scopeSpans"][0]["spans"];
  ASSERT_EQ(spans.size(), 8u);
  const json& root = spans[0];
  EXPECT_EQ(root["name"], "llm_request");
  EXPECT_EQ(root["traceId"], kTrace);
  EXPECT_EQ(root["parentSpanId"], kSpan);
  EXPECT_EQ(root["startTimeUnixNano"], "1000000000000");
  EXPECT_EQ(root["endTimeUnixNano"], "1000000600000");
  EXPECT_FALSE(root.contains("status"));
  for (size_t i = 1; i < spans.size(); ++i) {
    EXPECT_EQ(spans[i]["parentSpanId"], "1111111111111111");
    EXPECT_EQ(spans[i]["traceId"], kTrace);
  }
  EXPECT_EQ(spans[2]["name"], "queue");
  EXPECT_EQ(spans[2]["attributes"][0]["key"], "fathom.behind.slots_seconds");
}

TEST(OtlpJson, AFailedRequestHasAnErrorStatus) {
  TracedRequest request{Preempted(), 0};
  request.report.outcome = "INTERNAL";
  request.report.reason = "NON_FINITE_LOGITS";
  request.report.message = "a fault";
  const auto all = json::parse(OtlpTraces({&request, 1}, {}, [] { return std::string(16, '2'); }));
  const json& root = all["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
  EXPECT_EQ(root["status"]["code"], 2);
  EXPECT_EQ(root["status"]["message"], "a fault");
}

TEST(TraceEndpoint, IsAUrlOfHttp) {
  const auto plain = TraceExporter::ParseEndpoint("http://127.0.0.1:4318");
  ASSERT_TRUE(plain.ok());
  EXPECT_EQ(plain->target, "/v1/traces");
  const auto full = TraceExporter::ParseEndpoint("http://[::1]:4318/custom?x=1");
  ASSERT_TRUE(full.ok());
  EXPECT_EQ(full->host, "::1");
  EXPECT_EQ(full->port, 4318);
  EXPECT_EQ(full->target, "/custom?x=1");
  EXPECT_EQ(TraceExporter::ParseEndpoint("http://collector")->port, 80);
  for (const char* bad : {"127.0.0.1:4318", "https://a:1", "http://", "http://a:b", "grpc://a:1",
                          "http://a:1/b\r\nX: y", "http://a:1/b c"}) {
    EXPECT_FALSE(TraceExporter::ParseEndpoint(bad).ok()) << bad;
  }
}

TEST(TraceSampling, TheClientDecidesElseTheRatio) {
  const ManualClock clock;
  const auto with_ratio = [&](double ratio) {
    TraceExporterOptions options{.url = {"127.0.0.1", 1, "/"}, .sample_ratio = ratio};
    return std::make_unique<TraceExporter>(options, &clock, [](size_t) {});
  };
  const auto never = with_ratio(0), always = with_ratio(1), half = with_ratio(0.5);
  const TraceContext asks{kTrace, kSpan, true}, declines{kTrace, kSpan, false};
  const SpanContext span = never->BeginSpan(asks);
  EXPECT_TRUE(span.context.sampled);
  EXPECT_EQ(span.context.trace_id, kTrace);
  EXPECT_EQ(span.parent_id, kSpan);
  EXPECT_NE(span.context.span_id, kSpan);
  EXPECT_FALSE(always->BeginSpan(declines).context.sampled);
  EXPECT_FALSE(never->BeginSpan({}).context.sampled);
  EXPECT_TRUE(always->BeginSpan({}).context.sampled);
  EXPECT_TRUE(always->BeginSpan({}).parent_id.empty());
  int sampled = 0;
  for (int i = 0; i < 1000; ++i) sampled += half->BeginSpan({}).context.sampled ? 1 : 0;
  EXPECT_GT(sampled, 400);
  EXPECT_LT(sampled, 600);
}

// Nothing listens: every request is counted as dropped, none blocks its caller, and the end of the
// exporter does not wait for the pauses.
TEST(TraceExporter, CountsWhatADeadCollectorDoesNotTake) {
  auto listener = Listener::Bind("127.0.0.1", 0, "port");
  ASSERT_TRUE(listener.ok());
  const int32_t port = listener->port();
  listener = Listener::Bind("127.0.0.1", 0, "port");  // Closes the first one.
  const ManualClock clock;
  std::atomic<size_t> dropped = 0;
  {
    const TraceExporterOptions options{.url = {"127.0.0.1", port, "/v1/traces"},
                                       .queue_max = 10,
                                       .pause_ms_min = 60'000,
                                       .pause_ms_max = 60'000};
    TraceExporter exporter(options, &clock, [&](size_t count) { dropped += count; });
    RequestReport report = Preempted();
    for (int i = 0; i < 200; ++i) exporter.Ended(report);
    report.trace.context.sampled = false;
    exporter.Ended(report);
    EXPECT_GE(dropped, 200u - 10 - options.batch_max);
  }
  EXPECT_EQ(dropped, 200u);
}

// A collector that accepts and never answers: the end does not wait for the time-out of a POST.
TEST(TraceExporter, EndsThoughACollectorHangs) {
  auto listener = Listener::Bind("127.0.0.1", 0, "port");
  ASSERT_TRUE(listener.ok());
  const ManualClock clock;
  std::atomic<size_t> dropped = 0;
  {
    const TraceExporterOptions options{.url = {"127.0.0.1", listener->port(), "/v1/traces"},
                                       .queue_max = 500,
                                       .timeout_ms = 3'600'000,
                                       .end_ms = 100};
    TraceExporter exporter(options, &clock, [&](size_t count) { dropped += count; });
    for (int i = 0; i < 200; ++i) exporter.Ended(Preempted());
  }
  EXPECT_EQ(dropped, 200u);
}

}  // namespace
}  // namespace fathom::router
