#include "cli/serve/supervisor.h"

#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

#include "common/check.h"
#include "common/flags.h"
#include "common/output.h"

namespace fathom::client {
namespace {

using nlohmann::json;

// A log line is a JSON object with the text in "msg"; any other line is the text itself.
std::string TextOf(const std::string& line) {
  const json parsed = json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (parsed.is_object() && parsed.contains("msg") && parsed["msg"].is_string()) {
    return parsed["msg"].get<std::string>();
  }
  return line;
}

// A child's line on our stderr: on a terminal with the child's name before it, and for a collector
// of logs, which reads JSON, with the name as a member of the child's JSON object.
std::string Named(const std::string& name, const std::string& line) {
  if (line.starts_with("{\"") && isatty(STDERR_FILENO) == 0) {
    return fmt::format("{{\"process\":\"{}\",{}", name, line.substr(1));
  }
  return fmt::format("{}: {}", name, line);
}

std::string SaidBy(const ChildState& state) {
  return state.last_error.empty() ? "without a word" : state.last_error;
}

std::string HowItEnded(const ChildState& state, int code) {
  const int signal = code - 128;
  const char* name = signal > 0 ? sigabbrev_np(signal) : nullptr;
  if (name == nullptr) return fmt::format("ended with {} ({})", code, SaidBy(state));
  return fmt::format("was ended by signal {}, SIG{}{} (its last line: {})", signal, name,
                     signal == SIGKILL ? "; if nobody sent it, memory ran out: see dmesg" : "",
                     SaidBy(state));
}

}  // namespace

int64_t RestartDelayUs(const SupervisorOptions& options, int deaths) {
  if (deaths == 1) return 0;
  const int doublings = std::clamp(deaths - 2, 0, 20);
  return std::min(options.backoff_first_us << doublings, options.backoff_max_us);
}

Supervisor::Supervisor(SupervisorOptions options, const Clock* clock)
    : options_(std::move(options)), clock_(clock) {}

absl::StatusOr<int> Supervisor::Add(ChildSpec spec) {
  const int index = static_cast<int>(children_.size());
  const std::string path = fmt::format("{}/{}.log", options_.run_dir, spec.name);
  auto log = RotatingFile::Open(path, options_.log_bytes_max);
  if (!log.ok()) {
    return FailedPrecondition("{}; give another --run-dir", Message(log.status()));
  }
  children_.push_back({std::move(spec), {}, *std::move(log)});
  if (auto status = Start(index); !status.ok()) {
    if (absl::IsNotFound(status)) return status;
    OnStartFailed(index, status);
  }
  return index;
}

absl::Status Supervisor::Start(int index) {
  Child& child = children_[index];
  std::vector<std::string> argv = child.spec.argv;
  for (const auto& [key, port] : child.spec.ports) {
    argv.push_back(port.flag);
    argv.push_back(std::to_string(port.port));
  }
  child.state.started_at_us = clock_->Now();
  child.state.listening_at_us.reset();
  child.state.up_at_us.reset();
  child.state.phases.clear();
  child.state.last_error.clear();
  FATHOM_ASSIGN_OR_RETURN(child.state.pid, processes_.Start(index, argv, child.spec.environment));
  return absl::OkStatus();
}

std::optional<Supervisor::Verdict> Supervisor::Poll(int timeout_ms) {
  for (const ProcessEvent& event : processes_.Wait(WaitMs(timeout_ms))) {
    if (auto verdict = Handle(event)) return verdict;
  }
  for (size_t i = 0; i < children_.size(); ++i) {
    const ChildState& state = children_[i].state;
    if (state.pid != 0 || clock_->Now() < state.restart_at_us) continue;
    const int index = static_cast<int>(i);
    if (auto status = Start(index); !status.ok()) {
      if (auto verdict = OnStartFailed(index, status)) return verdict;
    }
  }
  return std::nullopt;
}

// At most until the next restart is due.
int Supervisor::WaitMs(int timeout_ms) const {
  for (const Child& child : children_) {
    if (child.state.pid != 0) continue;
    const int64_t due_ms =
        std::max<int64_t>(0, (child.state.restart_at_us - clock_->Now() + 999) / 1000);
    timeout_ms = static_cast<int>(timeout_ms < 0 ? due_ms : std::min<int64_t>(timeout_ms, due_ms));
  }
  return timeout_ms;
}

std::optional<Supervisor::Verdict> Supervisor::Handle(const ProcessEvent& event) {
  if (std::holds_alternative<StopSignal>(event)) {
    stop_twice_ = std::exchange(stopping_, true);
    return Verdict{kExitOk, "stopping"};
  }
  if (const auto* line = std::get_if<ChildLine>(&event)) {
    OnLine(*line);
    return std::nullopt;
  }
  return OnExit(std::get<ChildExit>(event));
}

std::optional<Supervisor::Verdict> Supervisor::OnExit(const ChildExit& exit) {
  Child& child = children_[exit.child];
  ChildState& state = child.state;
  state.pid = 0;
  state.last_code = exit.code;
  if (stopping_) return std::nullopt;
  // The limits of the system will be the same at the next try. After the cluster was ready once,
  // they were sufficient, so a later try may succeed.
  const bool fatal = exit.code == kExitUsage || exit.code == kExitBadModel ||
                     (exit.code == kExitResources && !ready_);
  if (fatal) return Verdict{exit.code, fmt::format("{}: {}", child.spec.name, SaidBy(state))};
  if (state.up_at_us && clock_->Now() - *state.up_at_us >= options_.healthy_us) state.deaths = 0;
  return OnDown(exit.child, HowItEnded(state, exit.code), exit.code);
}

std::optional<Supervisor::Verdict> Supervisor::OnStartFailed(int index,
                                                             const absl::Status& status) {
  return OnDown(index, fmt::format("was not started: {}", Message(status)), kExitInternal);
}

std::optional<Supervisor::Verdict> Supervisor::OnDown(int index, const std::string& what,
                                                      int code) {
  Child& child = children_[index];
  ChildState& state = child.state;
  state.deaths += 1;
  const int64_t delay_us = RestartDelayUs(options_, state.deaths);
  state.restart_at_us = clock_->Now() + delay_us;
  if (!ready_ && state.deaths >= options_.deaths_before_ready_max) {
    return Verdict{code == kExitUnavailable ? kExitUnavailable : kExitInternal,
                   fmt::format("{} was lost {} times before the cluster was ready, at last it {}",
                               child.spec.name, state.deaths, what)};
  }
  notes_.push_back(
      fmt::format("{} {}; it starts again in {} ms", child.spec.name, what, delay_us / 1000));
  return std::nullopt;
}

void Supervisor::OnLine(const ChildLine& line) {
  Child& child = children_[line.child];
  if (line.is_error) {
    child.state.last_error = TextOf(line.text);
    child.log->Append(line.text);
    if (options_.verbose) Diagnose("{}", Named(child.spec.name, line.text));
    return;
  }
  const json said = json::parse(line.text, nullptr, /*allow_exceptions=*/false);
  if (!said.is_object()) return;
  if (said.value("event", "") == "phase") {
    const TimeUs now_us = clock_->Now();
    child.state.phases.push_back({said.value("name", "?"), said.value("us", int64_t{0}), now_us});
    if (child.state.phases.back().name == child.spec.ready_phase) child.state.up_at_us = now_us;
  } else if (said.contains("role")) {
    child.state.listening_at_us = clock_->Now();
    if (child.spec.ready_phase.empty()) child.state.up_at_us = child.state.listening_at_us;
    for (const auto& [key, value] : said.items()) {
      if (!value.is_number_integer()) continue;
      child.state.ports[key] = value.get<int64_t>();
      const auto wanted = child.spec.ports.find(key);
      if (wanted != child.spec.ports.end()) wanted->second.port = value.get<int32_t>();
    }
  }
}

void Supervisor::End(int index, const std::string& why) {
  if (!processes_.running(index)) return;
  notes_.push_back(fmt::format("{} {}", children_[index].spec.name, why));
  processes_.Signal(index, SIGKILL);
}

bool Supervisor::Stop(int64_t grace_us) {
  stopping_ = true;
  std::vector<int> stages;
  for (const Child& child : children_) stages.push_back(child.spec.stop_stage);
  std::sort(stages.begin(), stages.end());
  stages.erase(std::unique(stages.begin(), stages.end()), stages.end());
  bool clean = true;
  for (const int stage : stages) {
    clean = StopStage(stage, grace_us) && clean;
  }
  return clean;
}

bool Supervisor::StopStage(int stage, int64_t grace_us) {
  const auto each = [&](auto&& what) {
    for (size_t i = 0; i < children_.size(); ++i) {
      if (children_[i].spec.stop_stage == stage) what(static_cast<int>(i));
    }
  };
  const auto running = [&] {
    bool any = false;
    each([&](int i) { any = any || processes_.running(i); });
    return any;
  };
  each([&](int i) { processes_.Signal(i, SIGTERM); });
  bool killed = false;
  const TimeUs deadline_us = clock_->Now() + grace_us;
  while (running()) {
    if (!killed && (stop_twice_ || clock_->Now() >= deadline_us)) {
      each([&](int i) { processes_.Signal(i, SIGKILL); });
      killed = true;
    }
    const int64_t left_ms = std::max<int64_t>(1, (deadline_us - clock_->Now()) / 1000);
    for (const ProcessEvent& event : processes_.Wait(static_cast<int>(left_ms))) Handle(event);
  }
  return !killed;
}

std::vector<std::string> Supervisor::TakeNotes() { return std::exchange(notes_, {}); }

}  // namespace fathom::client
