#include "cli/serve/workers.h"

#include <fmt/format.h>
#include <unistd.h>

#include <nlohmann/json.hpp>
#include <optional>

#include "cli/serve/rank_watch.h"
#include "cli/serve/run_dir.h"
#include "cli/serve/supervisor.h"
#include "common/address.h"
#include "common/exit_codes.h"
#include "common/output.h"
#include "http/client.h"

namespace fathom::client {
namespace {

// A worker that is told to stop drains its group, and ends its step at the limit of that.
constexpr int64_t kWorkersStopMarginUs = 10'000'000;
constexpr int kAskTimeoutMs = 1000;
constexpr int64_t kWorkersFailureGraceUs = 1'000'000;

void Report(const std::string& text) { Diagnose("fathom workers: {}", text); }

int ExitCodeOfRunDir(const absl::Status& status) {
  Report(std::string(Message(status)));
  return absl::IsUnavailable(status) ? kExitUnavailable : kExitUsage;
}

bool AllWorkersUp(const Supervisor& supervisor) {
  for (int i = 0; i < supervisor.children(); ++i) {
    if (!supervisor.child(i).up_at_us) return false;
  }
  return true;
}

void AnnounceWorkers(const ServeOptions& options, const Supervisor& supervisor) {
  nlohmann::json workers = nlohmann::json::array();
  for (int i = 0; i < supervisor.children(); ++i) {
    const ChildState& worker = supervisor.child(i);
    nlohmann::json one = {{"rank", options.first_rank + i}, {"pid", worker.pid}};
    for (const auto& [key, port] : worker.ports) {
      if (key != "pid") one[key] = port;
    }
    workers.push_back(std::move(one));
  }
  const nlohmann::json line = {{"event", "ready"},
                               {"pid", getpid()},
                               {"first_rank", options.first_rank},
                               {"workers", workers},
                               {"run_dir", options.run_dir}};
  if (!WriteAnnouncement(line.dump() + '\n')) {
    Report("the line of JSON that says where they listen cannot be written to stdout");
  }
}

// Asks the worker that is due whether it makes progress; kills one that has not for too long.
void AskNext(const ServeOptions& options, const Clock& clock, RankWatch* watch,
             Supervisor* supervisor) {
  const std::optional<int> worker = watch->Due(clock.Now());
  if (!worker) return;
  const ChildState& child = supervisor->child(*worker);
  if (child.pid == 0 || !child.listening_at_us) return;  // A start has no progress to ask for.
  const auto port = static_cast<int32_t>(child.ports.at("metrics_port"));
  const auto reply = http::Get({DialHost(options.worker_host), port, "/health/progress"},
                               {.timeout_ms = kAskTimeoutMs});
  const int status = reply.ok() ? reply->status : 0;
  if (!watch->Take(*worker, child.started_at_us, status, clock.Now())) return;
  supervisor->End(*worker,
                  fmt::format("{} for {} s; it is killed",
                              status == 0 ? "has not answered" : "has made no progress in a step",
                              options.restart_after_s));
}

}  // namespace

int Workers(ServeOptions options, const Clock& clock) {
  auto run_dir = HoldRunDir(
      "fathom workers", options.run_dir,
      options.worker_port == 0 ? "" : fmt::format("fathom-workers-{}", options.worker_port));
  if (!run_dir.ok()) return ExitCodeOfRunDir(run_dir.status());
  options.run_dir = *std::move(run_dir);
  options.own_pid = getpid();
  Supervisor supervisor({.run_dir = options.run_dir, .verbose = options.verbose}, &clock);
  for (int32_t i = 0; i < options.workers(); ++i) {
    const auto added = supervisor.Add(WorkerSpec(options, BinDir(), 0, i));
    if (added.ok()) continue;
    Report(std::string(Message(added.status())));
    return kExitInternal;
  }
  RankWatch watch({.limit_us = options.restart_after_s * int64_t{1'000'000}}, options.workers());
  std::optional<Supervisor::Verdict> verdict;
  for (bool ready = false; !verdict;) {
    verdict = supervisor.Poll(watch.WaitMs(clock.Now()));
    if (!verdict) AskNext(options, clock, &watch, &supervisor);
    for (const std::string& note : supervisor.TakeNotes()) Report(note);
    if (ready || verdict || !AllWorkersUp(supervisor)) continue;
    ready = true;
    supervisor.MarkReady();
    AnnounceWorkers(options, supervisor);
  }
  Report(verdict->message);
  const int64_t drain_us = options.drain_timeout_s * int64_t{1'000'000} + kWorkersStopMarginUs;
  supervisor.Stop(verdict->code == kExitOk ? drain_us : kWorkersFailureGraceUs);
  return verdict->code;
}

}  // namespace fathom::client
