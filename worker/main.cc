// worker/main.cc: puts fathom-worker together: flags, model, health server, Control streams, the
// engine thread, and an orderly end.
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <thread>
#include <utility>

#include "cluster/rank_report.h"
#include "common/address.h"
#include "common/clock.h"
#include "common/cpus.h"
#include "common/flag_names.h"
#include "common/flags.h"
#include "common/host_limits.h"
#include "common/log.h"
#include "common/loop_watch.h"
#include "common/machine.h"
#include "common/metrics.h"
#include "common/output.h"
#include "common/process.h"
#include "common/self_dial.h"
#include "common/server_process.h"
#include "http/process_routes.h"
#include "modeling/checkpoint/checkpoint.h"
#include "modeling/checkpoint/model_digest.h"
#include "modeling/layout/cuda_memory_plan.h"
#include "modeling/layout/memory_plan.h"
#include "modeling/spec/rank_model.h"
#include "worker/cluster/group_runner.h"
#include "worker/cluster/health_server.h"
#include "worker/cluster/scheduler_client.h"
#include "worker/comm/nccl_settings.h"
#include "worker/comm/shm_comm.h"
#include "worker/comm/shm_stages.h"
#include "worker/cpu/model_host.h"
#include "worker/cuda/cuda_backend.h"
#include "worker/cuda/cuda_probe.h"
#include "worker/engine/draft_model.h"
#include "worker/engine/ngram_proposer.h"
#include "worker/engine/step_trace.h"
#include "worker/open_model.h"
#include "worker/options.h"
#include "worker/progress.h"
#include "worker/progress_watch.h"
#include "worker/start_log.h"
#include "worker/worker_metrics.h"

namespace fathom::worker {
namespace {

// Measured on an idle worker (docs/OPERATIONS.md, "Limits of the system"), plus room for a few
// connections.
constexpr HostNeeds kNeeds{
    .descriptors = 48, .address_space_bytes = int64_t{2} << 30, .threads = 24};
constexpr std::chrono::seconds kLastStep{5};  // For the steps in flight after SIGTERM.

int ExitCodeOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kNotFound:
    case absl::StatusCode::kDataLoss:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kUnimplemented:
      return kExitBadModel;
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kResourceExhausted:
      return kExitUnavailable;
    default:
      return kExitInternal;
  }
}

constexpr int kWorkMetricsMs = 250;  // How often /metrics shows what the rank does.

// The host at which other processes reach a port that listens on `host`.
std::string ReachableHost(const std::string& host) {
  const bool any = DialHost(host) != BareHost(host);
  return any ? HostName() : host;
}

// The kind of device that this process uses, its facts, and a function that returns the device of a
// rank: it makes the device at the first call and keeps it between epochs.
struct Compute {
  virtual ~Compute() = default;

  EngineLimits limits;
  std::string dtype;        // The type of the computation, as in the fingerprint.
  std::string device_kind;  // "cpu", "cuda-sm90"
  std::string card;         // The GPU's name.
  int64_t memory_bytes = 0;
  StageMessages messages;  // With several stages: the longest ones of a step.
  DeviceForRank device_for_rank;
};

Hello HelloOf(const Options& options, const Model& model, const Compute& compute, int health_port) {
  Hello hello;
  hello.process_id = RandomId();
  hello.role = Role::kWorker;
  hello.build = BuildVersion();
  hello.config_digest = model.config_digest;
  WorkerFacts& facts = hello.worker.emplace();
  facts.host = HostName();
  facts.device = options.device;
  // The folder exists, because it was read.
  facts.model = std::filesystem::canonical(model.folder).filename().string();
  facts.weights_digest = model.checkpoint->weights_digest();
  facts.fingerprint = Fingerprint(
      {facts.weights_digest, compute.dtype, compute.device_kind, options.tp, kRecipeVersion});
  facts.device_kind = compute.device_kind;
  facts.dtype = compute.dtype;
  facts.recipe = kRecipeVersion;
  facts.card = compute.card;
  facts.machine = options.host_id.empty() ? MachineId() : options.host_id;
  facts.shared_memory = SharedMemoryId();
  facts.health_address = FormatHostPort(ReachableHost(options.host), health_port);
  facts.memory_bytes = static_cast<uint64_t>(compute.memory_bytes);
  facts.limits = compute.limits;
  facts.tp = options.tp;
  facts.pp = options.pp;
  facts.preferred_rank = options.rank_hint;
  if (model.grammars) facts.grammar_vocabulary = model.grammars->vocabulary_digest();
  facts.proposer =
      Describe(options.speculative, model.draft ? model.draft->checkpoint->weights_digest() : "");
  return hello;
}

