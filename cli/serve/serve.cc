#include "cli/serve/serve.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "cli/access/private_file.h"
#include "cli/serve/edge.h"
#include "cli/serve/run_dir.h"
#include "cli/serve/supervisor.h"
#include "cli/serve/timeline.h"
#include "cli/startup_report.h"
#include "client/client.h"
#include "common/address.h"
#include "common/api_key.h"
#include "common/flags.h"
#include "common/host_limits.h"
#include "common/listener.h"
#include "common/output.h"
#include "modeling/architectures/architecture.h"
#include "modeling/config/model_config.h"
#include "modeling/spec/rank_model.h"
#include "modeling/spec/stages.h"

namespace fathom::client {
namespace {

constexpr int kServePollMs = 5;
constexpr int64_t kStatusDeadlineMs = 1000;
// If so many groups in a row are lost for the same reason before the cluster was ever ready, the
// next one would be lost too, so the start fails.
constexpr int32_t kLossesAlikeMax = 5;
// A line about a slow start: the first one, and the longest time between two after doubling.
constexpr int64_t kSlowUs = 5'000'000;
constexpr int64_t kSlowUsMax = 60'000'000;
constexpr int64_t kFailureGraceUs = 1'000'000;
// A draining process should end by itself before we end it.
constexpr int64_t kDrainMarginUs = 5'000'000;

void Say(const std::string& text) { Diagnose("fathom serve: {}", text); }

// Checks of the model that are possible before any process is started.
absl::Status CheckModel(const ServeOptions& options) {
  FATHOM_ASSIGN_OR_RETURN(const ModelConfig config,
                          ReadModelConfig(options.model, options.hf_overrides));
  const ModelSpec spec = SpecOf(config);
  FATHOM_RETURN_IF_ERROR(CheckTensorParallel(spec, options.tp));
  return CheckStages(spec, options.pp);
}

absl::Status CheckPorts(const ServeOptions& options) {
  std::vector<std::pair<const char*, int32_t>> ports = {
      {"--http-port", options.http_port},
      {"--grpc-port", options.grpc_port},
      {"--metrics-port", options.scheduler_metrics_port},
      {"--scheduler-port", options.scheduler_port}};
  for (int32_t i = 0; i < options.workers(); ++i) {
    if (options.worker_port != 0) ports.emplace_back("--worker-port", options.worker_port + i);
    if (options.worker_metrics_port != 0) {
      ports.emplace_back("--worker-metrics-port", options.worker_metrics_port + i);
    }
  }
  for (const auto& [flag, port] : ports) {
    const bool outside = flag == std::string_view("--grpc-port") ||
                         (flag == std::string_view("--http-port") && !options.edge);
    const bool scheduler =
        flag == std::string_view("--scheduler-port") || flag == std::string_view("--metrics-port");
    const std::string inside = scheduler ? options.scheduler_host : kInsideHost;
    FATHOM_RETURN_IF_ERROR(Listener::Bind(outside ? options.host : inside, port, flag).status());
  }
  return absl::OkStatus();
}

// Checks the limits for this process, and for its children where the system counts them together.
absl::Status CheckHost(const ServeOptions& options) {
  return CheckHostLimits(ServeNeeds(options.workers()), TakeHostLimits());
}

// The phases of a process, with the time until its ports listened inserted.
std::vector<PhaseMark> WithListening(const ChildState& state) {
  std::vector<PhaseMark> phases = state.phases;
  if (!state.listening_at_us) return phases;
  const TimeUs at_us = *state.listening_at_us;
  const auto later = std::find_if(phases.begin(), phases.end(),
                                  [&](const PhaseMark& mark) { return mark.at_us > at_us; });
  phases.insert(later, {"listen", at_us - state.started_at_us, at_us});
  return phases;
}

// One cluster, from its first process to its last.
class Cluster {
 public:
  // `own_key`: for the state of the cluster, if keys are asked for.
  Cluster(ServeOptions options, std::string own_key, const Clock& clock, TimeUs begin_us)
      : options_(std::move(options)),
        own_key_(std::move(own_key)),
        clock_(clock),
        begin_us_(begin_us),
        supervisor_({.run_dir = options_.run_dir, .verbose = options_.verbose}, &clock) {}

  using Verdict = Supervisor::Verdict;

