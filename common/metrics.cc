#include "common/metrics.h"

#include <netdb.h>
#include <prometheus/counter.h>
#include <prometheus/exposer.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <exception>
#include <future>

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
  explicit Impl(const std::string& role) : prefix("fathom_" + role + "_") {}

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
  std::string host;
  int port = 0;
};

namespace {

// A connection that is closed at once.
void Knock(const std::string& host, int port) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV;
  addrinfo* found = nullptr;
  if (getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found) != 0) return;
  const int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd >= 0) {
    (void)connect(fd, found->ai_addr, found->ai_addrlen);
    close(fd);
  }
  freeaddrinfo(found);
}

}  // namespace

Metrics::Metrics(const std::string& role) : impl_(std::make_unique<Impl>(role)) {}

// The HTTP server's thread looks whether it shall stop when somebody connects, or every two
// seconds.
Metrics::~Metrics() {
  if (!impl_->exposer) return;
  const auto stopped = std::async(std::launch::async, [this] { impl_->exposer.reset(); });
  while (stopped.wait_for(std::chrono::milliseconds(5)) != std::future_status::ready) {
    Knock(impl_->host, impl_->port);
  }
}

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
    impl_->host = host;
    impl_->port = impl_->exposer->GetListeningPorts().front();
    return impl_->port;
  } catch (const std::exception& error) {
    return Unavailable("cannot serve /metrics on {}:{}: {}; choose another port (0 = any free one)",
                       host, port, error.what());
  }
}

std::string Metrics::Text() const {
  return prometheus::TextSerializer().Serialize(impl_->registry->Collect());
}

}  // namespace fathom
