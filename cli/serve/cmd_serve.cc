#include <cstdlib>

#include "cli/commands.h"
#include "cli/serve/serve.h"
#include "common/process.h"
#include "common/server_process.h"

namespace fathom::client {
namespace {

constexpr int32_t kWorkerPort = 8010;
constexpr int32_t kWorkerMetricsPort = 8110;

// Flags that only the workers know, passed to them unchanged.
struct Handed {
  const char* flag;
  const char* help;
  std::optional<std::string> value;
};

void AddPorts(Flags& flags, ServeOptions* options) {
  flags.Group("Network");
  flags.Add("--host", &options->host, "Address that clients reach the router at");
  flags.AddPort("--http-port", &options->http_port, "HTTP (0: any free one, printed)");
  flags.AddPort("--grpc-port,--port", &options->grpc_port, "gRPC");
  flags.AddPort("--scheduler-metrics-port,--metrics-port", &options->scheduler_metrics_port,
                "Metrics of the scheduler; 0 also frees the workers' ports");
  flags.Add("--scheduler-host", &options->scheduler_host,
            "Address of the cluster's own port; one of this machine's, so that workers on other "
            "hosts can join. It has no access control");
  flags.AddPort("--scheduler-port", &options->scheduler_port, "The cluster's own port");
  flags.Add("--edge", &options->edge,
            "HAProxy in front of the router, for untrusted clients; /metrics stays inside");
  flags.Add("--worker-port", &options->worker_port, -1, 65535,
            "Health of worker 0, worker i has port + i; -1: 8010, or any free ones");
  flags.Add("--worker-metrics-port", &options->worker_metrics_port, -1, 65535,
            "Metrics of worker 0, worker i has port + i; -1: 8110, or any free ones");
}

void AddProcess(Flags& flags, ServeOptions* options) {
  flags.Group("Process");
  flags.Add("--run-dir", &options->run_dir,
            "Logs and the term file (default: of this user, host and port)");
  AddLogLevelFlag(&options->log_level, &flags);
  flags.Add("--verbose", &options->verbose, "Logs also to stderr");
  flags.Add("--json", &options->json, "Print the line of JSON also on a terminal");
  flags.Add("--start-timeout-s", &options->start_timeout_s, 1, 86400, "Give up after so long");
  flags.Add("--drain-timeout-s", &options->drain_timeout_s, 0, 3600,
            "How long requests may still run after Ctrl-C");
}

void AddModel(Flags& flags, ServeOptions* options) {
  flags.Group("Model");
  flags.Add("--model", &options->model, "Model folder (config.json, safetensors, tokenizer.json)");
  flags.Add("--hf-overrides", &options->hf_overrides,
            "JSON object that changes config.json; null takes a key away");
  flags.Add("--chat-template", &options->chat_template,
            "File of a chat template in the place of the model folder's");
  flags.AddChoice("--device", &options->device, {"auto", "cpu", "cuda"},
                  "Where the workers compute");
  flags.Add("--tensor-parallel-size,-tp", &options->tp, 1, 64, "Workers that share a layer");
  flags.Add("--pipeline-parallel-size,-pp", &options->pp, 1, 64,
            "Stages, each with some of the layers");
  flags.Add("--data-parallel-size,-dp", &options->dp, 1, 64, "Copies of the model");
}

// The flags of the workers on GPUs.
struct GpuSwitches {
  bool enforce_eager = false;
  bool diagnose_numerics = false;

  void AddTo(Flags& flags, ServeOptions* options) {
    flags.Group("GPU");
    flags.Add("--enforce-eager", &enforce_eager, "No CUDA graphs");
    flags.AddChoice("--nccl-debug", &options->nccl_debug, {"off", "WARN", "INFO", "TRACE"},
                    "What NCCL writes, into worker-I.nccl.log of the run directory");
    flags.Add("--diagnose-numerics", &diagnose_numerics, "Name the op of a non-finite value; slow");
    flags.Add("--allow-shared-device", &options->allow_shared_device,
              "All workers share the first GPU and divide its memory; for tests");
  }
  // After the flags were parsed.
  void HandOver(ServeOptions* options) const {
    if (enforce_eager) options->worker_switches.emplace_back("--enforce-eager");
    if (diagnose_numerics) options->worker_switches.emplace_back("--diagnose-numerics");
    if (const char* gpus = std::getenv("CUDA_VISIBLE_DEVICES")) {
      options->visible_gpus = SplitCommas(gpus);
    }
    if (!options->allow_shared_device) return;
    options->worker_switches.emplace_back("--allow-shared-device");
    // The processes take turns on the device, so a step may take many times as long.
    options->scheduler_flags.emplace_back("--stall-timeout-ms", "30000");
    options->scheduler_flags.emplace_back("--device-stall-timeout-ms", "30000");
  }
};

// Flags that the router gets as they are.
struct RouterSwitches {
  std::optional<std::string> served_name, override_generation, traces_endpoint, trace_ratio;

