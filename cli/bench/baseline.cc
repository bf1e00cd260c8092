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

absl::StatusOr<std::vector<MetricChange>> CompareWithBaseline(const std::string& baseline,
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
  return Compare(metrics, *before);
}

nlohmann::ordered_json ChangesJson(const std::vector<MetricChange>& changes) {
  nlohmann::ordered_json all = nlohmann::ordered_json::array();
  for (const MetricChange& change : changes) {
    all.push_back({{"name", change.name},
                   {"before", change.before},
                   {"now", change.now},
                   {"worse", change.worse},
                   {"allowed", change.allowed},
                   {"lost", change.lost()}});
  }
  return all;
}

}  // namespace

int ConcludeBench(nlohmann::ordered_json run, const std::vector<Metric>& metrics, int32_t repeats,
                  const std::string& text, bool json, const std::string& baseline) {
  run["repeats"] = repeats;
  run["metrics"] = MetricsJson(metrics);
  absl::StatusOr<std::vector<MetricChange>> changes = std::vector<MetricChange>();
  if (!baseline.empty()) changes = CompareWithBaseline(baseline, run, metrics);
  std::string compared;
  if (!baseline.empty() && changes.ok()) {
    run["comparison"] = ChangesJson(*changes);
    compared = "\nagainst " + baseline + "\n" + ChangesText(*changes);
  }
  PrintAnswer("{}", json ? run.dump() + "\n" : text + compared);
  if (!changes.ok()) return Fail("bench", changes.status());
  if (!baseline.empty() && repeats == 1) {
    Diagnose(
        "fathom bench: one round has no spread, so a loss of more than 2 % counts; use "
        "--repeats 3 or more, here and for the baseline");
  }
  const std::vector<std::string> losses = Losses(*changes);
  for (const std::string& loss : losses) Diagnose("fathom bench: {}", loss);
  return losses.empty() ? kExitOk : kExitLoss;
}

}  // namespace fathom::client
