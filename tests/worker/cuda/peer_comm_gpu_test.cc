// PeerComm: ranks in one process, and two processes that map each other's memory, on one device and
// on two, one of which is killed. The second process is this program with FATHOM_COMM_CHILD set to
// its device; the two talk over a socket. Processes take turns on a device, in slices of
// milliseconds, so there are only a few collectives.
#include "worker/comm/cuda/peer_comm.h"

#include <cuda_runtime_api.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "common/status.h"
#include "tests/worker/cuda/rank_socket.h"

extern char** environ;

namespace fathom::worker {
namespace {

using ::testing::HasSubstr;

constexpr const char* kChild = "FATHOM_COMM_CHILD";
constexpr int kSocket = 3;  // Of the second process.
constexpr int kRows = 5, kHidden = 1024, kRounds = 6;
constexpr int64_t kCount = int64_t{kRows} * kHidden;

void ExpectCuda(cudaError_t error) { EXPECT_EQ(error, cudaSuccess) << cudaGetErrorString(error); }

// Before the first call of CUDA: a hardware queue for each stream.
const bool kQueues = setenv("CUDA_DEVICE_MAX_CONNECTIONS", "32", 1) == 0;

// Under compute-sanitizer (tests/kernels/cuda/gpu_test.h).
bool Sanitized() { return std::getenv("FATHOM_SANITIZED") != nullptr; }

PeerCommOptions OptionsOf(int rank, int ranks = 2, int rows = kRows) {
  PeerCommOptions options;
  options.rank = rank;
  options.hidden = kHidden;
  options.sizes = {ranks, 16, rows, kHidden * 2, 4096, 4096};
  return options;
}

// bf16 values that need no rounding in any sum of two: small integers.
uint16_t Bits(int value) {
  const float x = static_cast<float>(value);
  uint32_t bits = 0;
  std::memcpy(&bits, &x, 4);
  return static_cast<uint16_t>(bits >> 16);
}
int ValueOf(int rank, int round, int64_t i) {
  return static_cast<int>((i * 7 + rank * 31 + round * 13) % 61) - 30;
}

struct Stream {
  Stream() { ExpectCuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking)); }
  ~Stream() { ExpectCuda(cudaStreamDestroy(stream)); }
  cudaStream_t stream = nullptr;
};

void WritePartial(const PeerComm& comm, PartialBuffer buffer, int round, cudaStream_t stream) {
  std::vector<uint16_t> values(kCount);
  for (int64_t i = 0; i < kCount; ++i) values[i] = Bits(ValueOf(comm.rank(), round, i));
  ExpectCuda(cudaMemcpyAsync(comm.Partial(buffer), values.data(), values.size() * 2,
                             cudaMemcpyHostToDevice, stream));
  ExpectCuda(cudaStreamSynchronize(stream));
}

// The number of wrong values of `ranks` ranks' sum.
int64_t WrongValues(const void* sum, int ranks, int round) {
  std::vector<uint16_t> got(kCount);
  ExpectCuda(cudaMemcpy(got.data(), sum, got.size() * 2, cudaMemcpyDeviceToHost));
  int64_t wrong = 0;
  for (int64_t i = 0; i < kCount; ++i) {
    int want = 0;
    for (int r = 0; r < ranks; ++r) want += ValueOf(r, round, i);
    wrong += got[i] != Bits(want);
  }
  return wrong;
}

// Whether the stream's work ends within a minute.
bool Drains(cudaStream_t stream) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::minutes(1);
  cudaError_t state = cudaErrorNotReady;
  while (state == cudaErrorNotReady && std::chrono::steady_clock::now() < end) {
    state = cudaStreamQuery(stream);
  }
  return state == cudaSuccess;
}

// --- One process ---

