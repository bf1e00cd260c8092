#include "common/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <exception>
#include <functional>
#include <limits>
#include <mutex>
#include <utility>

#include "common/check.h"
#include "common/output.h"
#include "common/process.h"

namespace fathom {

void Counter::Add(double n) { impl_->Increment(n); }
double Counter::value() const { return impl_->Value(); }
void Gauge::Set(double v) { impl_->Set(v); }
double Gauge::value() const { return impl_->Value(); }
void Histogram::Observe(double v) { impl_->Observe(v); }

std::vector<double> LatencyBucketsSeconds() {
  return {50e-6, 100e-6, 200e-6, 350e-6, 500e-6, 750e-6, 1e-3,  1.5e-3, 2e-3,  2.5e-3,
          3e-3,  4e-3,   5e-3,   7.5e-3, 10e-3,  15e-3,  20e-3, 25e-3,  30e-3, 40e-3,
          50e-3, 75e-3,  0.1,    0.15,   0.2,    0.25,   0.3,   0.4,    0.5,   0.75,
          1,     2.5,    5,      7.5,    10,     20,     30,    40,     60,    80};
}

std::vector<double> RequestBucketsSeconds() {
  return {1e-3, 5e-3, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.15, 0.2,  0.25, 0.3,
          0.4,  0.5,  0.75, 0.8,  1,    1.5,  2,    2.5,  5,    7.5, 10,   15,   20,   30,
          40,   50,   60,   80,   120,  160,  240,  480,  640,  960, 1920, 2560, 7680};
}

std::vector<double> TokenBuckets() {
  std::vector<double> bounds;
  for (double step = 1; step < 1e6; step *= 10) {
    for (const double factor : {1.0, 2.0, 5.0}) bounds.push_back(step * factor);
  }
  bounds.push_back(1e6);
  return bounds;
}

class Metrics::Impl {
 public:
  explicit Impl(const std::string& role) : prefix("fathom_" + role + "_") {}

  // prometheus-cpp throws on an invalid name. All names are ours, so this is our bug.
  template <class Make>
  auto Register(const std::string& name, Make make) {
    try {
      return make();
    } catch (const std::exception& error) {
      FATHOM_CHECK(false, "metric {}{}: {}", prefix, name, error.what());
      std::abort();
    }
  }

  const std::string prefix;
  std::shared_ptr<prometheus::Registry> registry = std::make_shared<prometheus::Registry>();

  struct AliasFamily {
    prometheus::MetricFamily family;  // Without metrics.
    std::vector<std::function<std::vector<prometheus::ClientMetric>()>> collect;
  };
  void Alias(const std::string& name, const std::string& help, prometheus::MetricType type,
             std::function<prometheus::ClientMetric()> collect) {
    AddCollected(name, help, type, [collect = std::move(collect)] {
      return std::vector<prometheus::ClientMetric>{collect()};
    });
  }
  void AddCollected(const std::string& name, const std::string& help, prometheus::MetricType type,
                    std::function<std::vector<prometheus::ClientMetric>()> collect) {
    const std::lock_guard lock(mutex);
    AliasFamily& alias = aliases[name];
    alias.family = {name, help, type, {}};
    alias.collect.push_back(std::move(collect));
  }

