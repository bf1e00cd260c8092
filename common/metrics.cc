#include "common/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <exception>
#include <utility>

#include "common/check.h"
#include "common/output.h"

namespace fathom {

void Counter::Add(double n) { impl_->Increment(n); }
double Counter::value() const { return impl_->Value(); }
void Gauge::Set(double v) { impl_->Set(v); }
double Gauge::value() const { return impl_->Value(); }
void Histogram::Observe(double v) { impl_->Observe(v); }

std::vector<double> LatencyBucketsSeconds() {
  return {50e-6, 100e-6, 200e-6, 350e-6, 500e-6, 750e-6, 1e-3, 1.5e-3, 2.5e-3, 5e-3, 10e-3,
          25e-3, 50e-3,  0.1,    0.25,   0.5,    1,      2.5,  5,      10,     30,   60};
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
  std::unique_ptr<HttpServer> server;  // Destroyed before the registry that it reads.
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

HttpAnswer Metrics::Answer(std::string_view path, const std::function<bool()>& live) const {
  if (path == "/metrics") return {200, "text/plain; version=0.0.4; charset=utf-8", Text()};
  if (path != "/livez") return {404, "text/plain", "this port has /metrics and /livez\n"};
  if (!live()) return {503, "text/plain", "a port of this process is deaf\n"};
  return {200, "text/plain", "alive\n"};
}

void Metrics::Serve(Listener listener, std::function<bool()> live) {
  impl_->server = std::make_unique<HttpServer>(
      std::move(listener),
      [this, live = std::move(live)](std::string_view path) { return Answer(path, live); });
}

std::string Metrics::Text() const {
  std::vector<prometheus::MetricFamily> families = impl_->registry->Collect();
  families.push_back(DroppedLines(impl_->prefix));
  return prometheus::TextSerializer().Serialize(families);
}

}  // namespace fathom