TEST(PeerComm, RanksOfOneProcessReduce) {
  if (Sanitized()) GTEST_SKIP() << "a launch may wait for its end";
  ASSERT_TRUE(kQueues);
  constexpr int kRanks = 4;
  std::vector<std::unique_ptr<PeerComm>> comms;
  std::vector<std::string> handles;
  std::vector<Stream> streams(kRanks);
  void* out = nullptr;
  ExpectCuda(cudaMalloc(&out, kRanks * kCount * 2));
  for (int r = 0; r < kRanks; ++r) {
    auto comm = PeerComm::Create(OptionsOf(r, kRanks));
    ASSERT_TRUE(comm.ok()) << ToString(comm.status());
    handles.push_back((*comm)->LocalHandle());
    comms.push_back(*std::move(comm));
  }
  for (auto& comm : comms) {
    const absl::Status opened = comm->Open(handles);
    ASSERT_TRUE(opened.ok()) << ToString(opened);
  }
  const auto out_of = [&](int r) { return static_cast<char*>(out) + r * kCount * 2; };
  for (int round = 0; round < 4; ++round) {
    const PartialBuffer buffer = round % 2 == 0 ? PartialBuffer::kA : PartialBuffer::kB;
    for (int r = 0; r < kRanks; ++r) WritePartial(*comms[r], buffer, round, streams[r].stream);
    for (int r = 0; r < kRanks; ++r) {
      const CommStream on = {streams[r].stream, false};
      ReduceRows rows = {buffer, kRows, out_of(r)};
      const absl::Status status =
          round < 2 ? comms[r]->AllReduceOneShot(on, rows) : comms[r]->AllReduceTwoShot(on, rows);
      EXPECT_TRUE(status.ok());
    }
    for (int r = 0; r < kRanks; ++r) {
      ASSERT_TRUE(Drains(streams[r].stream));
      EXPECT_EQ(WrongValues(out_of(r), kRanks, round), 0) << "rank " << r << ", round " << round;
    }
  }
  EXPECT_EQ(comms[0]->InWork(), "two-shot all-reduce, results 6");
  comms[2]->Abort();
  EXPECT_EQ(comms[2]->AsyncError().code(), absl::StatusCode::kAborted);
  EXPECT_THAT(std::string(Message(comms[2]->AsyncError())), HasSubstr("two-shot all-reduce"));
  EXPECT_TRUE(comms[1]->AsyncError().ok());
  EXPECT_EQ(comms[2]->AllGather({streams[2].stream, false}, out, out, 4).code(),
            absl::StatusCode::kAborted);
  ExpectCuda(cudaFree(out));
}

// The rank that begins a collective first waits for the other one, and says so with the next one.
TEST(PeerComm, CountsTheTimeInWhichTheDeviceWaits) {
  if (Sanitized()) GTEST_SKIP() << "a launch may wait for its end";
  constexpr int kRanks = 2;
  constexpr auto kDelay = std::chrono::milliseconds(50);
  std::vector<std::unique_ptr<PeerComm>> comms;
  std::vector<std::string> handles;
  std::vector<Stream> streams(kRanks);
  for (int r = 0; r < kRanks; ++r) {
    PeerCommOptions options = OptionsOf(r, kRanks);
    options.sizes.push_rows = kRows;
    auto comm = PeerComm::Create(options);
    ASSERT_TRUE(comm.ok()) << ToString(comm.status());
    handles.push_back((*comm)->LocalHandle());
    comms.push_back(*std::move(comm));
  }
  for (auto& comm : comms) ASSERT_TRUE(comm->Open(handles).ok());
  void* all = nullptr;
  ExpectCuda(cudaMalloc(&all, 4096));
  const auto reduce = [&](int way, const CommStream& on, PeerComm& comm) {
    const ReduceRows rows = {way % 2 == 0 ? PartialBuffer::kA : PartialBuffer::kB, kRows,
                             comm.Partial(way % 2 == 0 ? PartialBuffer::kA : PartialBuffer::kB)};
    return way == 0   ? comm.AllReducePush(on, rows)
           : way == 1 ? comm.AllReduceOneShot(on, rows)
                      : comm.AllReduceTwoShot(on, rows);
  };
  for (int way = 0; way < 3; ++way) {
    const int64_t before[kRanks] = {comms[0]->WaitedUs(), comms[1]->WaitedUs()};
    EXPECT_TRUE(reduce(way, {streams[0].stream, false}, *comms[0]).ok());
    std::this_thread::sleep_for(kDelay);
    EXPECT_TRUE(reduce(way, {streams[1].stream, false}, *comms[1]).ok());
    for (int r = 0; r < kRanks; ++r) {
      EXPECT_TRUE(
          comms[r]
              ->AllGather({streams[r].stream, false}, all, static_cast<char*>(all) + 1024, 256)
              .ok());
    }
    for (int r = 0; r < kRanks; ++r) ASSERT_TRUE(Drains(streams[r].stream));
    const int64_t waited[kRanks] = {comms[0]->WaitedUs() - before[0],
                                    comms[1]->WaitedUs() - before[1]};
    RecordProperty("waited_us_" + std::to_string(way),
                   std::to_string(waited[0]) + " " + std::to_string(waited[1]));
    EXPECT_GT(waited[0], std::chrono::microseconds(kDelay).count() / 2) << way;
    EXPECT_LT(waited[1], waited[0] / 2) << way;
  }
  comms.clear();
  ExpectCuda(cudaFree(all));
}