// After the scheduler was told that this worker leaves: waits until it has moved the group's
// sequences and has ended the epoch. Without a leader there is no epoch. `turn` is called now and
// then.
void WaitForRelease(const Progress& progress, int64_t timeout_s, const Clock& clock,
                    const std::function<void()>& turn) {
  constexpr int64_t kTurnUs = 50'000;
  const TimeUs deadline = clock.Now() + timeout_s * 1'000'000;
  for (TimeUs next_turn = 0; progress.rank.load() >= 0 && clock.Now() < deadline;) {
    if (clock.Now() >= next_turn) {
      turn();
      next_turn = clock.Now() + kTurnUs;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

// Lets the engine take no more steps, and waits until those in flight have ended, so that their
// results are written.
void FinishStep(const Progress& progress, const Clock& clock, std::atomic<bool>* stop) {
  *stop = true;
  const TimeUs deadline = clock.Now() + std::chrono::microseconds(kLastStep).count();
  while (progress.phase.load() == fathom::Phase::kStepping && clock.Now() < deadline) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

// OK: this worker runs the steps of a group that is up.
absl::Status Ready(const Progress& progress) {
  if (progress.rank.load() >= 0) return absl::OkStatus();
  return Unavailable("this worker is in no group that is up; its phase is {}",
                     NameOf(progress.phase.load()));
}

// Null: nothing proposes drafts.
std::unique_ptr<Proposer> ProposerFor(const SpeculativeConfig& config) {
  if (config.method != SpeculativeMethod::kNgram) return nullptr;
  return std::make_unique<NgramProposer>(config.lookup_min, config.lookup_max);
}

struct CpuCompute : Compute {
  CpuCompute(const Options& options, const Model& model, const Sizes& sizes, const Clock& clock,
             Progress* progress, WorkerMetrics* observer)
      : proposer(ProposerFor(options.speculative)),
        host(model.spec, model.checkpoint.get(),
             {.shape = options.shape(),
              .limits = sizes.limits,
              .logits_rows = LogitsRows(sizes.limits),
              .threads = ThreadsFor(options, UsableCpus()),
              .proposer = proposer.get(),
              .grammars = model.grammars.get(),
              .draft = model.draft ? &model.draft->spec : nullptr,
              .draft_checkpoint = model.draft ? model.draft->checkpoint.get() : nullptr},
             &clock, progress) {
    limits = sizes.limits;
    messages = MessagesOf(model.spec.hidden, limits);
    dtype = "float32";
    device_kind = "cpu";
    memory_bytes = sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGE_SIZE);
    device_for_rank = [this, observer, progress](int rank) {
      auto loaded = host.ForRank(rank);
      observer->SetMemory(host.weights_bytes(), host.kv_bytes());
      observer->SetArena("weights", host.weights_bytes(), /*on_gpu=*/false);
      observer->SetArena("kv", host.kv_bytes(), /*on_gpu=*/false);
      observer->SetArena("swap", host.swap_bytes(), /*on_gpu=*/false);
      if (host.draft_bytes() > 0) {
        observer->SetArena("draft", host.draft_bytes(), /*on_gpu=*/false);
      }
      if (std::exchange(loaded_rank, rank) != rank && loaded.ok()) {
        progress->MarkStart(StartPhase::kWeights, host.weights_bytes());
      }
      return loaded;
    };
  }
  const std::unique_ptr<Proposer> proposer;
  ModelHost host;
  int loaded_rank = -1;
};

struct CudaCompute : Compute {
  // `plans.draft` is used only if there is a draft model.
  CudaCompute(const Options& options, const Model& model, const DeviceFacts& device,
              const CudaPlansWithDraft& planned, kernels::DType type, const Clock& clock,
              Progress* progress, WorkerMetrics* observer)
      : proposer(ProposerFor(options.speculative)) {
    const std::vector<CudaMemoryPlan>& plans = planned.target;
    limits = plans.front().limits;
    dtype = NameOf(type);
    device_kind = fmt::format("cuda-sm{}", device.sm);
    card = device.name;
    memory_bytes = device.capacity_bytes;
    CudaBackendOptions wanted{.checkpoint = model.checkpoint.get(),
                              .clock = &clock,
                              .progress = progress,
                              .dtype = type,
                              .use_graphs = !options.enforce_eager,
                              .diagnose = options.diagnose_numerics,
                              .proposer = proposer.get(),
                              .grammars = model.grammars.get(),
                              .phase = PrintPhase};
    wanted.graphs_grew = [observer](int64_t bytes) { observer->SetGraphs(bytes); };
    device_for_rank = [this, wanted, observer, plans, taken_bytes = device.taken_bytes,
                       draft_plan = planned.draft, draft = model.draft.get(), spec = &model.spec,
                       shape = options.shape()](int rank) mutable -> absl::StatusOr<Device*> {
      if (draft != nullptr && proposer == nullptr) {
        FATHOM_RETURN_IF_ERROR(LoadDraft(wanted, *draft, draft_plan));
        observer->SetArena("draft", draft_plan.total_bytes, /*on_gpu=*/true);
        wanted.proposer = proposer.get();
      }
      if (loaded == nullptr || loaded_rank != rank) {
        loaded = nullptr;  // Its memory is needed for the slices of the other rank.
        const int32_t stage = shape.StageOf(rank);
        wanted.model = RankOf(*spec, {shape.tp, shape.TpRankOf(rank), stage, shape.pp});
        wanted.plan = plans[static_cast<size_t>(stage)];
        for (const CudaArena& arena : wanted.plan.arenas) {
          observer->SetArena(arena.name, arena.bytes, /*on_gpu=*/true);
        }
        observer->SetArena("other", taken_bytes, /*on_gpu=*/true);
        observer->SetArena("swap", wanted.plan.swap_bytes, /*on_gpu=*/false);
        observer->SetMemory(wanted.plan.Bytes("weights"), wanted.plan.Bytes("kv"));
        FATHOM_ASSIGN_OR_RETURN(loaded, MakeCudaDevice(wanted));
        loaded_rank = rank;
        wanted.progress->MarkStart(StartPhase::kWeights, wanted.plan.Bytes("weights"));
      }
      return loaded.get();
    };
  }
  // The draft model is on one rank, whatever the group's shape.
  absl::Status LoadDraft(CudaBackendOptions wanted, const Model& draft,
                         const CudaMemoryPlan& plan) {
    wanted.model = RankOf(draft.spec, {});
    wanted.checkpoint = draft.checkpoint.get();
    wanted.plan = plan;
    wanted.proposer = nullptr;
    wanted.graphs_grew = nullptr;
    FATHOM_ASSIGN_OR_RETURN(draft_device, MakeCudaDevice(wanted));
    proposer = std::make_unique<DraftModel>(draft_device.get(), plan.limits);
    return absl::OkStatus();
  }

  std::unique_ptr<Device> draft_device;
  std::unique_ptr<Proposer> proposer;
  std::unique_ptr<Device> loaded;
  int loaded_rank = 0;
};

using MakeCompute = std::function<std::unique_ptr<Compute>(Progress*, WorkerMetrics*)>;

struct Ports {
  Listener grpc, http;
  std::unique_ptr<LiveTlsFiles> tls;
};

// Runs until a stop signal (OK), or until an error makes this process useless.
absl::Status Serve(const Options& options, const Model& model, Ports* ports,
                   const MakeCompute& make_compute, const Clock& clock, StartLog* start) {
  const int port = ports->grpc.port(), metrics_port = ports->http.port();
  const SelfDial self(OwnPorts(options, port, metrics_port));
  Metrics metrics("worker");
  WorkerMetrics observer(&metrics);
  Progress progress;
  progress.start = start;
  StepRecorder recorder;
  FATHOM_ASSIGN_OR_RETURN(const auto health, HealthServer::Start(std::move(ports->grpc),
                                                                 ports->tls->files(), &recorder));
  LoopWatch loop("main loop", &clock);
  ProgressWatch watch(&progress, &clock);
  const auto web = http::ServeProcess(std::move(ports->http), "worker", &metrics,
                                      {.live = http::LiveBy(&self, &loop),
                                       .ready = [&progress] { return Ready(progress); },
                                       .progress = [&watch] { return watch.Moves(); }});
  PrintListening("worker", {{"port", port}, {"metrics_port", metrics_port}});
  progress.phase = fathom::Phase::kLoading;
  const std::unique_ptr<Compute> compute = make_compute(&progress, &observer);
  // If the rank is known, the model is loaded before there is a seat.
  const int32_t ranks = options.shape().ranks();
  if (ranks == 1 || options.rank_hint >= 0) {
    const auto loaded = TimedPhase(clock, "load", [&] {
      return compute->device_for_rank(std::max(options.rank_hint, 0) % ranks);
    });
    FATHOM_RETURN_IF_ERROR(loaded.status());
  }
  progress.phase = fathom::Phase::kIdle;
  std::atomic<bool> stop{false}, draining{false}, was_registered{false};
  const TimeUs register_from = clock.Now();
  Membership membership;
  SchedulerClient client(options.schedulers, ports->tls->files(),
                         HelloOf(options, model, *compute, port), &membership, &progress, &draining,
                         &clock, [&](int schedulers) {
                           if (!was_registered.exchange(true)) {
                             PrintPhase("register", clock.Now() - register_from);
                             start->Mark(StartPhase::kRegistered);
                           }
                           observer.SetRegistered(schedulers);
                           health->SetServing(schedulers > 0);
                         });
  GroupRunner runner({options.shape(), compute->limits, compute->messages}, &membership, &client,
                     compute->device_for_rank, &clock, &progress, &stop,
                     [&](const StepPlan& plan, const StepResult& result, const StepStream& stream) {
                       observer.OnStep(plan, result, stream);
                       recorder.OnStep(plan, result, stream);
                     });
  absl::Status ended;
  watch.Look();
  std::thread engine([&] {
    ended = runner.Run();
    if (!ended.ok()) RequestStop();
  });
  const auto turn = [&] {
    loop.Turn();
    watch.Look();
    observer.SetWork(progress);
    ReloadTls(ports->tls.get());
  };
  while (!WaitForStopSignal(kWorkMetricsMs)) turn();
  health->SetServing(false);
  draining = true;
  client.Beat();  // The scheduler learns it at once.
  if (client.LeaderDrains()) WaitForRelease(progress, options.drain_timeout_s, clock, turn);
  FinishStep(progress, clock, &stop);
  membership.Close();
  engine.join();
  LogInfo("left after {} epochs", runner.epochs());
  return ended;
}

// Returns the exit code of the process.
int Ended(const absl::Status& ended) {
  return ended.ok() ? EndServer() : EndServer(ExitCodeOf(ended), ended);
}

// Makes the shared memory between the stages of a group and removes it.
absl::Status CheckLinks(const Options& options, const Model& model, const EngineLimits& limits) {
  if (options.pp == 1) return absl::OkStatus();
  const StageMessages messages = MessagesOf(model.spec.hidden, limits);
  return ShmStages::Create(options.shape(), RingBytes(options.shape(), messages)).status();
}

int RunOnCpu(const Options& options, const Model& model, Ports* ports, const Clock& clock,
             StartLog* start) {
  const auto sizes = SizesFor(options, model.config, model.draft ? &model.draft->config : nullptr);
  if (!sizes.ok()) return EndServer(kExitUsage, sizes.status());
  // All workers of the machine share the memory of a cgroup, and each of them plans as much.
  const auto enough =
      CheckHostLimits({.address_space_bytes = kNeeds.address_space_bytes + sizes->total_bytes,
                       .memory_bytes = sizes->total_bytes * LocalWorkers(options)},
                      TakeHostLimits());
  if (!enough.ok()) {
    return EndServer(
        kExitResources,
        Annotate(enough, fmt::format("{} for weights, activations and KV of this rank, {} "
                                     "workers on this machine",
                                     FormatBytes(sizes->total_bytes), LocalWorkers(options))));
  }
  if (const auto status = CheckLinks(options, model, sizes->limits); !status.ok()) {
    return EndServer(kExitResources, status);
  }
  start->Mark(StartPhase::kMemory);
  LogInfo("{} on {} threads: context {}, {} blocks of {} tokens, {} slots, {} tokens a step",
          model.config.architecture, ThreadsFor(options, UsableCpus()),
          sizes->limits.context_tokens, sizes->limits.pool_blocks, sizes->limits.block_tokens,
          sizes->limits.slots, sizes->limits.step_tokens);
  if (options.speculative.method != SpeculativeMethod::kNone) {
    LogInfo("speculative decoding: {}", Describe(options.speculative, options.speculative.model));
  }
  const MakeCompute make = [&](Progress* progress, WorkerMetrics* observer) {
    return std::make_unique<CpuCompute>(options, model, *sizes, clock, progress, observer);
  };
  return Ended(Serve(options, model, ports, make, clock, start));
}

absl::StatusOr<CudaPlansWithDraft> CudaPlansOf(const Options& options, const Model& model,
                                               kernels::DType dtype, const DeviceFacts& device) {
  if (model.draft) {
    return PlansWithDraftFor(options, model.config, model.draft->config, dtype, device);
  }
  CudaPlansWithDraft plans;
  FATHOM_ASSIGN_OR_RETURN(plans.target, PlansFor(options, model.config, dtype, device));
  return plans;
}

int RunOnGpu(const Options& options, const Model& model, const DeviceFacts& device, Ports* ports,
             const Clock& clock, StartLog* start) {
  const auto dtype = CudaDType(options, model.checkpoint->stored_type());
  if (!dtype.ok()) return EndServer(kExitUsage, dtype.status());
  const auto plans = CudaPlansOf(options, model, *dtype, device);
  if (!plans.ok()) return EndServer(kExitUsage, plans.status());
  // All workers of the machine share the memory of a cgroup.
  const int64_t swap_bytes = LargestOf(plans->target).swap_bytes * LocalWorkers(options);
  if (const auto enough = CheckHostLimits({.memory_bytes = swap_bytes}, TakeHostLimits());
      !enough.ok()) {
    return EndServer(kExitResources, Annotate(enough, "--swap-space"));
  }
  start->Mark(StartPhase::kMemory);
  LogInfo("{} in {} on {} ({}, compute capability {}.{}, driver for CUDA {}.{}); memory:\n{}",
          model.config.architecture, NameOf(*dtype), device.name, device.uuid, device.sm / 10,
          device.sm % 10, device.driver_version / 1000, device.driver_version % 1000 / 10,
          ToTables(plans->target));
  if (options.speculative.method != SpeculativeMethod::kNone) {
    LogInfo("speculative decoding: {}{}", Describe(options.speculative, options.speculative.model),
            model.draft ? "; memory of the draft model:\n" + ToTable(plans->draft) : "");
  }
  const MakeCompute make = [&](Progress* progress, WorkerMetrics* observer) {
    return std::make_unique<CudaCompute>(options, model, device, *plans, *dtype, clock, progress,
                                         observer);
  };
  return Ended(Serve(options, model, ports, make, clock, start));
}

// The facts of the GPU; sm is 0 if the CPU was chosen.
absl::StatusOr<DeviceFacts> ChooseDevice(Options* options) {
  absl::StatusOr<DeviceFacts> device = DeviceFacts{};
  if (options->device != "cpu") device = ProbeCudaDevice();
  if (!device.ok()) {
    if (options->device == "cuda") return Annotate(device.status(), "--device cuda");
    LogInfo("--device auto: the CPU, for {}", Message(device.status()));
    device = DeviceFacts{};
  }
  FATHOM_RETURN_IF_ERROR(ResolveDevice(device->sm > 0, options));
  return device;
}

// Checks limits of the host that would otherwise end the process later, in a library, or prevent
// its group from forming.
absl::Status CheckHost(const Options& options) {
  FATHOM_RETURN_IF_ERROR(CheckHostLimits(kNeeds, TakeHostLimits()));
  if (options.tp == 1 || options.device == "cuda") return absl::OkStatus();
  // Makes the shared memory of a stage and removes it.
  return ShmComm::Create(options.tp).status();
}

int Main(int argc, char** argv) {
  StartServer("worker");
  const RealClock clock;
  StartLog start(&clock, ProcessAgeUs());
  start.Mark(StartPhase::kProcess);
  Options options;
  if (const auto code = ParseOptions(argc, argv, &options)) return *code;
  ApplyProcessOptions(options.process);
  const std::string nccl_debug = options.nccl_debug == "off" ? "" : options.nccl_debug;
  if (const auto status =
          ApplyNcclSettings({options.nccl_interface, nccl_debug, options.nccl_debug_file});
      !status.ok()) {
    return EndServer(kExitUsage, status);
  }
  if (const auto status = CheckHost(options); !status.ok())
    return EndServer(kExitResources, status);
  auto tls = OpenClusterTls(options.cluster_tls, kWorkerName);
  if (!tls.ok()) return EndServer(kExitUsage, tls.status());
  const auto device = ChooseDevice(&options);
  if (!device.ok()) return EndServer(kExitUsage, device.status());
  start.Mark(StartPhase::kDevice);
  const auto model = OpenModel(options, clock);
  if (!model.ok()) return EndServer(kExitBadModel, model.status());
  start.Mark(StartPhase::kCheckpoint);
  auto grpc = Listener::Bind(options.host, options.port, "--port");
  if (!grpc.ok()) return EndServer(ExitCodeOfBind(grpc.status()), grpc.status());
  auto http = Listener::Bind(options.host, options.metrics_port, "--metrics-port");
  if (!http.ok()) return EndServer(ExitCodeOfBind(http.status()), http.status());
  Ports ports{*std::move(grpc), *std::move(http), *std::move(tls)};
  return device->sm > 0 ? RunOnGpu(options, *model, *device, &ports, clock, &start)
                        : RunOnCpu(options, *model, &ports, clock, &start);
}

}  // namespace
}  // namespace fathom::worker

int main(int argc, char** argv) { return fathom::worker::Main(argc, argv); }