  // nullopt: the cluster can answer.
  std::optional<Verdict> Start(TimeUs checked_at_us) {
    checked_at_us_ = checked_at_us;
    next_slow_us_ = begin_us_ + slow_us_;
    deadline_us_ = begin_us_ + options_.start_timeout_s * int64_t{1'000'000};
    const std::string bin_dir = BinDir();
    if (auto verdict = Add(SchedulerSpec(options_, bin_dir))) return verdict;
    if (auto verdict = WaitUntil([&] { return supervisor_.child(0).listening_at_us.has_value(); },
                                 "the scheduler to listen")) {
      return verdict;
    }
    scheduler_port_ = PortOf(0, "port");
    for (int32_t i = 0; i < options_.workers(); ++i) {
      if (auto verdict = Add(WorkerSpec(options_, bin_dir, scheduler_port_, i))) return verdict;
    }
    if (auto verdict = Add(RouterSpec(options_, bin_dir, scheduler_port_))) return verdict;
    if (auto verdict =
            WaitUntil([&] { return supervisor_.child(router()).listening_at_us.has_value(); },
                      "the router to listen")) {
      return verdict;
    }
    if (options_.edge) {
      if (auto verdict = Add(EdgeSpec(options_, bin_dir, PortOf(router(), "grpc_port")))) {
        return verdict;
      }
      if (auto verdict =
              WaitUntil([&] { return supervisor_.child(front()).listening_at_us.has_value(); },
                        "the edge to listen")) {
        return verdict;
      }
    }
    client_.emplace(ClientOptions{.servers = {Address(PortOf(front(), "grpc_port"))},
                                  .api_key = own_key_,
                                  .tls = options_.tls.on(),
                                  .tls_unverified = true});
    if (auto verdict = WaitUntil([&] { return Ready(); }, "the cluster to be ready")) {
      return verdict;
    }
    ready_at_us_ = clock_.Now();
    supervisor_.MarkReady();
    return std::nullopt;
  }

  void Announce() const {
    const std::vector<Part> parts = CutTimeline(begin_us_, ready_at_us_, Intervals());
    WriteDiagnostic(TimelineText(parts));
    for (const GroupTimeline& start : status_.starts) WriteDiagnostic(TextOf(start));
    Diagnose(
        "\n{} is ready\n  gRPC       {}\n  metrics    {}://{}/metrics\n  scheduler  {}\n"
        "  logs       {}\nCtrl-C stops it.",
        status_.model, Address(PortOf(front(), "grpc_port")), options_.tls.on() ? "https" : "http",
        options_.edge ? FormatHostPort(kInsideHost, PortOf(router(), "http_port"))
                      : Address(PortOf(router(), "http_port")),
        SchedulerAddress(options_, scheduler_port_), options_.run_dir);
    if (options_.json || isatty(STDOUT_FILENO) == 0) {
      if (!WriteAnnouncement(ReadyLine(parts).dump() + '\n')) {
        Say("the line of JSON that says where it listens cannot be written to stdout");
      }
    }
  }

  Verdict Watch() {
    for (;;) {
      if (auto verdict = supervisor_.Poll(-1)) return *verdict;
      Tell();
    }
  }

  bool Stop(int64_t grace_us) { return supervisor_.Stop(grace_us); }

 private:
  int router() const { return options_.workers() + 1; }
  // The process whose gRPC port clients dial.
  int front() const { return router() + (options_.edge ? 1 : 0); }

  std::optional<Verdict> Add(ChildSpec spec) {
    auto added = supervisor_.Add(std::move(spec));
    if (added.ok()) return std::nullopt;
    return Verdict{kExitInternal, std::string(Message(added.status()))};
  }

  template <class Done>
  std::optional<Verdict> WaitUntil(const Done& done, const char* what) {
    while (!done()) {
      if (auto verdict = supervisor_.Poll(kServePollMs)) return verdict;
      Tell();
      TellIfSlow(what);
      if (status_.losses_alike >= kLossesAlikeMax) {
        return Verdict{
            kExitUnavailable,
            fmt::format("{} groups of workers were lost for the same reason before the cluster was "
                        "ready; {}; see the logs in {}",
                        status_.losses_alike, status_.last_loss, options_.run_dir)};
      }
      // Beside a group that starts, workers of other hosts may wait for more of their own.
      if (status_.apart && status_.ranks.empty() && WorkersAreUp()) {
        return Verdict{kExitUnavailable,
                       fmt::format("the workers can form no group: {}", status_.waiting)};
      }
      if (clock_.Now() >= deadline_us_) return TooLate(what);
    }
    return std::nullopt;
  }