  void AddTo(Flags& flags) {
    flags.Add("--served-model-name", &served_name, "Name that clients see (default: the folder's)");
    flags.Add("--override-generation-config", &override_generation,
              "JSON whose keys replace generation_config.json's; null takes one out");
    flags.Add("--otlp-traces-endpoint", &traces_endpoint,
              "http://HOST:PORT of an OpenTelemetry collector that gets the spans of requests");
    flags.Add("--trace-sample-ratio", &trace_ratio,
              "Share of requests that are traced if their client does not decide (default: 1)");
  }
  void HandOver(ServeOptions* options) const {
    const auto hand = [&](const char* flag, const std::optional<std::string>& value) {
      if (value) options->router_flags.emplace_back(flag, *value);
    };
    hand("--served-model-name", served_name);
    hand("--override-generation-config", override_generation);
    hand("--otlp-traces-endpoint", traces_endpoint);
    hand("--trace-sample-ratio", trace_ratio);
  }
};

}  // namespace

int RunServe(int argc, const char* const* argv) {
  BlockStopSignals();
  RaiseDescriptorLimit();
  const RealClock clock;
  ServeOptions options{.worker_port = -1, .worker_metrics_port = -1};
  Flags flags("fathom serve", "Starts, watches and stops a whole cluster on this machine.");
  AddModel(flags, &options);
  Handed handed[] = {
      {"--dtype", "Type to compute in: auto, bfloat16, half, float", {}},
      {"--load-format", "auto, safetensors, raw, dummy", {}},
      {"--threads", "Threads of each worker on the CPU", {}},
      {"--gpu-memory-utilization", "Share of a GPU's memory that a worker takes", {}},
      {"--kv-cache-memory", "Bytes for KV blocks, e.g. 512M", {}},
      {"--block-size", "Tokens in a KV block", {}},
      {"--max-model-len", "Longest prompt and answer together: tokens, or auto", {}},
      {"--max-num-seqs", "Sequences computed at once", {}},
      {"--max-num-batched-tokens", "Tokens computed in one step", {}},
      {"--nccl-interface", "Network interface by which NCCL reaches ranks on other hosts", {}}};
  for (Handed& one : handed) {
    if (&one == &handed[2]) flags.Group("Limits");
    flags.Add(one.flag, &one.value, one.help);
  }
  GpuSwitches gpu;
  gpu.AddTo(flags, &options);
  std::optional<std::string> policy, model_wait, record_events;
  flags.Group("Scheduling");
  flags.Add("--policy", &policy, "Who is admitted next, who is suspended: as of fathom-scheduler");
  flags.Add("--model-wait", &model_wait, "Seconds that an answer waits for its model to come back");
  flags.Add("--record-events", &record_events,
            "File for every event of the scheduler, for fathom replay; it has prompts and answers");
  flags.Group("Network");
  RouterSwitches router;
  router.AddTo(flags);
  AddPorts(flags, &options);
  AddProcess(flags, &options);
  if (const auto code = flags.Parse(argc, argv)) return *code;
  if (options.model.empty()) {
    return Fail("serve",
                Invalid("--model is missing; give a model folder, e.g. models/fathom-tiny"));
  }
  for (const Handed& one : handed) {
    if (one.value) options.worker_flags.emplace_back(one.flag, *one.value);
  }
  gpu.HandOver(&options);
  if (policy) options.scheduler_flags.emplace_back("--policy", *policy);
  if (model_wait) options.scheduler_flags.emplace_back("--model-wait", *model_wait);
  if (record_events) options.scheduler_flags.emplace_back("--record-events", *record_events);
  router.HandOver(&options);
  const bool free_ports = options.scheduler_metrics_port == 0;
  if (options.worker_port < 0) options.worker_port = free_ports ? 0 : kWorkerPort;
  if (options.worker_metrics_port < 0) {
    options.worker_metrics_port = free_ports ? 0 : kWorkerMetricsPort;
  }
  return Serve(std::move(options), clock);
}

}  // namespace fathom::client
