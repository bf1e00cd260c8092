// cli/accept/accept_rules.h: judges what `fathom accept` saw of a cluster, and writes the report.
// Pure.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "cli/bench/bench_stats.h"
#include "client/types.h"

namespace fathom::client {

// The answer of a process to GET /version.
struct ProcessVersion {
  std::string address;
  std::string role, version, commit;
  std::string error;      // Why it is not known; "": it is.
  bool required = false;  // The user named the address, so an error is a failure.
};

// Two answers that must have equal tokens and equal bits of their log-probabilities.
struct EqualityResult {
  std::string name;        // "the same request twice".
  int32_t answers = 0;     // That were compared.
  std::string difference;  // The first one, or the error of a request; "": none.
};

struct StressResult {
  int32_t requests = 0, finished = 0, cancelled = 0;
  int64_t tokens = 0, tokens_expected = 0;  // Of the finished ones.
  std::string error;                        // Of the first request that failed; "": none.
  // Blocks in use before and after; absent: others use the cluster too.
  std::optional<int32_t> blocks_before, blocks_after;
};

// What was seen.
struct AcceptRun {
  std::string server, when;  // host:port; UTC.
  ClusterStatus before, after;
  Model model;
  std::vector<ProcessVersion> processes;
  int32_t input_len = 0, output_len = 0, concurrency = 1;
  std::string latency_error;
  std::vector<RequestTrace> traces;  // Of the first requests, in the order of their sending.
  int64_t wall_us = 0;
  std::vector<EqualityResult> equalities;
  StressResult stress;
};

// The floors of the plan, and how much longer an answer may take.
struct LatencyLimits {
  double step_floor_ms = 0;   // Of a gap between two tokens; 0: unknown, not judged.
  double first_floor_ms = 0;  // Of the first token.
  double factor = 2.5;        // Of the median.
  double tail_factor = 5;     // Of p99.
  std::string source;         // "models/x on h100", "--floor-ms".
};

enum class Outcome { kPassed, kFailed, kSkipped };
const char* NameOf(Outcome outcome);  // "passed", "failed", "skipped".

struct AcceptCheck {
  std::string name;
  Outcome outcome = Outcome::kPassed;
  std::string found;
  std::string wanted;
};

std::vector<AcceptCheck> Judge(const AcceptRun& run, const LatencyLimits& limits);
bool Passed(const std::vector<AcceptCheck>& checks);

struct AcceptReport {
  AcceptRun run;
  LatencyLimits limits;
  std::vector<AcceptCheck> checks;
};
std::string ToText(const AcceptReport& report);
nlohmann::ordered_json ToJson(const AcceptReport& report);
std::string ToHtml(const AcceptReport& report);

}  // namespace fathom::client
