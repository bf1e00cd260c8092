#include "router/trace/trace_exporter.h"

#include <algorithm>
#include <chrono>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

#include "common/inbox.h"
#include "common/log.h"
#include "common/process.h"

namespace fathom::router {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

// An id of zeros is none.
std::string NewId(int digits) {
  std::string id;
  while (id.find_first_not_of('0') == std::string::npos) id = RandomId().substr(0, digits);
  return id;
}

// What a later try may change, by the rules of OTLP.
bool MayRetry(const absl::StatusOr<http::Reply>& reply) {
  return !reply.ok() || reply->status == 429 || (reply->status >= 502 && reply->status <= 504);
}

bool Taken(const absl::StatusOr<http::Reply>& reply) {
  return reply.ok() && reply->status / 100 == 2;
}

std::string TextOf(const absl::StatusOr<http::Reply>& reply) {
  return reply.ok() ? fmt::format("HTTP {}", reply->status) : std::string(Message(reply.status()));
}

}  // namespace

class TraceExporter::Impl {
 public:
  Impl(const TraceExporterOptions& options, const Clock* clock, std::function<void(size_t)> dropped)
      : options_(options), clock_(*clock), dropped_(std::move(dropped)), queue_(options.queue_max) {
    thread_ = std::thread([this] { Run(); });
  }
  ~Impl() {
    end_at_ = steady_clock::now() + milliseconds(options_.end_ms);
    queue_.Close();
    stop_.Close();
    thread_.join();
  }

  void Push(const RequestReport& report) {
    const auto unix_ns = std::chrono::duration_cast<std::chrono::nanoseconds>(
        std::chrono::system_clock::now().time_since_epoch());
    TracedRequest request{report, unix_ns.count() - (clock_.Now() - report.begun_us) * 1000};
    if (!queue_.TryPush(std::move(request))) dropped_(1);
  }
  double sample_ratio() const { return options_.sample_ratio; }

 private:
  void Run() {
    while (true) {
      std::vector<TracedRequest> batch = NextBatch();
      if (batch.empty()) return;
      if (!Send(batch)) dropped_(batch.size());
    }
  }

  // The requests that wait; waits for the first. Empty: the exporter ends.
  std::vector<TracedRequest> NextBatch() {
    std::vector<TracedRequest> batch;
    std::optional<TracedRequest> next = queue_.Pop();
    while (next) {
      batch.push_back(*std::move(next));
      if (batch.size() == options_.batch_max) break;
      next = queue_.PopFor(std::chrono::microseconds(0));
    }
    return batch;
  }

  // False: the batch is lost.
  bool Send(const std::vector<TracedRequest>& batch) {
    if (given_up_) return false;
    const std::string body = OtlpTraces(batch, options_.resource, [] { return NewId(16); });
    int64_t pause_ms = options_.pause_ms_min;
    while (true) {
      const bool last = stop_.closed();
      const absl::StatusOr<http::Reply> reply =
          http::Post(options_.url, "application/json", body,
                     {.timeout_ms = options_.timeout_ms, .stopped = [this] { return EndCame(); }});
      Note(reply);
      if (Taken(reply)) return true;
      // A process that ends does not wait for a collector that is dead.
      given_up_ = last || EndCame();
      if (given_up_ || !MayRetry(reply)) return false;
      stop_.PopFor(milliseconds(pause_ms));
      pause_ms = std::min(2 * pause_ms, options_.pause_ms_max);
    }
  }

  // Whether the time after the begin of the end is over.
  bool EndCame() const { return stop_.closed() && steady_clock::now() >= end_at_; }

  // Logs when the collector stops to answer and when it answers again.
  void Note(const absl::StatusOr<http::Reply>& reply) {
    const bool ok = Taken(reply);
    if (ok == answers_) return;
    answers_ = ok;
    if (ok) return LogInfo("--otlp-traces-endpoint: the collector answers again");
    LogWarn(
        "--otlp-traces-endpoint: {}; traces wait for it and are dropped beyond {} requests, "
        "requests are not affected",
        TextOf(reply), options_.queue_max);
  }

  const TraceExporterOptions options_;
  const Clock& clock_;
  const std::function<void(size_t)> dropped_;
  Inbox<TracedRequest> queue_;
  steady_clock::time_point end_at_;  // Written before stop_ is closed, read afterwards.
  Inbox<std::monostate> stop_{1};    // Closed when the exporter must end; it ends the pauses.
  bool answers_ = true;              // This and the next one: of the thread.
  bool given_up_ = false;
  std::thread thread_;
};

TraceExporter::TraceExporter(const TraceExporterOptions& options, const Clock* clock,
                             std::function<void(size_t)> dropped)
    : impl_(std::make_unique<Impl>(options, clock, std::move(dropped))) {}
TraceExporter::~TraceExporter() = default;

absl::StatusOr<http::Url> TraceExporter::ParseEndpoint(const std::string& url) {
  auto parsed = http::ParseUrl(url);
  if (!parsed.ok()) return Annotate(parsed.status(), "--otlp-traces-endpoint");
  if (parsed->target.empty() || parsed->target == "/") parsed->target = "/v1/traces";
  return parsed;
}

SpanContext TraceExporter::BeginSpan(const TraceContext& client) const {
  SpanContext span{{client.trace_id, NewId(16), client.sampled}, client.span_id};
  if (!client.trace_id.empty()) return span;
  span.context.trace_id = NewId(32);
  // 53 random bits as a number from 0 to below 1.
  const double draw = static_cast<double>(RandomSeed() >> 11) * 0x1p-53;
  span.context.sampled = draw < impl_->sample_ratio();
  return span;
}

void TraceExporter::Ended(const RequestReport& report) {
  if (report.trace.context.sampled) impl_->Push(report);
}

}  // namespace fathom::router