  bool WorkersAreUp() const {
    for (int i = 1; i <= options_.workers(); ++i) {
      if (supervisor_.children() <= i || !supervisor_.child(i).up_at_us) return false;
    }
    return true;
  }

  // Says now and then what the start waits for: children that are not up, and the scheduler's word
  // about groups.
  void TellIfSlow(const char* what) {
    const TimeUs now_us = clock_.Now();
    if (now_us < next_slow_us_) return;
    slow_us_ = std::min(2 * slow_us_, kSlowUsMax);
    next_slow_us_ = now_us + slow_us_;
    std::string text = fmt::format("still waiting for {}", what);
    for (int i = 1; i <= options_.workers() && supervisor_.children() > i; ++i) {
      const ChildState& worker = supervisor_.child(i);
      if (worker.up_at_us) continue;
      const std::string name = fmt::format("worker-{}", i - 1);
      text += worker.pid == 0
                  ? fmt::format("; {} is down", name)
                  : "; " + SlowText(name, worker.started_at_us, WithListening(worker), now_us);
    }
    if (!status_.waiting.empty()) text += "; " + status_.waiting;
    Say(text);
  }

  Verdict TooLate(const char* what) const {
    std::string why = status_.reason.empty() ? "no reason known" : status_.reason;
    if (!status_.last_loss.empty()) {
      why += fmt::format("; the last group of workers was lost: {}", status_.last_loss);
    }
    return {kExitUnavailable,
            fmt::format("waited {} s for {} ({}); see the logs in {}, or raise --start-timeout-s",
                        options_.start_timeout_s, what, why, options_.run_dir)};
  }

  bool Ready() {
    auto status = client_->GetStatus(kStatusDeadlineMs);
    if (!status.ok()) return false;
    if (!status->last_loss.empty() && status->last_loss != status_.last_loss) {
      Say(fmt::format("a group of workers was lost, the scheduler makes another one; {}",
                      status->last_loss));
    }
    status_ = *std::move(status);
    return status_.ready;
  }

  void Tell() {
    for (const std::string& note : supervisor_.TakeNotes()) Say(note);
  }

  // The critical path of the start: the scheduler, the slowest worker, then router and group.
  std::vector<Interval> Intervals() const {
    const ChildState& scheduler = supervisor_.child(0);
    std::vector<Interval> all = {
        {"check the model", begin_us_, checked_at_us_},
        {"scheduler", scheduler.started_at_us, *scheduler.listening_at_us}};
    const auto last_of = [](const ChildState& state) {
      return std::max(state.listening_at_us.value_or(0),
                      state.phases.empty() ? 0 : state.phases.back().at_us);
    };
    int slowest = 1;
    for (int i = 2; i <= options_.workers(); ++i) {
      if (last_of(supervisor_.child(i)) > last_of(supervisor_.child(slowest))) slowest = i;
    }
    const ChildState& worker = supervisor_.child(slowest);
    for (Interval& part : ProcessIntervals(fmt::format("worker {}", slowest - 1),
                                           worker.started_at_us, WithListening(worker))) {
      all.push_back(std::move(part));
    }
    const TimeUs reached_us = all.back().to_us;
    const TimeUs routed_us = *supervisor_.child(router()).listening_at_us;
    if (routed_us > reached_us) all.push_back({"router", reached_us, routed_us});
    all.push_back({"group formed, router ready", std::max(reached_us, routed_us), ready_at_us_});
    return all;
  }

  nlohmann::json ReadyLine(const std::vector<Part>& parts) const {
    nlohmann::json workers = nlohmann::json::array();
    for (int i = 1; i <= options_.workers(); ++i) {
      workers.push_back({{"pid", supervisor_.child(i).pid},
                         {"port", PortOf(i, "port")},
                         {"metrics_port", PortOf(i, "metrics_port")}});
    }
    nlohmann::json timeline = nlohmann::json::array();
    for (const Part& part : parts) timeline.push_back({{"name", part.name}, {"us", part.us}});
    return {{"event", "ready"},
            {"pid", getpid()},
            {"host", options_.host},
            {"model", status_.model},
            {"grpc_port", PortOf(front(), "grpc_port")},
            {"http_port", PortOf(router(), "http_port")},
            {"scheduler_port", scheduler_port_},
            {"scheduler_metrics_port", PortOf(0, "metrics_port")},
            {"router_pid", supervisor_.child(router()).pid},
            {"scheduler_pid", supervisor_.child(0).pid},
            {"workers", workers},
            {"run_dir", options_.run_dir},
            {"start_us", ready_at_us_ - begin_us_},
            {"timeline", timeline}};
  }

