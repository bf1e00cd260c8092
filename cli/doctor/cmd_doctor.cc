#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/doctor/doctor_rules.h"
#include "cli/doctor/gather.h"
#include "cli/serve/cluster_plan.h"
#include "common/listener.h"
#include "common/output.h"

namespace fathom::client {
namespace {

// The ports of `fathom serve` with these options.
std::vector<WantedPort> PortsOf(const ServeOptions& serve, int32_t workers) {
  std::vector<WantedPort> ports = {{serve.http_port, "--http-port"},
                                   {serve.grpc_port, "--grpc-port"},
                                   {serve.scheduler_metrics_port, "--scheduler-metrics-port"},
                                   {serve.scheduler_port, "--scheduler-port"}};
  for (int32_t i = 0; i < workers; ++i) {
    if (serve.worker_port > 0) ports.push_back({serve.worker_port + i, "--worker-port"});
    if (serve.worker_metrics_port > 0) {
      ports.push_back({serve.worker_metrics_port + i, "--worker-metrics-port"});
    }
  }
  return ports;
}

// An existing folder in which `fathom serve` would make its run directory.
std::string RunFolder(const std::string& given) {
  if (!given.empty()) {
    std::filesystem::path folder = given;
    while (!std::filesystem::exists(folder) && folder.has_parent_path() &&
           folder != folder.parent_path()) {
      folder = folder.parent_path();
    }
    return std::filesystem::exists(folder) ? folder.string() : ".";
  }
  const char* const runtime = std::getenv("XDG_RUNTIME_DIR");
  return runtime != nullptr && runtime[0] != '\0' ? runtime : "/tmp";
}

}  // namespace

int RunDoctor(int argc, const char* const* argv) {
  Flags flags("fathom doctor",
              "Whether a cluster can start on this machine: each finding with its fix; exit 71 if "
              "one is an error, else 0. The flags are those of the planned fathom serve.");
  ServeOptions serve;
  DoctorWish wish;
  GatherOptions gather;
  bool json = false;
  flags.Group("Planned cluster");
  flags.AddChoice("--device", &wish.device, {"auto", "cpu", "cuda"},
                  "Where the workers shall compute; auto: on a GPU if there is one");
  flags.Add("--workers", &wish.workers, 1, 64, "Workers on this machine: -tp times -pp times -dp");
  flags.Add("--host", &serve.host, "Address that clients reach the router at");
  flags.AddPort("--http-port", &serve.http_port, "HTTP (0: any free one, not looked at)");
  flags.AddPort("--grpc-port,--port", &serve.grpc_port, "gRPC");
  flags.AddPort("--scheduler-metrics-port,--metrics-port", &serve.scheduler_metrics_port,
                "Metrics of the scheduler");
  flags.AddPort("--scheduler-port", &serve.scheduler_port, "The cluster's own port");
  flags.AddPort("--worker-port", &serve.worker_port, "Health of worker 0, worker i has port + i");
  flags.AddPort("--worker-metrics-port", &serve.worker_metrics_port,
                "Metrics of worker 0, worker i has port + i");
  flags.Add("--run-dir", &serve.run_dir, "Where logs and the term file shall be");
  flags.Group("Output");
  flags.Add("--driver-timeout-s", &gather.driver_timeout_s, 1, 600,
            "How long the NVIDIA driver may take to answer");
  flags.Add("--json", &json, "Print one JSON object");
  if (const auto code = flags.Parse(argc, argv)) return *code;
  if (const auto any = Listener::Bind(serve.host, 0, "--host"); !any.ok()) {
    return Fail("doctor", any.status());
  }
  gather.host = serve.host;
  gather.ports = PortsOf(serve, wish.workers);
  gather.run_folder = RunFolder(serve.run_dir);
  gather.gpu = wish.device != "cpu";
  const DoctorFacts facts = GatherFacts(gather);
  const std::vector<Finding> findings = Diagnosis(facts, wish);
  PrintAnswer("{}", json ? ToJson(findings).dump() + "\n" : ToText(findings));
  const int code = ExitCodeOf(findings);
  // A driver that hangs keeps a thread, which must not see the end of static objects.
  if (facts.driver.timed_out) _exit(EndAnswer("fathom doctor", code));
  return code;
}

}  // namespace fathom::client
