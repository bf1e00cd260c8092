// common/metrics.h: the only way to prometheus-cpp. Names are fathom_<role>_<noun>_<unit>; counters
// end in _total. Metrics are registered by main's wiring only (a bad name is our bug:
// FATHOM_CHECK), and live as long as the Metrics object. Thread: registration from one thread;
// updates from any (9-23 ns each).
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

// Upper bounds in seconds, 50 us to 60 s.
std::vector<double> LatencyBucketsSeconds();

class Metrics {
 public:
  using Labels = std::map<std::string, std::string>;
  // `role`: "router", "scheduler", "worker".
  explicit Metrics(const std::string& role);
  ~Metrics();

  // The name without its prefix: AddCounter("requests_total", ...) is fathom_router_requests_total.
  // Returned by value: a handle; the Metrics object owns the metric.
  Counter AddCounter(const std::string& name, const std::string& help, const Labels& labels = {});
  Gauge AddGauge(const std::string& name, const std::string& help, const Labels& labels = {});
  Histogram AddHistogram(const std::string& name, const std::string& help,
                         std::vector<double> buckets, const Labels& labels = {});

  // The text of /metrics in Prometheus' format. Every role also has diagnostics_dropped_total
  // (common/output.h). From any thread.
  std::string Text() const;

  // What a process' HTTP port answers to a GET of `path`: /metrics, and /livez (200, or 503 when
  // `live` says false); 404 to another one. For a server that has the port and further paths
  // itself. From any thread.
  HttpAnswer Answer(std::string_view path, const std::function<bool()>& live) const;

  // Has the port and answers as Answer, until this ends. `live` is called by a thread of its own.
  void Serve(Listener listener, std::function<bool()> live);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace fathom