TEST(PeerComm, RefusesOtherHandlesAndSizes) {
  EXPECT_EQ(PeerComm::Create(OptionsOf(2)).status().code(), absl::StatusCode::kInvalidArgument);
  auto a = PeerComm::Create(OptionsOf(0)), b = PeerComm::Create(OptionsOf(1, 2, kRows + 1));
  ASSERT_TRUE(a.ok() && b.ok());
  const std::string handles[] = {(*a)->LocalHandle(), (*b)->LocalHandle()};
  const absl::Status status = (*a)->Open(handles);
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(Message(status)), HasSubstr("rank 1 has a region for 2 ranks"));
}

TEST(PeerComm, ARegionWithoutRoomIsAnError) {
  if (Sanitized()) GTEST_SKIP() << "it reports the call that fails";
  PeerCommOptions options = OptionsOf(0);
  options.sizes.rows_max = int64_t{1} << 24;
  options.hidden = 8192;
  options.sizes.row_bytes_max = 8192 * 2;  // 256 GiB for each buffer.
  EXPECT_EQ(PeerComm::Create(options).status().code(), absl::StatusCode::kResourceExhausted);
}

// --- Two processes ---

// Makes this process's rank, and opens the other's region.
absl::StatusOr<std::unique_ptr<PeerComm>> Meet(int rank, int device, int socket) {
  PeerCommOptions options = OptionsOf(rank);
  options.device = device;
  FATHOM_ASSIGN_OR_RETURN(auto comm, PeerComm::Create(options));
  if (!SendBytes(socket, comm->LocalHandle())) return Unavailable("the peer is gone");
  std::string handles[2];
  handles[rank] = comm->LocalHandle();
  handles[1 - rank] = ReceiveBytes(socket);
  FATHOM_RETURN_IF_ERROR(comm->Open(handles));
  if (!SendBytes(socket, "open") || ReceiveBytes(socket) != "open") {
    return Unavailable("the peer did not open");
  }
  return comm;
}

// The collectives of both ranks; returns the number of wrong values.
int64_t Rounds(PeerComm* comm, cudaStream_t stream, void* out) {
  int64_t wrong = 0;
  for (int round = 0; round < kRounds; ++round) {
    const PartialBuffer buffer = round % 2 == 0 ? PartialBuffer::kA : PartialBuffer::kB;
    WritePartial(*comm, buffer, round, stream);
    const ReduceRows rows = {buffer, kRows, out};
    const CommStream on = {stream, false};
    const absl::Status status =
        round < kRounds / 2 ? comm->AllReduceOneShot(on, rows) : comm->AllReduceTwoShot(on, rows);
    if (!status.ok() || !Drains(stream)) return -1;
    wrong += WrongValues(out, 2, round);
  }
  return wrong;
}

