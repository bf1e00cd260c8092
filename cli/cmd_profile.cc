#include <fmt/format.h>
#include <grpcpp/grpcpp.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "cli/commands.h"
#include "cli/trace_json.h"
#include "client/convert.h"
#include "cluster/channel.h"
#include "cluster/worker_wire.h"
#include "common/address.h"
#include "common/clock.h"
#include "common/output.h"
#include "common/server_process.h"
#include "worker.grpc.pb.h"

namespace fathom::client {
namespace {

// The time that the transfer of a reply may take.
constexpr std::chrono::seconds kReplySlack{10};
constexpr int kClockSamples = 16;
constexpr char kFirstWorker[] = "127.0.0.1:8010";

using Tools = worker::v1::WorkerTools;

// A worker to trace, and what came of it.
struct Traced {
  std::string address;
  std::string name;
  std::unique_ptr<Tools::Stub> stub;
  WorkerTrace trace;
  ClockDifference clock;
  absl::Status status;
};

absl::Status AtWorker(const std::string& address, const grpc::Status& from) {
  absl::Status status = FromGrpc(from);
  if (status.code() == absl::StatusCode::kUnimplemented) {
    return Unimplemented("{} is not a worker's port; give --worker as fathom serve prints it",
                         address);
  }
  return status.ok() ? status : Annotate(status, fmt::format("worker {}", address));
}

// Finds how far the worker's clock is ahead of ours.
absl::Status CompareClocks(Traced* worker) {
  const RealClock clock;
  std::vector<ClockSample> samples;
  for (int i = 0; i < kClockSamples; ++i) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + kReplySlack);
    worker::v1::ClockReply reply;
    const TimeUs sent_us = clock.Now();
    const grpc::Status status = worker->stub->Clock(&context, {}, &reply);
    if (!status.ok()) return AtWorker(worker->address, status);
    samples.push_back({sent_us, reply.now_us(), clock.Now()});
  }
  worker->clock = BestDifference(samples);
  worker->trace.clock_ahead_us = worker->clock.ahead_us;
  return absl::OkStatus();
}

absl::Status Trace(Traced* worker, int32_t steps, int32_t timeout_s) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(timeout_s) +
                       kReplySlack);
  worker::v1::TraceRequest request;
  request.set_steps(steps);
  request.set_timeout_ms(timeout_s * 1000);
  worker::v1::TraceReply reply;
  FATHOM_RETURN_IF_ERROR(AtWorker(worker->address, worker->stub->Trace(&context, request, &reply)));
  worker->trace.name = worker->name;
  for (const worker::v1::StepTrace& step : reply.steps()) {
    worker->trace.steps.push_back(fathom::FromWire(step));
  }
  if (!worker->trace.steps.empty()) return absl::OkStatus();
  return Unavailable("worker {} did no step in {} s; does a request run?", worker->address,
                     timeout_s);
}

// All at the same time. The first error, in the order of the workers.
absl::Status TraceAll(std::vector<Traced>* workers, int32_t steps, int32_t timeout_s) {
  // A single worker has no other clock, and it may be of a build that does not tell its clock.
  for (size_t i = 0; workers->size() > 1 && i < workers->size(); ++i) {
    FATHOM_RETURN_IF_ERROR(CompareClocks(&(*workers)[i]));
  }
  {
    std::vector<std::jthread> threads;
    for (Traced& worker : *workers) {
      threads.emplace_back([&] { worker.status = Trace(&worker, steps, timeout_s); });
    }
  }
  for (const Traced& worker : *workers) FATHOM_RETURN_IF_ERROR(worker.status);
  return absl::OkStatus();
}

