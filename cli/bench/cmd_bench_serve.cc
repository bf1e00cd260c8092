#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <nlohmann/json.hpp>

#include "cli/bench/baseline.h"
#include "cli/bench/bench_load.h"
#include "cli/bench/cmd_bench_serve.h"
#include "cli/bench/open_loop.h"
#include "cli/commands.h"
#include "common/output.h"

namespace fathom::client {
namespace {

constexpr size_t kRatesMax = 32;
constexpr double kRateMin = 0.001, kRateMax = 10'000;

struct ServeBenchFlags {
  ServerFlag server;
  WorkloadOptions workload{.name = "sharegpt", .input_len = 128, .output_len = 128};
  std::string arrivals = "poisson";
  std::string rates = "1,2,4";
  int32_t requests = 100;
  int32_t repeats = 1;
  int32_t warmup = 4;
  int32_t in_flight = 512;
  int64_t seed = 1;
  Slo slo;
  bool json = false;
  std::string report, baseline;
};

void AddServeBenchFlags(Flags& flags, ServeBenchFlags* o) {
  flags.Group("Load");
  flags.AddChoice("--workload,--dataset-name", &o->workload.name,
                  {std::begin(kWorkloads), std::end(kWorkloads)},
                  "Lengths and shared tokens: sharegpt (about 215/179), long (8192/1024), prefix "
                  "(shared beginnings), agent (turns of a session), fixed");
  flags.Add("--rates,--request-rate", &o->rates, "Requests a second, several with commas");
  flags.AddChoice("--arrivals", &o->arrivals, {"poisson", "bursty", "even"},
                  "Gaps between them: exponential, clumped (gamma of shape 0.25), or equal");
  flags.Add("--requests,--num-prompts", &o->requests, 1, 1'000'000, "Of a round at each rate");
  flags.Add("--input-len", &o->workload.input_len, 1, 1 << 20, "Tokens of a prompt (fixed)");
  flags.Add("--output-len", &o->workload.output_len, 1, 1 << 20, "Tokens of an answer (fixed)");
  flags.Add("--length-scale", &o->workload.scale, 0.001, 1000, "All lengths times this");
  flags.Add("--warmup", &o->warmup, 0, 1000, "Requests before the first rate, not measured");
  flags.Add("--max-in-flight", &o->in_flight, 1, 1000,
            "Sessions at once; those beyond are sent late, which the report shows");
  flags.Add("--seed", &o->seed, 0, INT64_MAX, "Of arrivals, lengths and tokens");
  flags.Group("Goodput");
  flags.Add("--slo-ttft-ms", &o->slo.ttft_ms, 0, 1e9, "Longest time to the first token; 0: any");
  flags.Add("--slo-tpot-ms", &o->slo.tpot_ms, 0, 1e9, "Longest mean time for a token; 0: any");
  flags.Add("--slo-e2e-ms", &o->slo.e2e_ms, 0, 1e9, "Longest time for the answer; 0: any");
  o->server.Add(flags);
  flags.Group("Output");
  flags.Add("--repeats", &o->repeats, 1, 1000, "Rounds at each rate; their spread is the noise");
  flags.Add("--report", &o->report, "FILE.html: one page with the curves, which loads nothing");
  flags.Add("--json", &o->json, "Print one JSON object");
  flags.Add("--baseline", &o->baseline,
            "What --json printed before: exit 1 on a loss beyond noise");
}

absl::StatusOr<std::vector<double>> ParseRates(const std::string& text) {
  std::vector<double> rates;
  for (const std::string& word : SplitCommas(text)) {
    double rate = 0;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), rate);
    if (error != std::errc() || end != word.data() + word.size() || !(rate >= kRateMin) ||
        rate > kRateMax) {
      return Invalid("--rates {}: '{}' is no number of requests a second from {:g} to {:g}", text,
                     word, kRateMin, kRateMax);
    }
    rates.push_back(rate);
  }
  if (rates.empty() || rates.size() > kRatesMax) {
    return Invalid("--rates '{}': give 1 to {} numbers with commas", text, kRatesMax);
  }
  std::sort(rates.begin(), rates.end());
  rates.erase(std::unique(rates.begin(), rates.end()), rates.end());
  return rates;
}

Arrivals ArrivalsOf(const std::string& name) {
  if (name == "bursty") return Arrivals::kBursty;
  return name == "even" ? Arrivals::kEven : Arrivals::kPoisson;
}