// Rank 1. Its exit code says what went wrong.
int RunChild(int device) {
  auto comm = Meet(1, device, kSocket);
  if (!comm.ok()) {
    SendBytes(kSocket, ToString(comm.status()));
    return 2;
  }
  Stream stream;
  void* out = nullptr;
  ExpectCuda(cudaMalloc(&out, kCount * 2));
  const int64_t wrong = Rounds(comm->get(), stream.stream, out);
  if (!SendBytes(kSocket, fmt::format("wrong {}", wrong))) return 3;
  ReceiveBytes(kSocket);  // Until it is killed.
  return 4;
}

// Rank 0 is this process, on device 0.
void ReduceWithAProcessThatIsKilled(int device) {
  int sockets[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets), 0);
  posix_spawn_file_actions_t actions;
  ASSERT_EQ(posix_spawn_file_actions_init(&actions), 0);
  // A descriptor that is duplicated to its own number would stay closed on exec.
  const int theirs = sockets[1] == kSocket ? dup(sockets[1]) : sockets[1];
  ASSERT_EQ(posix_spawn_file_actions_adddup2(&actions, theirs, kSocket), 0);
  char self[4096] = {};
  ASSERT_GT(readlink("/proc/self/exe", self, sizeof(self) - 1), 0);
  char* const argv[] = {self, nullptr};
  ASSERT_EQ(setenv(kChild, std::to_string(device).c_str(), 1), 0);
  pid_t child = 0;
  const int spawned = posix_spawn(&child, self, &actions, nullptr, argv, environ);
  unsetenv(kChild);
  posix_spawn_file_actions_destroy(&actions);
  ASSERT_EQ(spawned, 0);
  close(theirs);
  if (theirs != sockets[1]) close(sockets[1]);

  auto comm = Meet(0, 0, sockets[0]);
  ASSERT_TRUE(comm.ok()) << ToString(comm.status());
  Stream stream;
  void* out = nullptr;
  ExpectCuda(cudaMalloc(&out, kCount * 2));
  EXPECT_EQ(Rounds(comm->get(), stream.stream, out), 0);
  EXPECT_EQ(ReceiveBytes(sockets[0]), "wrong 0");

  ASSERT_EQ(kill(child, SIGKILL), 0);
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFSIGNALED(status));
  // The dead peer never arrives. The waits end by the abort word, and later calls are refused.
  const ReduceRows rows = {PartialBuffer::kA, kRows, out};
  const ReduceRows next = {PartialBuffer::kB, kRows, out};
  EXPECT_TRUE((*comm)->AllReduceOneShot({stream.stream, false}, rows).ok());
  EXPECT_TRUE((*comm)->AllReduceTwoShot({stream.stream, true}, next).ok());
  EXPECT_EQ(cudaStreamQuery(stream.stream), cudaErrorNotReady);
  (*comm)->Abort();
  EXPECT_TRUE(Drains(stream.stream));
  EXPECT_EQ((*comm)->AllReduce({stream.stream, false}, rows).code(), absl::StatusCode::kAborted);
  comm->reset();
  ExpectCuda(cudaFree(out));
  close(sockets[0]);
}

TEST(PeerComm, TwoProcessesOnOneDeviceAndOneIsKilled) {
  if (Sanitized()) GTEST_SKIP() << "a launch may wait for its end";
  ReduceWithAProcessThatIsKilled(0);
}

TEST(PeerComm, TwoProcessesOnTwoDevicesAndOneIsKilled) {
  if (Sanitized()) GTEST_SKIP() << "the sanitizer does not follow several processes, nor NCCL";
  int devices = 0;
  ExpectCuda(cudaGetDeviceCount(&devices));
  if (devices < 2) GTEST_SKIP() << "needs two devices";
  ReduceWithAProcessThatIsKilled(1);
}

}  // namespace
}  // namespace fathom::worker

int main(int argc, char** argv) {
  if (const char* device = std::getenv(fathom::worker::kChild); device != nullptr) {
    return fathom::worker::RunChild(std::atoi(device));
  }
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
