// router/main.cc: fathom-router. It reads the flags and the model folder, makes the tokenizer, the
// scheduler link, the sessions and the servers, and shuts them down in order.
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <memory>
#include <optional>
#include <thread>

#include "common/address.h"
#include "common/clock.h"
#include "common/flags.h"
#include "common/host_limits.h"
#include "common/log.h"
#include "common/loop_watch.h"
#include "common/metrics.h"
#include "common/output.h"
#include "common/process.h"
#include "common/self_dial.h"
#include "common/server_process.h"
#include "http/process_routes.h"
#include "http/tls_context.h"
#include "router/api/access_control.h"
#include "router/api/readiness.h"
#include "router/api/stop_tokens.h"
#include "router/frontend/grpc/service.h"
#include "router/frontend/http/http_guard.h"
#include "router/frontend/http/http_service.h"
#include "router/link/grpc_scheduler_link.h"
#include "router/request_lines.h"
#include "router/router_metrics.h"
#include "router/trace/trace_exporter.h"

namespace fathom::router {
namespace {

constexpr int kTickMs = 50;
constexpr int kTicksToReload = 20;
constexpr size_t kGrammarCacheBytes = size_t{256} << 20;  // Of compiled grammars that are kept.
constexpr int kStopMaxS = 10;  // The time in which cancelled calls must end.
// What an idle router was measured to need (docs/OPERATIONS.md, "Limits of the system"), and some
// more for a few connections.
constexpr HostNeeds kNeeds{
    .descriptors = 48, .address_space_bytes = int64_t{1536} << 20, .threads = 24};

struct Options {
  std::string model;
  std::string hf_overrides;
  std::string chat_template;  // A file; empty: the template of the model folder.
  std::string reasoning_parser = "auto";
  std::string tool_call_parser = "auto";
  std::optional<std::string> served_model_name;
  std::string override_generation_config;
  std::vector<std::string> schedulers = {"127.0.0.1:8003"};
  std::string host = "127.0.0.1";
  int32_t grpc_port = 8001;
  int32_t http_port = 8000;
  int32_t tokenizer_threads = 2;
  int64_t drain_timeout_s = 30;
  std::string otlp_traces_endpoint;
  double trace_sample_ratio = 1;
  bool behind_proxy = false;
  std::string log_requests = "off";
  std::vector<std::string> api_keys;
  bool allow_unauthenticated = false;
  TlsFiles tls;          // Of both ports for clients.
  TlsFiles cluster_tls;  // Of the streams to the schedulers.
  ProcessOptions process;
};

std::optional<int> ParseOptions(int argc, char** argv, Options* options) {
  Flags flags("fathom-router",
              "Admits requests over gRPC and HTTP and streams the cluster's tokens to clients.");
  flags.Group("Model");
  flags.Add("--model", &options->model,
            "Model folder (Hugging Face): configuration and tokenizer are read.");
  flags.Add("--hf-overrides", &options->hf_overrides,
            "JSON object that changes config.json (a merge patch: null takes a key away); the "
            "workers need the same.");
  flags.Add("--chat-template", &options->chat_template,
            "File of a chat template in the place of the model folder's.");
  flags.Add("--reasoning-parser", &options->reasoning_parser,
            "Form of the model's reasoning: auto (its tokenizer has <think>), none, deepseek_r1, "
            "deepseek_v3, deepseek_v31 or qwen3.");
  flags.Add("--tool-call-parser", &options->tool_call_parser,
            "Form of the model's tool calls: auto (as its chat template shows them), none, "
            "deepseek_v3, deepseek_v31, hermes or llama3_json.");
  flags.Add("--served-model-name", &options->served_model_name,
            "Name that clients see; default: the folder's.");
  flags.Add("--override-generation-config", &options->override_generation_config,
            "JSON object whose keys replace those of generation_config.json; null takes one out.");
  flags.Group("Network");
  flags.Add("--scheduler", &options->schedulers,
            "host:port of a scheduler; once for each one, or separated by commas.");
  flags.Add("--host", &options->host, "Address to listen on.");
  flags.AddPort("--grpc-port", &options->grpc_port, "Port of the public gRPC services.");
  flags.AddPort("--http-port", &options->http_port,
                "Port of HTTP: OpenAI's API, and /health, /metrics, /version.");
  flags.Add("--behind-proxy", &options->behind_proxy,
            "A proxy has the clients: no connection is cut for what its calls do.");
  flags.Group("Access");
  flags.Add("--api-keys", &options->api_keys,
            "File of API keys (fathom keys new); once for each file. Calls without a key of it are "
            "refused, except liveness and readiness. It is read again when it changes.");
  flags.Add("--allow-unauthenticated", &options->allow_unauthenticated,
            "Listen on an address of other machines without --api-keys.");
  flags.Add("--tls-cert", &options->tls.cert,
            "Certificate (PEM) for clients, of gRPC and HTTP. It is read again when it changes.");
  flags.Add("--tls-key", &options->tls.key, "Its private key (PEM).");
  flags.Add("--tls-client-ca", &options->tls.ca,
            "Roots (PEM) of the certificates that clients must have; default: clients need none.");
  AddClusterTlsFlags(&options->cluster_tls, &flags);
  flags.Group("Traces");
  flags.Add("--otlp-traces-endpoint", &options->otlp_traces_endpoint,
            "http://HOST:PORT[/PATH] of an OpenTelemetry collector (OTLP over HTTP, JSON) that "
            "gets the spans of requests; default: none.");
  flags.Add("--trace-sample-ratio", &options->trace_sample_ratio, 0, 1,
            "Share of requests that are traced if their client sends no traceparent.");
  flags.Group("Process");
  flags.Add("--tokenizer-threads", &options->tokenizer_threads, 1, 64,
            "Threads for texts beyond 4 KiB.");
  flags.Add("--drain-timeout", &options->drain_timeout_s, 0, 3600,
            "Seconds that running streams get after SIGTERM; they can be resumed elsewhere.");
  flags.AddChoice("--log-requests", &options->log_requests, {"off", "summary", "prompts"},
                  "summary: a log line for each request that ended; prompts: also the first 4 KiB "
                  "of each prompt.");
  AddProcessFlags(&options->process, &flags);
  return flags.Parse(argc, argv);
}

// What the model folder has for texts. Null: the folder has no tokenizer, no chat template, or the
// build has no grammar engine.
struct Text {
  std::unique_ptr<Tokenizer> tokenizer;
  std::unique_ptr<const ChatRenderer> chat;
  AnswerForms forms;
  std::unique_ptr<const GrammarEngine> grammars;
};

absl::StatusOr<Text> LoadText(const ModelFolder& folder, const Options& options) {
  Text text;
  if (!folder.has_tokenizer) return text;
  FATHOM_ASSIGN_OR_RETURN(text.tokenizer, Tokenizer::Load(folder.path));
  if (text.tokenizer->vocab_size() > folder.vocab) {
    return Invalid(
        "{}/tokenizer.json has token ids up to {}, but config.json's vocab_size is {}; take both "
        "files from "
        "the same model",
        folder.path, text.tokenizer->vocab_size() - 1, folder.vocab);
  }
  // Requests take the model's stop strings as defaults, so a stop string that can never be found
  // must fail here and not in each request.
  PublicRequest defaults;
  defaults.stop.strings = folder.defaults.stop_strings;
  if (const auto status = ResolveStopStrings(*text.tokenizer, /*chat=*/true, &defaults);
      !status.ok()) {
    return Annotate(status, folder.path + "/generation_config.json: stop_strings");
  }
  FATHOM_ASSIGN_OR_RETURN(
      text.chat, ChatRenderer::Load(folder.path, options.chat_template, text.tokenizer.get()));
  FATHOM_ASSIGN_OR_RETURN(
      text.forms,
      ResolveForms(options.reasoning_parser, options.tool_call_parser,
                   text.chat == nullptr ? std::nullopt : text.chat->CallForm(), *text.tokenizer));
  LogInfo("reasoning: {}; tool calls: {}", text.forms.reasoning, text.forms.tool_calls);
  if (GrammarEngine::Built()) {
    FATHOM_ASSIGN_OR_RETURN(text.grammars, GrammarEngine::Make(*text.tokenizer, folder.vocab));
  }
  return text;
}

// The parts of the API that the flags and the model folder give.
ApiParts PartsOf(const Options& options, const ModelFolder& folder, const Text& text) {
  ApiParts parts;
  parts.folder = &folder;
  parts.served_name = options.served_model_name.value_or(folder.name);
  parts.tokenizer = text.tokenizer.get();
  parts.chat = text.chat.get();
  parts.forms = text.forms;
  parts.behind_proxy = options.behind_proxy;
  parts.log_prompts = options.log_requests == "prompts";
  return parts;
}

// Ends the process if the ordered shutdown takes longer than `seconds`. Everything that runs checks
// for cancellation, so a longer shutdown is a bug; a drain must end in spite of it.
void EndAfter(int seconds) {
  std::thread([seconds] {
    std::this_thread::sleep_for(std::chrono::seconds(seconds));
    Diagnose("fathom-router: calls did not end within {} s; ending without them", seconds);
    std::_Exit(kExitInternal);
  }).detach();
}

// Null: no endpoint is given.
std::unique_ptr<TraceExporter> MakeExporter(const Options& options,
                                            const std::optional<http::Url>& url, const Clock* clock,
                                            RouterMetrics* metrics) {
  if (!url) return nullptr;
  TraceExporterOptions exporter;
  exporter.url = *url;
  exporter.sample_ratio = options.trace_sample_ratio;
  exporter.resource = {.version = BuildVersion(), .instance_id = RandomId()};
  return std::make_unique<TraceExporter>(
      exporter, clock, [metrics](size_t requests) { metrics->TracesDropped(requests); });
}

// Connections of HTTP: a part of the descriptors that the limit leaves.
size_t HttpConnectionsMax() {
  const int64_t descriptors = TakeHostLimits().descriptors.value_or(1 << 20);
  return static_cast<size_t>(std::clamp<int64_t>((descriptors - 1024) / 8, 64, 4096));
}

// Notes in the log when the router becomes ready, or is no longer.
void NoteReadiness(const absl::Status& ready, bool* serving) {
  if (ready.ok() == *serving) return;
  *serving = ready.ok();
  LogInfo("{}", *serving ? "ready: a request would be answered"
                         : fmt::format("not ready: {}", Message(ready)));
}

std::unique_ptr<http::Server> ServeHttp(Listener listener, Metrics* metrics, const SelfDial* self,
                                        const LoopWatch* loop, const InferenceApi* api,
                                        size_t connections_max, http::Protection protection) {
  http::Routes routes;
  AddInferenceRoutes(api, &routes);
  return http::ServeProcess(
      std::move(listener), "router", metrics,
      {.live = http::LiveBy(self, loop), .ready = [api] { return api->Ready(); }, .progress = {}},
      std::move(routes), {.connections_max = connections_max}, std::move(protection));
}

int64_t NowUnixS() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::seconds>(now).count();
}

// The keys of the start.
absl::Status CheckAccess(const Options& options, AccessControl* access) {
  if (access->on()) return access->Load(NowUnixS());
  if (options.allow_unauthenticated || IsLoopback(options.host)) return absl::OkStatus();
  return Invalid(
      "--host {} is an address of other machines, and without --api-keys everybody who reaches it "
      "may use the model; give --api-keys FILE (`fathom keys new` makes one), or say "
      "--allow-unauthenticated if the network keeps others away",
      options.host);
}

// The keys, and the certificates of both sides, which may change while the router runs.
struct Secured {
  explicit Secured(const std::vector<std::string>& key_files) : access(key_files) {}
  AccessControl access;
  std::unique_ptr<LiveTlsFiles> client_files, cluster_files;
  std::unique_ptr<http::TlsContext> http;  // Null: no TLS for clients.
};

absl::StatusOr<std::unique_ptr<Secured>> Secure(const Options& options) {
  auto secured = std::make_unique<Secured>(options.api_keys);
  const TlsFlags flags{"--tls-cert", "--tls-key", "--tls-client-ca"};
  FATHOM_RETURN_IF_ERROR(CheckAccess(options, &secured->access));
  FATHOM_ASSIGN_OR_RETURN(secured->client_files, LiveTlsFiles::Open(options.tls, flags, false));
  FATHOM_ASSIGN_OR_RETURN(secured->cluster_files, OpenClusterTls(options.cluster_tls, kRouterName));
  if (!options.tls.on()) return secured;
  FATHOM_ASSIGN_OR_RETURN(secured->http,
                          http::TlsContext::Load(secured->client_files->files(), flags));
  return secured;
}

// Looks for new keys and certificates about once a second; what is wrong changes nothing.
void Reload(Secured* secured) {
  const absl::StatusOr<bool> keys = secured->access.Reload(NowUnixS());
  if (!keys.ok()) LogWarn("the file has changed and is not taken: {}", Message(keys.status()));
  if (keys.ok() && *keys) LogInfo("--api-keys: the keys were read again");
  ReloadTls(secured->cluster_files.get());
  ReloadTls(secured->client_files.get());
  if (secured->http == nullptr) return;
  const absl::StatusOr<bool> taken = secured->http->Reload();
  if (!taken.ok()) LogError("the certificate of HTTP: {}", Message(taken.status()));
}

std::vector<OwnPort> OwnPorts(const Options& options, int grpc_port, int http_port) {
  const bool tls = options.tls.on();
  return {{"--grpc-port", options.host, grpc_port, OwnPort::Http2(tls)},
          {"--http-port", options.host, http_port, OwnPort::Http1(tls)}};
}

GrpcSchedulerLinkOptions LinkOptions(const Options& options, const ModelFolder& folder,
                                     const TlsFiles& tls) {
  GrpcSchedulerLinkOptions link;
  link.addresses = options.schedulers;
  link.config_digest = folder.config_digest;
  link.tls = tls;
  return link;
}

int Serve(const Options& options, const std::optional<http::Url>& traces_url,
          const ModelFolder& folder, const Text& text, Secured* secured) {
  auto grpc = Listener::Bind(options.host, options.grpc_port, "--grpc-port");
  if (!grpc.ok()) return EndServer(ExitCodeOfBind(grpc.status()), grpc.status());
  auto http = Listener::Bind(options.host, options.http_port, "--http-port");
  if (!http.ok()) return EndServer(ExitCodeOfBind(http.status()), http.status());
  const int grpc_port = grpc->port(), http_port = http->port();
  const SelfDial self(OwnPorts(options, grpc_port, http_port));
  const RealClock clock;
  Metrics metrics("router");
  RouterMetrics observer(&metrics, options.served_model_name.value_or(folder.name));
  GrpcSchedulerLink link(LinkOptions(options, folder, secured->cluster_files->files()), &clock);
  const std::unique_ptr<TraceExporter> traces =
      MakeExporter(options, traces_url, &clock, &observer);
  RequestLines lines(traces.get());
  ReportSink* reports = traces.get();
  if (options.log_requests != "off") reports = &lines;
  Sessions sessions({}, &clock, &link, text.tokenizer.get(), &observer, reports);
  WorkPool pool(options.tokenizer_threads, 64, &clock);
  GrammarCache grammars(text.grammars.get(), kGrammarCacheBytes);
  ApiParts parts = PartsOf(options, folder, text);
  parts.grammars = &grammars;
  parts.sessions = &sessions;
  parts.pool = &pool;
  parts.clock = &clock;
  parts.observer = &observer;
  if (traces) {
    parts.begin_span = [&](const TraceContext& client) { return traces->BeginSpan(client); };
  }
  InferenceApi api(parts);
  RouterService service(&api, &secured->access);
  rpc::ServerOptions server{.name = "router"};
  server.tls = secured->client_files->files();
  server.connections.of_a_proxy = options.behind_proxy;
  const size_t http_connections = HttpConnectionsMax();
  server.connections.descriptors_reserved += http_connections;
  const absl::Status started = service.Start(*std::move(grpc), server);
  if (!started.ok()) return EndServer(kExitUnavailable, started);
  LoopWatch loop("main loop", &clock);
  auto web = ServeHttp(*std::move(http), &metrics, &self, &loop, &api, http_connections,
                       {.guard = GuardOf(&secured->access), .tls = secured->http.get()});
  link.Start(&sessions);
  PrintListening("router", {{"grpc_port", grpc_port}, {"http_port", http_port}});
  bool serving = false;
  int turns = 0;
  const auto tick = [&] {
    loop.Turn();
    if (++turns % kTicksToReload == 0) Reload(secured);
    link.Tick();
    sessions.Tick();
    NoteReadiness(api.Ready(), &serving);
    service.SetServing(serving);
    const Sessions::View view = sessions.view();
    observer.Show(view, Readiness(folder, view).ok());
    observer.Show(service.connections());
    return view.open;
  };
  while (!WaitForStopSignal(kTickMs)) tick();

  LogInfo("draining: {} streams are open", sessions.view().open);
  api.Drain();
  const TimeUs drain_until = clock.Now() + options.drain_timeout_s * 1'000'000;
  while (tick() > 0 && clock.Now() < drain_until)
    std::this_thread::sleep_for(std::chrono::milliseconds(kTickMs));
  EndAfter(kStopMaxS);
  sessions.EndExplains();
  web.reset();
  service.Stop();
  link.Stop();
  return EndServer();
}

int Main(int argc, char** argv) {
  StartServer("router");
  Options options;
  if (const auto exit = ParseOptions(argc, argv, &options)) return *exit;
  ApplyProcessOptions(options.process);
  if (const auto status = CheckHostLimits(kNeeds, TakeHostLimits()); !status.ok()) {
    return EndServer(kExitResources, status);
  }
  if (options.model.empty()) {
    return EndServer(kExitUsage,
                     Invalid("--model is missing; give the model folder that the workers serve"));
  }
  auto schedulers = ParseAddresses("--scheduler", options.schedulers);
  if (!schedulers.ok()) return EndServer(kExitUsage, schedulers.status());
  options.schedulers = *std::move(schedulers);
  std::optional<http::Url> traces_url;
  if (!options.otlp_traces_endpoint.empty()) {
    auto url = TraceExporter::ParseEndpoint(options.otlp_traces_endpoint);
    if (!url.ok()) return EndServer(kExitUsage, url.status());
    traces_url = *std::move(url);
  }
  const auto secured = Secure(options);
  if (!secured.ok()) return EndServer(kExitUsage, secured.status());
  const RealClock clock;
  const auto folder = TimedPhase(clock, "config", [&] {
    return ReadModelFolder(options.model, options.hf_overrides, options.override_generation_config);
  });
  if (!folder.ok()) return EndServer(kExitBadModel, folder.status());
  for (const std::string& note : folder->notes) LogInfo("generation_config.json: {}", note);
  const auto text = TimedPhase(clock, "tokenizer", [&] { return LoadText(*folder, options); });
  if (!text.ok()) return EndServer(kExitBadModel, text.status());
  return Serve(options, traces_url, *folder, *text, secured->get());
}

}  // namespace
}  // namespace fathom::router

int main(int argc, char** argv) { return fathom::router::Main(argc, argv); }
