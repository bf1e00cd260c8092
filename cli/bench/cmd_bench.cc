#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "cli/bench/baseline.h"
#include "cli/bench/bench_json.h"
#include "cli/bench/bench_load.h"
#include "cli/bench/bench_startup.h"
#include "cli/bench/cmd_bench_serve.h"
#include "cli/commands.h"
#include "cli/plan/roofline.h"
#include "common/output.h"
#include "common/process.h"
#include "modeling/architectures/architecture.h"

namespace fathom::client {
namespace {

struct BenchOptions {
  std::string kind;  // One of kKinds.
  Load load;
  int32_t warmup = 1;
  int32_t repeats = 1;
  int32_t long_output_len = 193;  // For `step`; the short length is load.output_len.
  std::string model;              // A shape for floors; for `startup` the served model.
  std::string gpu = "none";
  CardLimits card;  // Given numbers replace the card's.
  std::string device = "auto";
  std::vector<std::string> serve_args;
  int32_t start_timeout_s = 1800;
  ServerFlag server;
  bool json = false;
  std::string baseline;
};

constexpr const char* kKinds[] = {"latency", "throughput", "step", "startup"};

BenchOptions DefaultsOf(const std::string& kind) {
  BenchOptions options{.kind = kind};
  if (kind == "throughput") {
    options.load = {.requests = 128, .concurrency = 16, .input_len = 128, .output_len = 128};
  } else if (kind == "step") {
    options.load = {.concurrency = 1, .input_len = 160, .output_len = 65};
    options.repeats = 3;
  } else {
    options.load = {.requests = 10, .concurrency = 1, .input_len = 128, .output_len = 128};
  }
  if (kind == "startup") options.repeats = 3;
  return options;
}

// The result of a run: the metrics of the baseline, and the other fields for JSON and for people.
struct BenchReport {
  nlohmann::ordered_json fields;
  std::vector<Metric> metrics;
  std::string text;
};

// The floors of a model's shape on a card, if both are known.
class Floors {
 public:
  static absl::StatusOr<Floors> Of(const BenchOptions& options) {
    Floors floors;
    CardLimits card = LimitsOf(options.gpu).value_or(CardLimits{});
    if (options.card.read_tbs > 0) card.read_tbs = options.card.read_tbs;
    if (options.card.matrix_tflops > 0) card.matrix_tflops = options.card.matrix_tflops;
    if (options.card.memory_gib > 0) card.memory_gib = options.card.memory_gib;
    floors.known_ = !options.model.empty() && card.read_tbs > 0 && card.matrix_tflops > 0;
    floors.card_ = card;
    if (!floors.known_) return floors;
    FATHOM_ASSIGN_OR_RETURN(const auto config, ReadModelConfig(options.model));
    floors.spec_ = SpecOf(config);
    return floors;
  }

  double Step(int32_t sequences, double context) const {
    return known_ ? StepFloorMs(spec_, card_, sequences, context) : 0;
  }
  double Prefill(int32_t tokens) const { return known_ ? PrefillFloorMs(spec_, card_, tokens) : 0; }
  double Throughput(const Load& load) const {
    if (!known_ || card_.memory_gib <= 0) return 0;
    return ThroughputCeilingTps(spec_, card_, load.concurrency, load.input_len, load.output_len);
  }

