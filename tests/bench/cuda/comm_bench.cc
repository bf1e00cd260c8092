// Measures an all-reduce with residual and norm between ranks in separate processes, on separate
// devices where there are several: comm_bench [ranks ...]. Each way that the group has is measured
// at each size, so that the table of worker/comm/select_comm.cc can be set from the lines. On one
// device two processes take turns in slices of milliseconds; the time then says nothing of the
// kernels, only that they work.
//
// The program starts itself once for each rank. The ranks send their handles, and at the end their
// times, over a socket to the first process, which sends everything to all.
#include <cuda_runtime_api.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "common/status.h"
#include "tests/worker/cuda/rank_socket.h"
#include "worker/comm/cuda/nccl_comm.h"
#include "worker/comm/cuda/peer_comm.h"

extern char** environ;

namespace fathom::worker {
namespace {

constexpr int kSocket = 3;
constexpr int kHidden = 4096;
constexpr int64_t kSizes[] = {8 << 10, 64 << 10, 256 << 10, 1 << 20, 8 << 20};
constexpr int64_t kPushBytesMax = 256 << 10;
constexpr int kRepeats = 5;
const RealClock kClock;

void Check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  fmt::print(stderr, "comm_bench: {}: {}\n", what, cudaGetErrorString(error));
  std::exit(70);
}

// --- A rank ---

struct RankArgs {
  int rank = 0, ranks = 0, device = 0;
  bool shared = false;  // The ranks share a device.
};

// Sends this rank's bytes, at least one, and receives those of all, in rank order. Also the barrier
// of the ranks. If another rank has ended, this one ends too.
std::vector<std::string> Exchange(const RankArgs& args, std::string_view mine) {
  std::vector<std::string> all;
  bool good = SendBytes(kSocket, mine);
  for (int r = 0; r < args.ranks && good; ++r) {
    all.push_back(ReceiveBytes(kSocket));
    good = !all.back().empty();
  }
  if (good) return all;
  fmt::print(stderr, "comm_bench: rank {} ends, because another rank has ended\n", args.rank);
  std::exit(1);
}

// The buffers of the outputs, and the graph that is measured.
class Timer {
 public:
  Timer() {
    Check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "stream");
    const size_t bytes = kSizes[std::size(kSizes) - 1];
    for (void** memory : {&x_, &y_, &weight_}) {
      Check(cudaMalloc(memory, bytes), "memory");
      Check(cudaMemset(*memory, 0, bytes), "memory");
    }
    Check(cudaEventCreate(&begin_), "event");
    Check(cudaEventCreate(&end_), "event");
    Check(cudaDeviceSynchronize(), "memory");
  }

  using Reduce = std::function<absl::Status(const CommStream&, const ReduceRows&)>;
  // Microseconds of one all-reduce: the best of kRepeats replays, after one to warm up.
  absl::StatusOr<double> Measure(const RankArgs& args, int rows, int count, bool dependent,
                                 const Reduce& reduce) {
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t exec = nullptr;
    Check(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "capture");
    absl::Status status;
    for (int i = 0; i < count && status.ok(); ++i) {
      ReduceRows call;
      call.buffer = i % 2 == 0 ? PartialBuffer::kA : PartialBuffer::kB;
      call.rows = rows, call.x = x_, call.y = y_, call.eps = 1e-6f;
      call.weight = static_cast<const float*>(weight_);
      status = reduce({stream_, dependent && i > 0}, call);
    }
    Check(cudaStreamEndCapture(stream_, &graph), "capture");
    FATHOM_RETURN_IF_ERROR(status);
    Check(cudaGraphInstantiate(&exec, graph, 0), "graph");
    Check(cudaGraphDestroy(graph), "graph");
    float best_ms = 1e30f;
    for (int repeat = 0; repeat <= kRepeats; ++repeat) {
      Exchange(args, "ready");
      float ms = 0;
      Check(cudaEventRecord(begin_, stream_), "event");
      Check(cudaGraphLaunch(exec, stream_), "graph");
      Check(cudaEventRecord(end_, stream_), "event");
      Check(cudaEventSynchronize(end_), "event");
      Check(cudaEventElapsedTime(&ms, begin_, end_), "event");
      if (repeat > 0) best_ms = std::min(best_ms, ms);
    }
    Check(cudaGraphExecDestroy(exec), "graph");
    return 1e3 * best_ms / count;
  }

