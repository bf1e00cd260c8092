#include "cli/commands.h"
#include "cli/serve/serve.h"
#include "cli/serve/worker_flags.h"
#include "common/process.h"
#include "common/server_process.h"

namespace fathom::client {
namespace {

constexpr int32_t kWorkerPort = 8010;
constexpr int32_t kWorkerMetricsPort = 8110;

void AddPorts(Flags& flags, ServeOptions* options) {
  flags.Group("Network");
  flags.Add("--host", &options->host, "Address that clients reach the router at");
  flags.AddPort("--http-port", &options->http_port, "HTTP (0: any free one, printed)");
  flags.AddPort("--grpc-port,--port", &options->grpc_port, "gRPC");
  flags.AddPort("--scheduler-metrics-port,--metrics-port", &options->scheduler_metrics_port,
                "Metrics of the scheduler; 0 also frees the workers' ports");
  flags.Add("--scheduler-host", &options->scheduler_host,
            "Address of the cluster's own port; one of this machine's, so that workers on other "
            "hosts can join. It has no access control without --cluster-certs");
  flags.AddPort("--scheduler-port", &options->scheduler_port, "The cluster's own port");
  flags.Add("--edge", &options->edge,
            "HAProxy in front of the router, for untrusted clients; /metrics stays inside");
  flags.Add("--worker-port", &options->worker_port, -1, 65535,
            "Health of worker 0, worker i has port + i; -1: 8010, or any free ones");
  flags.Add("--worker-metrics-port", &options->worker_metrics_port, -1, 65535,
            "Metrics of worker 0, worker i has port + i; -1: 8110, or any free ones");
}

void AddAccess(Flags& flags, ServeOptions* options) {
  flags.Group("Access");
  flags.Add("--api-keys", &options->api_keys,
            "File of API keys (fathom keys new); once for each file. Without one every call is "
            "admitted");
  flags.Add("--allow-unauthenticated", &options->allow_unauthenticated,
            "Listen on an address of other machines without --api-keys");
  flags.Add("--tls-cert", &options->tls.cert, "Certificate (PEM) of the router's ports");
  flags.Add("--tls-key", &options->tls.key, "Its private key (PEM)");
  flags.Add("--cluster-certs", &options->cluster_certs,
            "Folder with the certificates of the processes, as fathom certs makes it: mutual TLS "
            "between them");
}

void AddProcess(Flags& flags, ServeOptions* options) {
  flags.Group("Process");
  flags.Add("--run-dir", &options->run_dir,
            "Logs and the term file (default: of this user, host and port)");
  AddLogFlags(&options->log_level, &options->log_format, &flags);
  flags.Add("--verbose", &options->verbose, "Logs also to stderr");
  flags.Add("--json", &options->json, "Print the line of JSON also on a terminal");
  flags.Add("--start-timeout-s", &options->start_timeout_s, 1, 86400, "Give up after so long");
  flags.Add("--drain-timeout-s", &options->drain_timeout_s, 0, 3600,
            "How long requests may still run after Ctrl-C");
}

void AddModel(Flags& flags, ServeOptions* options) {
  flags.Group("Model");
  flags.Add("--chat-template", &options->chat_template,
            "File of a chat template in the place of the model folder's");
  flags.Add("--reasoning-parser", &options->reasoning_parser,
            "Form of the model's reasoning; default: auto (fathom-router --help)");
  flags.Add("--tool-call-parser", &options->tool_call_parser,
            "Form of the model's tool calls; default: auto (fathom-router --help)");
  flags.Add("--data-parallel-size,-dp", &options->dp, 1, 64, "Copies of the model");
}

// Flags that the router gets as they are.
struct RouterSwitches {
  std::optional<std::string> served_name, override_generation, traces_endpoint, trace_ratio,
      log_requests;

  void AddTo(Flags& flags) {
    flags.Add("--served-model-name", &served_name, "Name that clients see (default: the folder's)");
    flags.Add("--override-generation-config", &override_generation,
              "JSON whose keys replace generation_config.json's; null takes one out");
    flags.Add("--otlp-traces-endpoint", &traces_endpoint,
              "http://HOST:PORT of an OpenTelemetry collector that gets the spans of requests");
    flags.Add("--log-requests", &log_requests,
              "off, summary (a line of the router's log for each request), prompts [off]");
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
    hand("--log-requests", log_requests);
  }
};

}  // namespace

int RunServe(int argc, const char* const* argv) {
  BlockStopSignals();
  RaiseDescriptorLimit();
  const RealClock clock;
  ServeOptions options{.worker_port = -1, .worker_metrics_port = -1};
  Flags flags("fathom serve", "Starts, watches and stops a whole cluster on this machine.");
  WorkerFlags workers;
  workers.AddTo(flags, &options);
  AddModel(flags, &options);
  std::optional<std::string> policy, tenant_limits, model_wait, record_events, log_interval;
  bool disable_log_stats = false, prefix_caching = true;
  flags.Group("Scheduling");
  flags.Add("--scheduling-policy,--policy", &policy,
            "Which request is admitted next: fcfs, fair, priority, shortest-prompt [fcfs]");
  flags.Add("--tenant-limits", &tenant_limits,
            "YAML file with the shares and limits of tenants; it is read again when it changes");
  flags.Add("--model-wait", &model_wait, "Seconds that an answer waits for its model to come back");
  flags.Add("--enable-prefix-caching", &prefix_caching,
            "Prompts that begin alike share the KV blocks of their common beginning");
  flags.Add("--log-interval", &log_interval,
            "Seconds between two summaries in the scheduler's log; 0: none [10]");
  flags.Add("--disable-log-stats", &disable_log_stats, "As --log-interval 0");
  flags.Add("--record-events", &record_events,
            "File for every event of the scheduler, for fathom replay; it has prompts and answers");
  flags.Group("Network");
  RouterSwitches router;
  router.AddTo(flags);
  AddPorts(flags, &options);
  AddAccess(flags, &options);
  AddProcess(flags, &options);
  if (const auto code = flags.Parse(argc, argv)) return *code;
  if (auto status = workers.HandOver(&options); !status.ok()) return Fail("serve", status);
  if (options.allow_shared_device) {
    // The processes take turns on the device, so a step may take many times as long.
    options.scheduler_flags.emplace_back("--stall-timeout-ms", "30000");
    options.scheduler_flags.emplace_back("--device-stall-timeout-ms", "30000");
  }
  if (policy) options.scheduler_flags.emplace_back("--scheduling-policy", *policy);
  if (tenant_limits) options.scheduler_flags.emplace_back("--tenant-limits", *tenant_limits);
  if (model_wait) options.scheduler_flags.emplace_back("--model-wait", *model_wait);
  if (!prefix_caching) options.scheduler_switches.emplace_back("--no-enable-prefix-caching");
  if (disable_log_stats) log_interval = "0";
  if (log_interval) options.scheduler_flags.emplace_back("--log-interval", *log_interval);
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