 private:
  bool known_ = false;
  CardLimits card_;
  ModelSpec spec_;
};

// ---- Latency and throughput ----

nlohmann::ordered_json SummaryJson(const BenchSummary& s) {
  return {{"requests", s.requests},
          {"wall_s", s.wall_s},
          {"prompt_tokens", s.prompt_tokens},
          {"output_tokens", s.output_tokens},
          {"requests_per_s", s.requests_per_s},
          {"output_tokens_per_s", s.output_tokens_per_s},
          {"total_tokens_per_s", s.total_tokens_per_s},
          {"ttft_ms", DistributionJson(s.ttft_ms)},
          {"tpot_ms", DistributionJson(s.tpot_ms)},
          {"itl_ms", DistributionJson(s.itl_ms)},
          {"e2e_ms", DistributionJson(s.e2e_ms)}};
}

std::vector<Metric> LoadMetrics(const BenchOptions& options, const Floors& floors,
                                const std::vector<BenchSummary>& rounds) {
  std::vector<double> rate, ttft, tpot;
  for (const BenchSummary& round : rounds) {
    rate.push_back(round.output_tokens_per_s);
    ttft.push_back(round.ttft_ms.median);
    tpot.push_back(round.tpot_ms.median);
  }
  const Load& load = options.load;
  if (options.kind == "throughput") {
    std::vector<Metric> metrics = {MedianMetric("output_tokens_per_s", "tokens/s", true, rate)};
    metrics[0].floor = floors.Throughput(load);
    return metrics;
  }
  std::vector<Metric> metrics = {MedianMetric("ttft_ms", "ms", false, ttft)};
  if (load.concurrency == 1) metrics[0].floor = floors.Prefill(load.input_len);
  if (load.output_len > 1) {
    metrics.push_back(MedianMetric("tpot_ms", "ms", false, tpot));
    metrics[1].floor = floors.Step(load.concurrency, load.input_len + load.output_len / 2.0);
  }
  return metrics;
}

absl::StatusOr<BenchReport> MeasureLoad(Client& client, const BenchOptions& options,
                                        const Floors& floors, int32_t vocab) {
  const RealClock clock;
  if (options.warmup > 0) {
    Load warmup = options.load;
    warmup.requests = options.warmup;
    warmup.concurrency = 1;
    warmup.round = -1;
    FATHOM_RETURN_IF_ERROR(RunLoad(client, warmup, vocab, clock, "tokens, warm-up").status());
  }
  std::vector<BenchSummary> rounds;
  std::vector<RequestTrace> traces;
  int64_t wall_us = 0;
  for (int32_t round = 0; round < options.repeats; ++round) {
    Load load = options.load;
    load.round = round;
    FATHOM_ASSIGN_OR_RETURN(LoadTrace trace, RunLoad(client, load, vocab, clock, "tokens"));
    rounds.push_back(Summarize(trace.requests, trace.wall_us));
    wall_us += trace.wall_us;
    traces.insert(traces.end(), trace.requests.begin(), trace.requests.end());
  }
  const BenchSummary all = Summarize(traces, wall_us);
  BenchReport report{.fields = SummaryJson(all), .metrics = LoadMetrics(options, floors, rounds)};
  report.text = SummaryText(all) + "\n" + MetricsText(report.metrics);
  return report;
}

// ---- Step ----

absl::StatusOr<BenchReport> MeasureStep(Client& client, const BenchOptions& options,
                                        const Floors& floors, int32_t vocab) {
  const RealClock clock;
  Load load = options.load;
  load.requests = load.concurrency;
  std::vector<double> walls[2];  // For the short and for the long answers.
  const int32_t lengths[2] = {load.output_len, options.long_output_len};
  for (int32_t round = -options.warmup; round < options.repeats; ++round) {
    for (int which = 0; which < 2; ++which) {
      load.round = 2 * round + which;
      load.output_len = lengths[which];
      FATHOM_ASSIGN_OR_RETURN(const LoadTrace trace, RunLoad(client, load, vocab, clock, "tokens"));
      if (round >= 0) walls[which].push_back(static_cast<double>(trace.wall_us) / 1e6);
    }
  }
  Metric step = StepMetric(walls[0], lengths[0], walls[1], lengths[1]);
  step.floor = floors.Step(load.concurrency, load.input_len + (lengths[0] + lengths[1]) / 2.0);
  BenchReport report{.fields = {{"long_output_len", options.long_output_len},
                                {"short_walls_s", walls[0]},
                                {"long_walls_s", walls[1]}},
                     .metrics = {step}};
  report.text = MetricsText(report.metrics);
  return report;
}

// ---- The command ----

absl::StatusOr<BenchReport> MeasureStartup(const BenchOptions& options) {
  if (options.model.empty()) {
    return Invalid("--model is missing; give a model folder, e.g. models/fathom-tiny");
  }
  std::vector<std::string> args = {"--model", options.model, "--device", options.device};
  args.insert(args.end(), options.serve_args.begin(), options.serve_args.end());
  FATHOM_ASSIGN_OR_RETURN(const std::vector<StartReport> starts,
                          MeasureStarts(args, options.repeats, options.start_timeout_s));
  BenchReport report{.fields = {{"model", options.model}, {"device", options.device}},
                     .metrics = StartMetrics(starts)};
  report.text = MetricsText(report.metrics);
  return report;
}

absl::StatusOr<BenchReport> MeasureServer(const BenchOptions& options) {
  FATHOM_ASSIGN_OR_RETURN(const Floors floors, Floors::Of(options));
  FATHOM_ASSIGN_OR_RETURN(const auto client, options.server.Dial());
  FATHOM_ASSIGN_OR_RETURN(const Model model, client->GetModel());
  auto report = options.kind == "step" ? MeasureStep(*client, options, floors, model.vocab)
                                       : MeasureLoad(*client, options, floors, model.vocab);
  if (!report.ok()) return report.status();
  nlohmann::ordered_json fields = {{"model", model.name},
                                   {"fingerprint", model.fingerprint},
                                   {"input_len", options.load.input_len},
                                   {"output_len", options.load.output_len},
                                   {"concurrency", options.load.concurrency}};
  fields.update(report->fields);
  report->fields = std::move(fields);
  report->text =
      fmt::format("{}: {} tokens in, {} out, {} at once\n{}", options.kind, options.load.input_len,
                  options.load.output_len, options.load.concurrency, report->text);
  return report;
}

void AddLoadFlags(Flags& flags, BenchOptions* o) {
  flags.Group("Load");
  if (o->kind == "step") {
    flags.Add("--sequences,--concurrency", &o->load.concurrency, 1, 1024, "How many at once");
    flags.Add("--short-output-len,--output-len", &o->load.output_len, 1, 1 << 20,
              "Tokens of each answer, the shorter run");
    flags.Add("--long-output-len", &o->long_output_len, 2, 1 << 20, "The longer run");
  } else {
    flags.Add("--requests,--num-prompts", &o->load.requests, 1, 1'000'000, "How many are measured");
    flags.Add("--concurrency,--max-concurrency", &o->load.concurrency, 1, 1024, "How many at once");
    flags.Add("--output-len", &o->load.output_len, 1, 1 << 20, "Tokens of each answer");
  }
  flags.Add("--input-len", &o->load.input_len, 1, 1 << 20, "Tokens of each prompt");
  flags.Add("--warmup", &o->warmup, 0, 1000, "Requests (step: rounds) before, not measured");
  flags.Add("--seed", &o->load.seed, 0, INT64_MAX, "Of the prompts");
  flags.Group("Floors");
  flags.Add("--model", &o->model, "Model folder or config.json, for what the card allows at best");
  flags.AddChoice("--gpu", &o->gpu, {"none", "h100", "h200"}, "Card whose limits count");
  flags.Add("--read-tbs", &o->card.read_tbs, 0, 1e4, "Its read bandwidth, 1e12 bytes/s");
  flags.Add("--matrix-tflops", &o->card.matrix_tflops, 0, 1e6, "Its bf16 rate");
  flags.Add("--memory-gib", &o->card.memory_gib, 0, 1e5, "Its memory");
  o->server.Add(flags);
}

void AddStartupFlags(Flags& flags, BenchOptions* o) {
  flags.Group("Start");
  flags.Add("--model", &o->model, "Model folder");
  flags.AddChoice("--device", &o->device, {"auto", "cpu", "cuda"}, "Where the workers compute");
  flags.Add("--serve-arg", &o->serve_args, "A word for fathom serve, e.g. --load-format=dummy");
  flags.Add("--start-timeout-s", &o->start_timeout_s, 1, 86400, "Give up after so long");
}

int Conclude(const BenchOptions& options, const BenchReport& report) {
  nlohmann::ordered_json all = {{"bench", options.kind}};
  all.update(report.fields);
  return ConcludeBench(std::move(all), report.metrics, options.repeats, report.text, options.json,
                       options.baseline);
}

}  // namespace

int RunBench(int argc, const char* const* argv) {
  const std::string kind = argc > 1 ? argv[1] : "";
  if (kind == "serve") return RunBenchServe(argc - 1, argv + 1);
  const bool help = kind == "--help" || kind == "-h";
  const bool known = std::find(std::begin(kKinds), std::end(kKinds), kind) != std::end(kKinds);
  if (!known && !help) {
    return Fail(
        "bench",
        Invalid(
            "{}; give latency, throughput, step, startup or serve, e.g. fathom bench latency",
            kind.empty() ? "what to measure is missing" : fmt::format("'{}' is not known", kind)));
  }
  const bool startup = kind == "startup";
  if (startup) BlockStopSignals();
  BenchOptions options = DefaultsOf(help ? "latency" : kind);
  Flags flags(
      "fathom bench " + (help ? "{latency,throughput,step,startup,serve}" : kind),
      startup ? "Starts a cluster on this machine a few times; where the time goes."
              : "Measures a running cluster with random prompts; TTFT, TPOT, ITL, steps "
                "and tokens per second. Under load, in an open loop: fathom bench serve --help.");
  if (startup) {
    AddStartupFlags(flags, &options);
  } else {
    AddLoadFlags(flags, &options);
  }
  flags.Group("Output");
  flags.Add("--repeats", &options.repeats, 1, 1000, "Rounds; their spread is the noise");
  flags.Add("--json", &options.json, "Print one JSON object");
  flags.Add("--baseline", &options.baseline,
            "What --json printed before: exit 1 on a loss beyond noise");
  if (const auto code = flags.Parse(argc - (help ? 0 : 1), argv + (help ? 0 : 1))) return *code;
  if (options.kind == "step" && options.long_output_len <= options.load.output_len) {
    return Fail("bench", Invalid("--long-output-len {} must be more than --short-output-len {}",
                                 options.long_output_len, options.load.output_len));
  }
  auto report = startup ? MeasureStartup(options) : MeasureServer(options);
  if (!report.ok()) return Fail("bench", report.status());
  return Conclude(options, *std::move(report));
}

}  // namespace fathom::client