  int32_t PortOf(int child, const std::string& key) const {
    const auto& ports = supervisor_.child(child).ports;
    const auto it = ports.find(key);
    return it == ports.end() ? 0 : static_cast<int32_t>(it->second);
  }
  // The address that a client on this machine dials.
  std::string Address(int32_t port) const { return FormatHostPort(DialHost(options_.host), port); }

  const ServeOptions options_;
  const std::string own_key_;
  const Clock& clock_;
  const TimeUs begin_us_;
  TimeUs checked_at_us_ = 0;
  TimeUs ready_at_us_ = 0;
  TimeUs deadline_us_ = 0;
  TimeUs next_slow_us_ = 0;
  int64_t slow_us_ = kSlowUs;
  int32_t scheduler_port_ = 0;
  Supervisor supervisor_;
  std::optional<Client> client_;
  ClusterStatus status_;
};

// A key of this process alone, with which it asks the router for the state of the cluster. Its
// file, with the hash, is in the run directory. Empty: no keys are asked for.
absl::StatusOr<std::string> MakeOwnKey(ServeOptions* options) {
  if (options->api_keys.empty()) return std::string();
  std::string key = NewApiKey();
  const ApiKeyEntry entry{.id = std::string(*IdOfApiKey(key)),
                          .hash = HashOfApiKey(key),
                          .tenant = "fathom-serve",
                          .permissions = static_cast<uint8_t>(Permission::kAdmin)};
  const std::string file = options->run_dir + "/own-key";
  FATHOM_RETURN_IF_ERROR(WritePrivateFile(file, FormatApiKeyEntry(entry) + "\n"));
  options->api_keys.push_back(file);
  return key;
}

int Refuse(const absl::Status& status, int code) {
  Say(std::string(Message(status)));
  return code;
}

}  // namespace

int Serve(ServeOptions options, const Clock& clock) {
  const TimeUs begin_us = clock.Now();
  if (auto status = CheckOptions(options); !status.ok()) return Refuse(status, kExitUsage);
  if (auto status = CheckAccess(options); !status.ok()) return Refuse(status, kExitUsage);
  if (options.edge) {
    if (auto found = FindHaproxy(); !found.ok()) return Refuse(found.status(), kExitUsage);
  }
  if (auto status = CheckModel(options); !status.ok()) return Refuse(status, kExitBadModel);
  if (auto status = CheckPorts(options); !status.ok()) {
    return Refuse(status, absl::IsUnavailable(status) ? kExitUnavailable : kExitUsage);
  }
  if (auto status = CheckHost(options); !status.ok()) return Refuse(status, kExitResources);
  const bool own_dir = options.run_dir.empty() && options.grpc_port == 0;
  auto run_dir_held =
      HoldRunDir("fathom serve", options.run_dir, own_dir ? "" : RunDirName(options));
  if (!run_dir_held.ok()) {
    const absl::Status& status = run_dir_held.status();
    return Refuse(status, absl::IsUnavailable(status) ? kExitUnavailable : kExitUsage);
  }
  options.run_dir = *std::move(run_dir_held);
  const std::string run_dir = options.run_dir;
  options.own_pid = getpid();
  const int64_t drain_us = options.drain_timeout_s * int64_t{1'000'000} + kDrainMarginUs;

  auto own_key = MakeOwnKey(&options);
  if (!own_key.ok()) return Refuse(own_key.status(), kExitUsage);
  Cluster cluster(std::move(options), *std::move(own_key), clock, begin_us);
  auto verdict = cluster.Start(clock.Now());
  if (!verdict) {
    cluster.Announce();
    verdict = cluster.Watch();
  }
  Say(verdict->message);
  cluster.Stop(verdict->code == kExitOk ? drain_us : kFailureGraceUs);
  const bool explained = verdict->code != kExitUnavailable && verdict->code != kExitInternal;
  if (own_dir && explained) {  // If the end is not explained, the logs are kept.
    std::error_code ignored;
    std::filesystem::remove_all(run_dir, ignored);
  }
  return verdict->code;
}

}  // namespace fathom::client