  std::mutex mutex;  // Guards what follows.
  std::map<std::string, AliasFamily> aliases;
};

namespace {

// The counter of diagnostic lines that could not be written (common/output.h counts them).
prometheus::MetricFamily DroppedLines(const std::string& prefix) {
  prometheus::MetricFamily family;
  family.name = prefix + "diagnostics_dropped_total";
  family.help = "Log lines and other diagnostics that could not be written";
  family.type = prometheus::MetricType::Counter;
  family.metric.resize(1);
  family.metric[0].counter.value = static_cast<double>(DroppedDiagnostics());
  return family;
}

prometheus::ClientMetric WithLabels(const Metrics::Labels& labels) {
  prometheus::ClientMetric metric;
  for (const auto& [name, value] : labels) metric.label.push_back({name, value});
  return metric;
}

prometheus::MetricFamily BuildInfo(const std::string& prefix) {
  const BuildParts build = OwnBuild();
  prometheus::ClientMetric metric =
      WithLabels({{"version", build.version}, {"commit", build.commit}});
  metric.gauge.value = 1;
  return {prefix + "build_info",
          "1: the build of this process.",
          prometheus::MetricType::Gauge,
          {metric}};
}

prometheus::MetricFamily StartSeconds(const std::string& prefix) {
  prometheus::MetricFamily family{prefix + "start_seconds",
                                  "Duration of each part of the start.",
                                  prometheus::MetricType::Gauge,
                                  {}};
  for (const auto& [name, us] : RecordedPhases()) {
    prometheus::ClientMetric metric = WithLabels({{"phase", name}});
    metric.gauge.value = static_cast<double>(us) * 1e-6;
    family.metric.push_back(metric);
  }
  return family;
}

}  // namespace

Metrics::Metrics(const std::string& role) : impl_(std::make_unique<Impl>(role)) {}

Metrics::~Metrics() = default;

Counter Metrics::AddCounter(const std::string& name, const std::string& help,
                            const Labels& labels) {
  Counter handle;
  handle.impl_ = impl_->Register(name, [&] {
    auto& family =
        prometheus::BuildCounter().Name(impl_->prefix + name).Help(help).Register(*impl_->registry);
    return &family.Add(labels);
  });
  return handle;
}

Gauge Metrics::AddGauge(const std::string& name, const std::string& help, const Labels& labels) {
  Gauge handle;
  handle.impl_ = impl_->Register(name, [&] {
    auto& family =
        prometheus::BuildGauge().Name(impl_->prefix + name).Help(help).Register(*impl_->registry);
    return &family.Add(labels);
  });
  return handle;
}

Histogram Metrics::AddHistogram(const std::string& name, const std::string& help,
                                std::vector<double> buckets, const Labels& labels) {
  Histogram handle;
  handle.impl_ = impl_->Register(name, [&] {
    auto& family = prometheus::BuildHistogram()
                       .Name(impl_->prefix + name)
                       .Help(help)
                       .Register(*impl_->registry);
    return &family.Add(labels, buckets);
  });
  return handle;
}

void Metrics::AddAlias(const std::string& full_name, const std::string& help, const Labels& labels,
                       const std::vector<Counter>& of) {
  impl_->Alias(full_name, help, prometheus::MetricType::Counter, [labels, of] {
    prometheus::ClientMetric metric = WithLabels(labels);
    for (const Counter& counter : of) metric.counter.value += counter.value();
    return metric;
  });
}

void Metrics::AddAlias(const std::string& full_name, const std::string& help, const Labels& labels,
                       const Gauge& of) {
  impl_->Alias(full_name, help, prometheus::MetricType::Gauge, [labels, of] {
    prometheus::ClientMetric metric = WithLabels(labels);
    metric.gauge.value = of.value();
    return metric;
  });
}

void Metrics::AddAlias(const std::string& full_name, const std::string& help, const Labels& labels,
                       const Histogram& of, std::vector<double> buckets) {
  // The last bucket is that of all observations.
  buckets.push_back(std::numeric_limits<double>::infinity());
  for (const auto& bound : buckets) {
    const auto& all = of.impl_->Collect().histogram.bucket;
    FATHOM_CHECK(std::any_of(all.begin(), all.end(),
                             [&](const auto& bucket) { return bucket.upper_bound == bound; }),
                 "{}: the histogram has no bucket {}", full_name, bound);
  }
  impl_->Alias(full_name, help, prometheus::MetricType::Histogram, [labels, of, buckets] {
    prometheus::ClientMetric metric = WithLabels(labels);
    metric.histogram = of.impl_->Collect().histogram;
    std::erase_if(metric.histogram.bucket, [&](const auto& bucket) {
      return std::find(buckets.begin(), buckets.end(), bucket.upper_bound) == buckets.end();
    });
    return metric;
  });
}

void Metrics::AddAlias(const std::string& full_name, const std::string& help, const Labels& labels,
                       std::function<Counts()> collect) {
  impl_->Alias(full_name, help, prometheus::MetricType::Histogram,
               [labels, collect = std::move(collect)] {
                 prometheus::ClientMetric metric = WithLabels(labels);
                 const Counts counts = collect();
                 auto& histogram = metric.histogram;
                 for (size_t i = 0; i < counts.counts.size(); ++i) {
                   histogram.sample_count += counts.counts[i];
                   histogram.bucket.push_back(
                       {histogram.sample_count, i < counts.bounds.size()
                                                    ? counts.bounds[i]
                                                    : std::numeric_limits<double>::infinity()});
                 }
                 histogram.sample_sum = counts.sum;
                 return metric;
               });
}

void Metrics::AddFamily(const std::string& full_name, const std::string& help, Kind kind,
                        std::function<std::vector<Sample>()> collect) {
  const bool counter = kind == Kind::kCounter;
  const auto type = counter ? prometheus::MetricType::Counter : prometheus::MetricType::Gauge;
  impl_->AddCollected(full_name, help, type, [counter, collect = std::move(collect)] {
    std::vector<prometheus::ClientMetric> metrics;
    for (const Sample& sample : collect()) {
      prometheus::ClientMetric& metric = metrics.emplace_back(WithLabels(sample.labels));
      (counter ? metric.counter.value : metric.gauge.value) = sample.value;
    }
    return metrics;
  });
}

std::string Metrics::Text() const {
  std::vector<prometheus::MetricFamily> families = impl_->registry->Collect();
  families.push_back(DroppedLines(impl_->prefix));
  families.push_back(BuildInfo(impl_->prefix));
  families.push_back(StartSeconds(impl_->prefix));
  const std::lock_guard lock(impl_->mutex);
  for (const auto& [name, alias] : impl_->aliases) {
    prometheus::MetricFamily& family = families.emplace_back(alias.family);
    for (const auto& collect : alias.collect) {
      for (auto& metric : collect()) family.metric.push_back(std::move(metric));
    }
  }
  return prometheus::TextSerializer().Serialize(families);
}

}  // namespace fathom
