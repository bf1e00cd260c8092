#include "cli/bench/bench_startup.h"

#include <signal.h>

#include <filesystem>
#include <optional>

#include "cli/serve/process_set.h"
#include "common/clock.h"

namespace fathom::client {
namespace {

constexpr int kServe = 0;
constexpr int kStartupPollMs = 100;
constexpr int64_t kStopUs = 60'000'000;

// Runs one child until `done` is true, the child ends, or the time is over.
class OneStart {
 public:
  absl::StatusOr<StartReport> Run(const std::vector<std::string>& argv, int32_t timeout_s) {
    const TimeUs deadline_us = clock_.Now() + timeout_s * int64_t{1'000'000};
    if (auto pid = processes_.Start(kServe, argv); !pid.ok()) return pid.status();
    while (!report_ && processes_.running(kServe) && clock_.Now() < deadline_us && !stopped_) {
      Hear();
    }
    const bool timed_out = !report_ && processes_.running(kServe);
    if (processes_.running(kServe)) processes_.Signal(kServe, SIGINT);
    const TimeUs give_up_us = clock_.Now() + kStopUs;
    while (processes_.running(kServe) && clock_.Now() < give_up_us) Hear();
    if (stopped_) return Cancelled("a stop signal came");
    if (report_) return *report_;
    if (timed_out) return Unavailable("fathom serve was not ready after {} s", timeout_s);
    return FailedPrecondition("fathom serve ended: {}", last_error_);
  }

 private:
  void Hear() {
    for (const ProcessEvent& event : processes_.Wait(kStartupPollMs)) {
      if (std::holds_alternative<StopSignal>(event)) stopped_ = true;
      const auto* line = std::get_if<ChildLine>(&event);
      if (line == nullptr || line->text.empty()) continue;
      if (line->is_error) {
        last_error_ = line->text;
      } else if (auto report = ParseReady(line->text); report.ok()) {
        report_ = *std::move(report);
      }
    }
  }

  const RealClock clock_{};
  ProcessSet processes_;
  std::optional<StartReport> report_;
  std::string last_error_;
  bool stopped_ = false;
};

}  // namespace

absl::StatusOr<std::vector<StartReport>> MeasureStarts(const std::vector<std::string>& serve_args,
                                                       int32_t repeats, int32_t timeout_s) {
  std::vector<std::string> argv = {std::filesystem::read_symlink("/proc/self/exe"), "serve",
                                   "--json"};
  for (const char* port : {"--http-port", "--grpc-port", "--scheduler-port",
                           "--scheduler-metrics-port", "--worker-port", "--worker-metrics-port"}) {
    argv.emplace_back(port);
    argv.emplace_back("0");
  }
  argv.insert(argv.end(), serve_args.begin(), serve_args.end());
  std::vector<StartReport> starts;
  for (int32_t i = 0; i < repeats; ++i) {
    FATHOM_ASSIGN_OR_RETURN(StartReport report, OneStart().Run(argv, timeout_s));
    starts.push_back(std::move(report));
  }
  return starts;
}

}  // namespace fathom::client
