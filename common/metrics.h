// common/metrics.h: the only code that uses prometheus-cpp. Names are fathom_<role>_<noun>_<unit>;
// counters end in _total. Only main's wiring registers metrics (an invalid name is our bug:
// FATHOM_CHECK). They live as long as the Metrics object. Thread: one thread registers; any thread
// updates (9-23 ns each).
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

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

// Upper bounds in seconds, from 50 us to 80 s, for steps and tokens; and from 1 ms to 7,680 s, for
// requests. They contain the bounds that vLLM has for the same times, so that an alias can have
// these.
std::vector<double> LatencyBucketsSeconds();
std::vector<double> RequestBucketsSeconds();
// 1, 2, 5, 10, ... up to 1,000,000: numbers of tokens.
std::vector<double> TokenBuckets();

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

  // The same value under a full name of another engine, for dashboards that look for that name. The
  // alias of several counters is their sum. The buckets of a histogram's alias must be among those
  // of the histogram, so that an alias costs nothing until the metrics are read.
  void AddAlias(const std::string& full_name, const std::string& help, const Labels& labels,
                const std::vector<Counter>& of);
  void AddAlias(const std::string& full_name, const std::string& help, const Labels& labels,
                const Gauge& of);
  void AddAlias(const std::string& full_name, const std::string& help, const Labels& labels,
                const Histogram& of, std::vector<double> buckets);

  // The text of /metrics in Prometheus' format. Every role also has build_info{version,commit},
  // start_seconds{phase} (the parts of the start so far) and diagnostics_dropped_total
  // (common/output.h). Any thread may call it.
  std::string Text() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace fathom
