// common/metrics.h: the only code that uses prometheus-cpp. Names are fathom_<role>_<noun>_<unit>;
// counters end in _total. Only main's wiring registers metrics (an invalid name is our bug:
// FATHOM_CHECK). They live as long as the Metrics object. Thread: one thread registers; any thread
// updates (9-23 ns each).
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "common/http_server.h"
#include "common/listener.h"

namespace prometheus {
class Counter;
class Gauge;
class Histogram;
}  // namespace prometheus

namespace fathom {

class Counter {
 public:
  void Add(double n = 1);
  double value() const;

 private:
  friend class Metrics;
  prometheus::Counter* impl_ = nullptr;
};

class Gauge {
 public:
  void Set(double v);
  double value() const;

 private:
  friend class Metrics;
  prometheus::Gauge* impl_ = nullptr;
};

class Histogram {
 public:
  void Observe(double v);

 private:
  friend class Metrics;
  prometheus::Histogram* impl_ = nullptr;
};

// Upper bounds in seconds, from 50 us to 60 s.
std::vector<double> LatencyBucketsSeconds();

class Metrics {
 public:
  using Labels = std::map<std::string, std::string>;
  // `role`: "router", "scheduler", "worker".
  explicit Metrics(const std::string& role);
  ~Metrics();

  // The name has no prefix: AddCounter("requests_total", ...) makes fathom_router_requests_total.
  // The returned value is a handle; the Metrics object owns the metric.
  Counter AddCounter(const std::string& name, const std::string& help, const Labels& labels = {});
  Gauge AddGauge(const std::string& name, const std::string& help, const Labels& labels = {});
  Histogram AddHistogram(const std::string& name, const std::string& help,
                         std::vector<double> buckets, const Labels& labels = {});

  // The text of /metrics in Prometheus' format. Every role also has diagnostics_dropped_total
  // (common/output.h). Any thread may call it.
  std::string Text() const;

  // The answer of a process' HTTP port to a GET of `path`: /metrics, and /livez (200, or 503 if
  // `live` returns false); 404 for another path. It is for a server that owns the port and has
  // further paths. Any thread may call it.
  HttpAnswer Answer(std::string_view path, const std::function<bool()>& live) const;

  // Serves Answer on a port of its own until this object is destroyed. The serving thread calls
  // `live`.
  void Serve(Listener listener, std::function<bool()> live);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace fathom