 private:
  cudaStream_t stream_ = nullptr;
  cudaEvent_t begin_ = nullptr, end_ = nullptr;
  void *x_ = nullptr, *y_ = nullptr, *weight_ = nullptr;
};

// Measures one way at every size; rank 0 prints the slowest rank's time, which is the group's.
absl::Status MeasureWay(const RankArgs& args, const char* way, Timer* timer, bool dependent,
                        const Timer::Reduce& reduce, int64_t bytes_max = INT64_MAX) {
  for (const int64_t bytes : kSizes) {
    if (bytes > bytes_max) break;
    const int count = args.shared ? 4 : bytes <= (1 << 20) ? 100 : 20;
    FATHOM_ASSIGN_OR_RETURN(
        const double us,
        timer->Measure(args, static_cast<int>(bytes / 2 / kHidden), count, dependent, reduce));
    double slowest = 0;
    for (const std::string& time : Exchange(args, fmt::format("{}", us))) {
      slowest = std::max(slowest, std::atof(time.c_str()));
    }
    if (args.rank != 0) continue;
    fmt::print(
        "{{\"id\": \"all_reduce_{}\", \"value\": {:.2f}, \"unit\": \"us\", \"ranks\": {}, "
        "\"bytes\": {}, \"hidden\": {}, \"devices\": {}}}\n",
        way, slowest, args.ranks, bytes, kHidden, args.shared ? 1 : args.ranks);
    std::fflush(stdout);
  }
  return absl::OkStatus();
}

absl::Status MeasurePeer(const RankArgs& args, Timer* timer) {
  PeerCommOptions options;
  options.device = args.device, options.rank = args.rank, options.hidden = kHidden;
  const int64_t rows = kSizes[std::size(kSizes) - 1] / 2 / kHidden;
  options.sizes = {args.ranks, args.shared ? 32 : 128, rows, kHidden * 2, 4096, 4096};
  options.sizes.push_rows = kPushBytesMax / 2 / kHidden;
  auto comm = PeerComm::Create(options);
  const std::vector<std::string> handles =
      Exchange(args, comm.ok() ? (*comm)->LocalHandle() : "failed");
  FATHOM_RETURN_IF_ERROR(comm.status());
  const absl::Status opened = (*comm)->Open(handles);
  // All ranks go on, or none.
  for (const std::string& other : Exchange(args, opened.ok() ? "open" : "closed")) {
    if (other != "open" && opened.ok()) return Unavailable("another rank could not open");
  }
  FATHOM_RETURN_IF_ERROR(opened);
  if (args.ranks == 2 || args.ranks == 4 || args.ranks == 8) {
    FATHOM_RETURN_IF_ERROR(MeasureWay(
        args, "push", timer, true,
        [&](const auto& on, const auto& rows_of) { return (*comm)->AllReducePush(on, rows_of); },
        kPushBytesMax));
    FATHOM_RETURN_IF_ERROR(
        MeasureWay(args, "one_shot", timer, true, [&](const auto& on, const auto& rows_of) {
          return (*comm)->AllReduceOneShot(on, rows_of);
        }));
  }
  FATHOM_RETURN_IF_ERROR(MeasureWay(
      args, "two_shot", timer, true,
      [&](const auto& on, const auto& rows_of) { return (*comm)->AllReduceTwoShot(on, rows_of); }));
  Exchange(args, "done");  // No rank frees memory that another one still reads.
  return absl::OkStatus();
}

