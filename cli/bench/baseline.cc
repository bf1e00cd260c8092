#include "cli/bench/baseline.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "cli/bench/bench_json.h"
#include "cli/commands.h"
#include "common/output.h"

namespace fathom::client {
namespace {

constexpr int kExitLoss = 1;
constexpr int64_t kBaselineBytesMax = 16 << 20;

absl::StatusOr<std::vector<std::string>> CompareWithBaseline(const std::string& baseline,
                                                             const nlohmann::ordered_json& run,
                                                             const std::vector<Metric>& metrics) {
  RunKey key;
  for (const char* name :
       {"bench", "model", "device", "input_len", "output_len", "concurrency", "long_output_len",
        "workload", "arrivals", "requests_a_round", "rates", "scale", "seed"}) {
    if (!run.contains(name)) continue;
    key.emplace_back(name, run[name].is_string() ? run[name].get<std::string>() : run[name].dump());
  }
  FATHOM_ASSIGN_OR_RETURN(const std::string text, ReadWholeFile(baseline, kBaselineBytesMax));
  auto before = ParseBaseline(text, key);
  if (!before.ok()) {
    return Invalid("--baseline {}: {}", baseline, Message(before.status()));
  }
  return Losses(metrics, *before);
}

}  // namespace

int ConcludeBench(nlohmann::ordered_json run, const std::vector<Metric>& metrics, int32_t repeats,
                  const std::string& text, bool json, const std::string& baseline) {
  run["repeats"] = repeats;
  run["metrics"] = MetricsJson(metrics);
  PrintAnswer("{}", json ? run.dump() + "\n" : text);
  if (baseline.empty()) return kExitOk;
  if (repeats == 1) {
    Diagnose(
        "fathom bench: one round has no spread, so a loss of more than 2 % counts; use "
        "--repeats 3 or more, here and for the baseline");
  }
  const auto losses = CompareWithBaseline(baseline, run, metrics);
  if (!losses.ok()) return Fail("bench", losses.status());
  for (const std::string& loss : *losses) Diagnose("fathom bench: {}", loss);
  return losses->empty() ? kExitOk : kExitLoss;
}

}  // namespace fathom::client
