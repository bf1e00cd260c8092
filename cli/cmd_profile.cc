#include <fmt/format.h>
#include <grpcpp/grpcpp.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/trace_json.h"
#include "client/convert.h"
#include "cluster/channel.h"
#include "cluster/worker_wire.h"
#include "common/address.h"
#include "common/output.h"
#include "worker.grpc.pb.h"

namespace fathom::client {
namespace {

// The time that the transfer of a reply may take.
constexpr std::chrono::seconds kReplySlack{10};

absl::StatusOr<std::vector<StepTrace>> Trace(const std::string& address, int32_t steps,
                                             int32_t timeout_s) {
  const auto stub = worker::v1::WorkerTools::NewStub(MakeChannel(address));
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(timeout_s) +
                       kReplySlack);
  worker::v1::TraceRequest request;
  request.set_steps(steps);
  request.set_timeout_ms(timeout_s * 1000);
  worker::v1::TraceReply reply;
  const absl::Status status = FromGrpc(stub->Trace(&context, request, &reply));
  if (status.code() == absl::StatusCode::kUnimplemented) {
    return Unimplemented("{} is not a worker's port; give --worker as fathom serve prints it",
                         address);
  }
  if (!status.ok()) return Annotate(status, fmt::format("worker {}", address));
  std::vector<StepTrace> all;
  for (const worker::v1::StepTrace& step : reply.steps()) all.push_back(fathom::FromWire(step));
  return all;
}

absl::Status WriteWhole(const std::string& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  if (!file) {
    return Invalid("--out {}: it cannot be opened: {}; give a file in a folder of yours", path,
                   strerror(errno));
  }
  file << text << '\n';
  file.close();
  if (file) return absl::OkStatus();
  return DataLoss("--out {}: it cannot be written: {}; it is not whole", path, strerror(errno));
}

}  // namespace

int RunProfile(int argc, const char* const* argv) {
  Flags flags("fathom profile",
              "Writes a trace of a worker's next steps, host and device on one time axis, for "
              "ui.perfetto.dev or chrome://tracing. It records what runs; it sends no requests.");
  std::string address = "127.0.0.1:8010";
  std::string out = "trace.json";
  int32_t steps = 100;
  int32_t timeout_s = 30;
  flags.Group("What");
  flags.Add("--steps", &steps, 1, kTraceStepsMax, "How many steps");
  flags.Add("--worker", &address, "HOST:PORT of the worker's gRPC port");
  flags.Add("--timeout-s", &timeout_s, 1, 3600, "Write the steps there are after so long");
  flags.Group("Output");
  flags.Add("--out", &out, "File to write");
  if (const auto code = flags.Parse(argc, argv)) return *code;
  const auto worker = ParseHostPort(address);
  if (!worker.ok()) return Fail("profile", Annotate(worker.status(), "--worker"));
  address = FormatHostPort(worker->host, worker->port);

  const auto trace = Trace(address, steps, timeout_s);
  if (!trace.ok()) return Fail("profile", trace.status());
  if (trace->empty()) {
    return Fail("profile", Unavailable("worker {} did no step in {} s; does a request run?",
                                       address, timeout_s));
  }
  const absl::Status written =
      WriteWhole(out, TraceJson(*trace, fmt::format("worker {}", address)).dump());
  if (!written.ok()) {
    const int code = Fail("profile", written);
    return absl::IsDataLoss(written) ? kExitOutput : code;
  }
  if (std::ssize(*trace) < steps) {
    Diagnose("fathom profile: only {} of {} steps came", trace->size(), steps);
  }
  PrintAnswer("{}; wrote {}, for ui.perfetto.dev or chrome://tracing\n", TraceText(*trace), out);
  return kExitOk;
}

}  // namespace fathom::client