absl::Status MeasureNccl(const RankArgs& args, Timer* timer) {
  NcclCommOptions options;
  options.device = args.device, options.rank = args.rank, options.size = args.ranks;
  options.hidden = kHidden;
  options.rows_max = static_cast<int>(kSizes[std::size(kSizes) - 1] / 2 / kHidden);
  options.clock = &kClock;
  auto id = args.rank == 0 ? MakeNcclId() : absl::StatusOr<std::string>("none");
  options.id = Exchange(args, id.ok() ? *id : "none")[0];
  FATHOM_RETURN_IF_ERROR(id.status());
  FATHOM_ASSIGN_OR_RETURN(const auto comm, MakeNcclComm(options));
  absl::Status status =
      MeasureWay(args, "nccl", timer, false,
                 [&](const auto& on, const auto& rows_of) { return comm->AllReduce(on, rows_of); });
  Exchange(args, "done");
  return status;
}

int RunRank(const RankArgs& args) {
  Check(cudaSetDevice(args.device), "device");
  Timer timer;
  int code = 0;
  const auto report = [&](const char* what, const absl::Status& status) {
    if (status.ok()) return;
    fmt::print(stderr, "comm_bench: rank {}: {}: {}\n", args.rank, what, Message(status));
    code = 1;
  };
  report("peer memory", MeasurePeer(args, &timer));
  if (code == 0 && !args.shared) report("NCCL", MeasureNccl(args, &timer));  // One rank a device.
  return code;
}

// --- The first process ---

struct Child {
  pid_t pid = 0;
  int socket = -1;
};

Child Spawn(const RankArgs& args) {
  int sockets[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) != 0) std::exit(70);
  // Above kSocket, because a descriptor that is duplicated to its own number stays closed on exec.
  const int theirs = fcntl(sockets[1], F_DUPFD_CLOEXEC, 16);
  close(sockets[1]);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, theirs, kSocket);
  const std::string words[] = {"comm_bench",
                               "--rank",
                               std::to_string(args.rank),
                               std::to_string(args.ranks),
                               std::to_string(args.device),
                               std::to_string(static_cast<int>(args.shared))};
  std::vector<char*> argv;
  for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  Child child;
  child.socket = sockets[0];
  if (posix_spawn(&child.pid, "/proc/self/exe", &actions, nullptr, argv.data(), environ) != 0) {
    std::exit(70);
  }
  posix_spawn_file_actions_destroy(&actions);
  close(theirs);
  return child;
}

// Sends what each rank sends to all of them, until a rank ends. Returns whether all ended well.
bool RunGroup(int ranks, int devices) {
  std::vector<Child> children;
  for (int r = 0; r < ranks; ++r)
    children.push_back(Spawn({r, ranks, r % devices, ranks > devices}));
  for (bool running = true; running;) {
    std::vector<std::string> all;
    for (const Child& child : children) all.push_back(ReceiveBytes(child.socket));
    running = std::none_of(all.begin(), all.end(), [](const auto& bytes) { return bytes.empty(); });
    for (const Child& child : children) {
      for (const std::string& bytes : all) running = running && SendBytes(child.socket, bytes);
    }
  }
  for (const Child& child : children) close(child.socket);
  bool good = true;
  for (const Child& child : children) {
    int status = 0;
    waitpid(child.pid, &status, 0);
    good = good && WIFEXITED(status) && WEXITSTATUS(status) == 0;
  }
  return good;
}

int RunAll(const std::vector<int>& asked) {
  int devices = 0;
  Check(cudaGetDeviceCount(&devices), "devices");
  std::vector<int> groups = asked;
  for (const int ranks : {2, 4, 8}) {
    if (asked.empty() && (ranks == 2 || ranks <= devices)) groups.push_back(ranks);
  }
  bool good = true;
  for (const int ranks : groups) good = RunGroup(ranks, devices) && good;
  return good ? 0 : 1;
}

}  // namespace
}  // namespace fathom::worker

int main(int argc, char** argv) {
  if (argc == 6 && std::string_view(argv[1]) == "--rank") {
    return fathom::worker::RunRank(
        {std::atoi(argv[2]), std::atoi(argv[3]), std::atoi(argv[4]), std::atoi(argv[5]) != 0});
  }
  std::vector<int> ranks;
  for (int i = 1; i < argc; ++i) ranks.push_back(std::atoi(argv[i]));
  return fathom::worker::RunAll(ranks);
}
