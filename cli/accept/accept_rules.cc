#include "cli/accept/accept_rules.h"

#include <fmt/format.h>

#include <algorithm>

namespace fathom::client {
namespace {

AcceptCheck VersionsCheck(const AcceptRun& run) {
  AcceptCheck check{.name = "versions", .wanted = "one build in every process"};
  std::vector<std::string> builds = {run.before.build};
  std::string unknown;
  int32_t guesses = 0;  // Default ports that did not answer.
  for (const ProcessVersion& process : run.processes) {
    if (!process.error.empty()) {
      if (process.required) {
        unknown += fmt::format("; {}: {}", process.address, process.error);
        check.outcome = Outcome::kFailed;
      } else {
        ++guesses;
      }
      continue;
    }
    builds.push_back(process.version + "+" + process.commit);
    // The router's build has a short commit; one of the two begins with the other.
    const std::string& shorter = std::min(builds.front(), builds.back(),
                                          [](auto& a, auto& b) { return a.size() < b.size(); });
    const std::string& longer = shorter == builds.front() ? builds.back() : builds.front();
    if (!longer.starts_with(shorter)) {
      check.outcome = Outcome::kFailed;
      check.found += fmt::format("{} at {} is {}; ", process.role, process.address, builds.back());
    }
  }
  check.found += fmt::format("router {}, {} of {} processes asked answered{}", run.before.build,
                             builds.size() - 1, run.processes.size(), unknown);
  if (guesses > 0) {
    check.found += fmt::format("; {} default ports did not (name them with --processes)", guesses);
  }
  if (check.outcome == Outcome::kPassed && builds.size() == 1) check.outcome = Outcome::kSkipped;
  return check;
}

AcceptCheck GroupsCheck(const AcceptRun& run) {
  const ClusterStatus& status = run.before;
  AcceptCheck check{.name = "groups",
                    .found = fmt::format("{} groups, {} ranks, {} on {}", status.groups,
                                         status.ranks.size(), run.model.dtype, run.model.device),
                    .wanted = "at least one group, and no worker that waits for one"};
  if (status.groups < 1 || !status.waiting.empty() || status.apart) {
    check.outcome = Outcome::kFailed;
    if (!status.waiting.empty()) check.found += "; " + status.waiting;
  }
  return check;
}

AcceptCheck StabilityCheck(const AcceptRun& run) {
  AcceptCheck check{
      .name = "stability",
      .found = fmt::format("term {}, {} groups at the end", run.after.term, run.after.groups),
      .wanted = "no group and no leader lost while the checks ran"};
  if (run.after.last_loss != run.before.last_loss) {
    check.found += "; lost: " + run.after.last_loss;
    check.outcome = Outcome::kFailed;
  }
  if (run.after.term != run.before.term || run.after.groups < run.before.groups ||
      !run.after.ready) {
    check.found += fmt::format("; before: term {}, {} groups", run.before.term, run.before.groups);
    if (!run.after.ready) check.found += "; not ready: " + run.after.reason;
    check.outcome = Outcome::kFailed;
  }
  return check;
}

void AddStress(const StressResult& stress, std::vector<AcceptCheck>* checks) {
  AcceptCheck all{
      .name = "stress",
      .found = fmt::format("{} of {} requests finished with {} tokens, {} cancelled",
                           stress.finished, stress.requests, stress.tokens, stress.cancelled),
      .wanted = "every request that was not cancelled ends with all its tokens"};
  if (!stress.error.empty()) all.found += "; " + stress.error;
  if (!stress.error.empty() || stress.finished + stress.cancelled != stress.requests ||
      stress.tokens != stress.tokens_expected) {
    all.outcome = Outcome::kFailed;
  }
  checks->push_back(std::move(all));
  AcceptCheck blocks{.name = "blocks", .wanted = "as many KV blocks free as before"};
  if (!stress.blocks_before || !stress.blocks_after) {
    blocks.outcome = Outcome::kSkipped;
    blocks.found = "others use the cluster too";
  } else {
    blocks.found =
        fmt::format("{} in use before, {} after", *stress.blocks_before, *stress.blocks_after);
    if (*stress.blocks_after > *stress.blocks_before) blocks.outcome = Outcome::kFailed;
  }
  checks->push_back(std::move(blocks));
}

// A percentile against its limit.
AcceptCheck LimitCheck(const std::string& name, double found_ms, double floor_ms, double factor) {
  AcceptCheck check{.name = name, .found = fmt::format("{:.3f} ms", found_ms)};
  if (floor_ms <= 0) {
    check.outcome = Outcome::kSkipped;
    check.wanted = "a floor: --model FOLDER or --floor-ms";
    return check;
  }
  const double limit_ms = factor * floor_ms;
  check.wanted =
      fmt::format("at most {:.3f} ms ({:g} times the floor of {:.3f})", limit_ms, factor, floor_ms);
  if (found_ms > limit_ms) check.outcome = Outcome::kFailed;
  return check;
}

void AddLatency(const AcceptRun& run, const LatencyLimits& limits,
                std::vector<AcceptCheck>* checks) {
  checks->push_back(
      {"first requests", run.latency_error.empty() ? Outcome::kPassed : Outcome::kFailed,
       run.latency_error.empty()
           ? fmt::format("{} answered", run.traces.size())
           : fmt::format("{} answered, then: {}", run.traces.size(), run.latency_error),
       "every one is answered"});
  if (run.traces.empty()) return;
  const BenchSummary all = Summarize(run.traces, run.wall_us);
  const double factor = limits.factor, tail = limits.tail_factor;
  const double first = limits.first_floor_ms, step = limits.step_floor_ms;
  checks->push_back(LimitCheck("first token, median", all.ttft_ms.median, first, factor));
  checks->push_back(LimitCheck("first token, p99", all.ttft_ms.p99, first, tail));
  if (run.output_len < 2) return;
  checks->push_back(LimitCheck("gap, median", all.itl_ms.median, step, factor));
  checks->push_back(LimitCheck("gap, p99", all.itl_ms.p99, step, tail));
}

}  // namespace

const char* NameOf(Outcome outcome) {
  switch (outcome) {
    case Outcome::kPassed:
      return "passed";
    case Outcome::kFailed:
      return "failed";
    case Outcome::kSkipped:
      break;
  }
  return "skipped";
}

std::vector<AcceptCheck> Judge(const AcceptRun& run, const LatencyLimits& limits) {
  std::vector<AcceptCheck> checks = {VersionsCheck(run), GroupsCheck(run)};
  AddLatency(run, limits, &checks);
  for (const EqualityResult& one : run.equalities) {
    checks.push_back(
        {one.name, one.difference.empty() ? Outcome::kPassed : Outcome::kFailed,
         one.difference.empty() ? fmt::format("{} answers are equal", one.answers) : one.difference,
         "equal tokens, equal bits of log-probabilities"});
  }
  AddStress(run.stress, &checks);
  checks.push_back(StabilityCheck(run));
  return checks;
}

bool Passed(const std::vector<AcceptCheck>& checks) {
  return std::ranges::none_of(
      checks, [](const AcceptCheck& check) { return check.outcome == Outcome::kFailed; });
}

}  // namespace fathom::client