// The head of the report, without the levels.
ServeRun HeadOf(const ServeBenchFlags& o, const Model& model, const Workload& workload) {
  ServeRun run{.model = model.name,
               .fingerprint = model.fingerprint,
               .device = model.device,
               .dtype = model.dtype,
               .workload = o.workload.name,
               .arrivals = o.arrivals,
               .requests = workload.requests,
               .repeats = o.repeats,
               .scale = o.workload.scale,
               .shortened = workload.shortened,
               .seed = o.seed,
               .slo = o.slo};
  for (const SessionPlan& session : workload.sessions) {
    double before = session.prefix_tokens;
    for (const TurnPlan& turn : session.turns) {
      run.input_mean += before + turn.new_tokens;
      run.output_mean += turn.output_tokens;
      before += turn.new_tokens + turn.output_tokens;
    }
  }
  run.input_mean /= workload.requests;
  run.output_mean /= workload.requests;
  run.when = NowUtc();
  return run;
}

absl::StatusOr<ServeRun> MeasureServe(const ServeBenchFlags& o, const std::vector<double>& rates) {
  const RealClock clock;
  FATHOM_ASSIGN_OR_RETURN(const auto client, o.server.Dial());
  FATHOM_ASSIGN_OR_RETURN(const Model model, client->GetModel());
  WorkloadOptions options = o.workload;
  options.context_tokens = std::max(2, model.context_tokens);
  if (model.pool_tokens > 1) {
    options.context_tokens = std::min(options.context_tokens, model.pool_tokens);
  }
  options.seed = static_cast<uint64_t>(o.seed);
  const Workload workload = MakeWorkload(options, o.requests);
  ServeRun run = HeadOf(o, model, workload);
  if (o.warmup > 0) {
    const Load warmup{.requests = o.warmup,
                      .concurrency = 1,
                      .input_len = std::min(128, options.context_tokens / 2),
                      .output_len = std::min(16, options.context_tokens / 2),
                      .seed = o.seed,
                      .round = -1};
    FATHOM_RETURN_IF_ERROR(
        RunLoad(*client, warmup, model.vocab, clock, "tokens, warm-up").status());
  }
  // A session brings several requests.
  const double turns =
      static_cast<double>(workload.requests) / static_cast<double>(workload.sessions.size());
  int32_t round = 0;
  for (const double rate : rates) {
    const std::vector<double> times =
        ArrivalTimes(ArrivalsOf(o.arrivals), rate / turns,
                     static_cast<int32_t>(workload.sessions.size()), options.seed);
    std::vector<RoundResult> rounds;
    for (int32_t i = 0; i < o.repeats; ++i) {
      rounds.push_back(RunOpenLoop(
          *client, workload, times, model.vocab,
          {.in_flight_max = o.in_flight, .seed = options.seed, .round = round++}, clock));
      if (rounds.back().requests.empty()) {
        return Unavailable("no request of {:g}/s was answered: {}", rate,
                           rounds.back().first_error);
      }
    }
    run.levels.push_back(Measure(rate, rounds, o.slo));
  }
  return run;
}

}  // namespace

int RunBenchServe(int argc, const char* const* argv) {
  Flags flags("fathom bench serve",
              "Measures a running cluster in an open loop: requests come at given rates, and "
              "latency counts from when they were due. Lengths and tokens follow from the seed.");
  ServeBenchFlags o;
  AddServeBenchFlags(flags, &o);
  if (const auto code = flags.Parse(argc, argv)) return *code;
  const auto rates = ParseRates(o.rates);
  if (!rates.ok()) return Fail("bench", rates.status());
  const auto run = MeasureServe(o, *rates);
  if (!run.ok()) return Fail("bench", run.status());
  if (!o.report.empty()) {
    std::ofstream file(o.report, std::ios::binary);
    file << ToHtml(*run);
    file.close();
    if (!file) return Fail("bench", Invalid("--report {} cannot be written", o.report));
  }
  nlohmann::ordered_json json = {{"bench", "serve"}};
  json.update(ToJson(*run));
  std::vector<Metric> metrics;
  for (const LoadLevel& level : run->levels) {
    metrics.insert(metrics.end(), level.metrics.begin(), level.metrics.end());
  }
  return ConcludeBench(std::move(json), metrics, o.repeats, ToText(*run), o.json, o.baseline);
}

}  // namespace fathom::client
