// router/trace/trace_exporter.h: sends the spans of requests that ended to an OpenTelemetry
// collector, by OTLP/HTTP in JSON. A thread of its own sends them in batches. The queue is bounded:
// what does not fit is dropped and counted, so a collector that is slow, dead or unknown costs a
// request nothing and stops nothing.
// Thread: any; Ended and BeginSpan never block.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "common/clock.h"
#include "common/status.h"
#include "common/trace_context.h"
#include "http/client.h"
#include "router/sessions/sessions.h"
#include "router/trace/otlp_json.h"

namespace fathom::router {

struct TraceExporterOptions {
  http::Url url;
  double sample_ratio = 1;  // Of requests whose client sends no traceparent.
  TraceResource resource;
  size_t queue_max = 2048;  // Requests that wait.
  size_t batch_max = 64;    // Requests of one POST.
  int64_t timeout_ms = 5000;
  int64_t pause_ms_min = 500;  // After a failure; doubles to the longest.
  int64_t pause_ms_max = 30'000;
  int64_t end_ms = 1000;  // For all that waits, when the process ends.
};

class TraceExporter final : public ReportSink {
 public:
  // `dropped` counts requests whose spans are lost; any thread may call it. REQUIRES: `clock`
  // outlives this object and is the clock of the reports.
  TraceExporter(const TraceExporterOptions& options, const Clock* clock,
                std::function<void(size_t)> dropped);
  ~TraceExporter() override;

  // "http://HOST:PORT": the path is /v1/traces, if the URL has none. INVALID_ARGUMENT names the
  // flag.
  static absl::StatusOr<http::Url> ParseEndpoint(const std::string& url);

  // The span of a request. A client that traces decides whether it is recorded; else the ratio.
  SpanContext BeginSpan(const TraceContext& client) const;

  void Ended(const RequestReport& report) override;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace fathom::router