// The workers of --worker, else the ranks that the router knows, else the first worker's usual
// port.
absl::StatusOr<std::vector<Traced>> WorkersOf(const std::vector<std::string>& addresses,
                                              const ServerFlag& server,
                                              const TlsFiles& cluster_tls) {
  std::vector<Traced> workers;
  const auto add = [&](const std::string& address, std::string name) {
    workers.push_back({.address = address, .name = std::move(name)});
  };
  if (!addresses.empty()) {
    FATHOM_ASSIGN_OR_RETURN(const auto parsed, ParseAddresses("--worker", addresses));
    for (const std::string& address : parsed) add(address, fmt::format("worker {}", address));
  } else {
    FATHOM_ASSIGN_OR_RETURN(const auto client, server.Dial());
    const auto status = client->GetStatus(/*deadline_ms=*/5000);
    for (size_t i = 0; status.ok() && i < status->ranks.size(); ++i) {
      const RankStatus& rank = status->ranks[i];
      if (rank.address.empty()) continue;  // The scheduler is of an earlier build.
      add(rank.address, fmt::format("group {} rank {} on {}", rank.group, rank.rank, rank.host));
    }
    if (workers.empty()) add(kFirstWorker, fmt::format("worker {}", kFirstWorker));
  }
  ChannelOptions channel;
  if (cluster_tls.on()) {
    FATHOM_RETURN_IF_ERROR(OpenClusterTls(cluster_tls, kOperatorName).status());
    channel = {.credentials = TlsCredentials(cluster_tls), .peer_name = kWorkerName};
  }
  for (Traced& worker : workers) {
    worker.stub = Tools::NewStub(MakeChannel(worker.address, channel));
  }
  return workers;
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

// What came of the workers, in lines.
void PrintTraces(const std::vector<Traced>& workers, int32_t steps, const std::string& out) {
  for (const Traced& worker : workers) {
    if (std::ssize(worker.trace.steps) < steps) {
      Diagnose("fathom profile: only {} of {} steps came{}", worker.trace.steps.size(), steps,
               workers.size() > 1 ? " of " + worker.name : "");
    }
    if (workers.size() == 1) {
      PrintAnswer("{}; wrote {}, for ui.perfetto.dev or chrome://tracing\n",
                  TraceText(worker.trace.steps), out);
      return;
    }
    PrintAnswer("{}: {}{}\n", worker.name, TraceText(worker.trace.steps),
                worker.clock.ahead_us == 0
                    ? ""
                    : fmt::format("; its clock is {} us ahead, within {} us", worker.clock.ahead_us,
                                  worker.clock.error_us));
  }
  PrintAnswer("wrote {} with {} workers on one clock, for ui.perfetto.dev or chrome://tracing\n",
              out, workers.size());
}

}  // namespace

int RunProfile(int argc, const char* const* argv) {
  Flags flags(
      "fathom profile",
      "Writes a trace of the next steps of all workers, host and device on one time axis, "
      "for ui.perfetto.dev or chrome://tracing. It records what runs; it sends no requests.");
  std::vector<std::string> addresses;
  std::string out = "trace.json";
  int32_t steps = 100;
  int32_t timeout_s = 30;
  ServerFlag server;
  TlsFiles cluster_tls;
  flags.Group("What");
  flags.Add("--steps", &steps, 1, kTraceStepsMax, "How many steps");
  flags.Add("--worker", &addresses,
            "HOST:PORT of a worker's gRPC port; once for each, or with commas. Default: every rank "
            "that the router of --server knows");
  flags.Add("--timeout-s", &timeout_s, 1, 3600, "Write the steps there are after so long");
  server.Add(flags);
  AddClusterTlsFlags(&cluster_tls, &flags);
  flags.Group("Output");
  flags.Add("--out", &out, "File to write");
  if (const auto code = flags.Parse(argc, argv)) return *code;
  auto workers = WorkersOf(addresses, server, cluster_tls);
  if (!workers.ok()) return Fail("profile", workers.status());
  if (const absl::Status status = TraceAll(&*workers, steps, timeout_s); !status.ok()) {
    return Fail("profile", status);
  }
  std::vector<WorkerTrace> traces;
  for (const Traced& worker : *workers) traces.push_back(worker.trace);
  const absl::Status written = WriteWhole(out, TraceJson(std::move(traces)).dump());
  if (!written.ok()) {
    const int code = Fail("profile", written);
    return absl::IsDataLoss(written) ? kExitOutput : code;
  }
  PrintTraces(*workers, steps, out);
  return kExitOk;
}

}  // namespace fathom::client
