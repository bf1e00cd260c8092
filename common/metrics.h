// common/metrics.h: the only code that uses prometheus-cpp. Names are fathom_<role>_<noun>_<unit>;
// counters end in _total. Only main's wiring registers metrics (an invalid name is our bug:
// FATHOM_CHECK). They live as long as the Metrics object. Thread: one thread registers; any thread
// updates (9-23 ns each).
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "common/listener.h"

namespace fathom {

class Counter {
 public:
  void Add(double n = 1);
  double value() const;

 private:
  friend class Metrics;
  void* impl_ = nullptr;
};

class Gauge {
 public:
  void Set(double v);
  double value() const;

 private:
  friend class Metrics;
  void* impl_ = nullptr;
};

class Histogram {
 public:
  void Observe(double v);

 private:
  friend class Metrics;
  void* impl_ = nullptr;
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

  // Serves GET /metrics and GET /livez (200, or 503 if `live` returns false) until this object is
  // destroyed.
  void Serve(Listener listener, std::function<bool()> live);

  // The text of /metrics. Every role also has diagnostics_dropped_total (common/output.h).
  std::string Text() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace fathom
