#include "common/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/exposer.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <exception>

#include "common/check.h"

namespace fathom {

void Counter::Add(double n) { static_cast<prometheus::Counter*>(impl_)->Increment(n); }
double Counter::value() const { return static_cast<prometheus::Counter*>(impl_)->Value(); }
void Gauge::Set(double v) { static_cast<prometheus::Gauge*>(impl_)->Set(v); }
double Gauge::value() const { return static_cast<prometheus::Gauge*>(impl_)->Value(); }
void Histogram::Observe(double v) { static_cast<prometheus::Histogram*>(impl_)->Observe(v); }

std::vector<double> LatencyBucketsSeconds() {
  return {50e-6, 100e-6, 200e-6, 350e-6, 500e-6, 750e-6, 1e-3, 1.5e-3, 2.5e-3, 5e-3, 10e-3,
          25e-3, 50e-3,  0.1,    0.25,   0.5,    1,      2.5,  5,      10,     30,   60};
}

class Metrics::Impl {
 public:
  explicit Impl(std::string role) : prefix("fathom_" + role + "_") {}

  // prometheus-cpp throws on a name it does not like; names are ours, so that is our bug.
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
  std::unique_ptr<prometheus::Exposer> exposer;
};

Metrics::Metrics(std::string role) : impl_(std::make_unique<Impl>(std::move(role))) {}
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

absl::StatusOr<int> Metrics::Serve(const std::string& host, int port) {
  try {
    impl_->exposer =
        std::make_unique<prometheus::Exposer>(fmt::format("{}:{}", host, port), /*num_threads=*/1);
    impl_->exposer->RegisterCollectable(impl_->registry);
    return impl_->exposer->GetListeningPorts().front();
  } catch (const std::exception& error) {
    return Unavailable("cannot serve /metrics on {}:{}: {}; choose another port (0 = any free one)",
                       host, port, error.what());
  }
}

std::string Metrics::Text() const {
  return prometheus::TextSerializer().Serialize(impl_->registry->Collect());
}

}  // namespace fathom
