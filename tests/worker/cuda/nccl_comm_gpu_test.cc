// NcclComm with one rank, and with as many ranks as there are devices. The results are compared
// with the ordered sum on the host, and with the norm of kernels/cuda/rows.
#include "worker/comm/cuda/nccl_comm.h"

#include <cuda_runtime_api.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "kernels/cuda/rows/rmsnorm.h"

namespace fathom::worker {
namespace {

using ::testing::HasSubstr;

constexpr int kHidden = 1024, kRowsMax = 37;
constexpr float kEps = 1e-6f;
const RealClock kClock;

// compute-sanitizer (tests/kernels/cuda/gpu_test.h) also reports calls of NCCL that may fail.
bool Sanitized() { return std::getenv("FATHOM_SANITIZED") != nullptr; }

void ExpectCuda(cudaError_t error) { EXPECT_EQ(error, cudaSuccess) << cudaGetErrorString(error); }

// --- bf16 on the host ---

float Widen(uint16_t x) {
  const uint32_t bits = static_cast<uint32_t>(x) << 16;
  float value = 0;
  std::memcpy(&value, &bits, 4);
  return value;
}
uint16_t Round(float x) {  // To nearest, ties to even; finite values.
  uint32_t bits = 0;
  std::memcpy(&bits, &x, 4);
  return static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}
std::vector<uint16_t> RandomRows(int rows, uint32_t salt) {
  const char* text = std::getenv("FATHOM_SEED");
  const uint32_t seed = text != nullptr ? static_cast<uint32_t>(std::atoi(text)) : 20261130;
  std::mt19937 generator(seed + salt);
  std::normal_distribution<float> normal(0, 1);
  std::vector<uint16_t> values(static_cast<size_t>(rows) * kHidden);
  for (uint16_t& value : values) value = Round(normal(generator));
  return values;
}
// ((r0 + r1) + r2) + ... in fp32, rounded once.
std::vector<uint16_t> OrderedSum(const std::vector<std::vector<uint16_t>>& parts) {
  std::vector<uint16_t> sum(parts[0].size());
  for (size_t i = 0; i < sum.size(); ++i) {
    float s = Widen(parts[0][i]);
    for (size_t r = 1; r < parts.size(); ++r) s += Widen(parts[r][i]);
    sum[i] = Round(s);
  }
  return sum;
}

// --- Device memory ---

template <class T>
class Buffer {
 public:
  explicit Buffer(const std::vector<T>& values) : count_(values.size()) {
    ExpectCuda(
        cudaMalloc(reinterpret_cast<void**>(&data_), std::max<size_t>(count_, 1) * sizeof(T)));
    ExpectCuda(cudaMemcpy(data_, values.data(), count_ * sizeof(T), cudaMemcpyHostToDevice));
  }
  ~Buffer() { ExpectCuda(cudaFree(data_)); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  T* get() const { return data_; }
  std::vector<T> Download() const {
    std::vector<T> values(count_);
    ExpectCuda(cudaMemcpy(values.data(), data_, count_ * sizeof(T), cudaMemcpyDeviceToHost));
    return values;
  }

 private:
  size_t count_;
  T* data_ = nullptr;
};

struct Stream {
  Stream() { ExpectCuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking)); }
  ~Stream() { ExpectCuda(cudaStreamDestroy(stream)); }
  cudaStream_t stream = nullptr;
};

// Whether the stream's work ends within a minute.
bool Drains(cudaStream_t stream) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::minutes(1);
  cudaError_t state = cudaErrorNotReady;
  while (state == cudaErrorNotReady && std::chrono::steady_clock::now() < end) {
    state = cudaStreamQuery(stream);
  }
  return state == cudaSuccess;
}

NcclCommOptions OptionsOf(int rank, int size, const std::string& id) {
  NcclCommOptions options;
  options.device = rank, options.rank = rank, options.size = size;
  options.hidden = kHidden, options.rows_max = kRowsMax;
  options.id = id;
  options.clock = &kClock;
  return options;
}

std::unique_ptr<DeviceComm> NewComm() {
  const auto id = MakeNcclId();
  EXPECT_TRUE(id.ok()) << ToString(id.status());
  if (!id.ok()) return nullptr;
  auto comm = MakeNcclComm(OptionsOf(0, 1, *id));
  EXPECT_TRUE(comm.ok()) << ToString(comm.status());
  return comm.ok() ? *std::move(comm) : nullptr;
}

// What a rank has after an all-reduce with residual and norm.
struct Rows {
  std::vector<uint16_t> sum, x, y;
  bool operator==(const Rows&) const = default;
};

// The all-reduce of one rank, `times` times by a graph, or once without.
Rows Reduce(DeviceComm* comm, const std::vector<uint16_t>& partial, int rows, int replays) {
  const Stream stream;
  const std::vector<uint16_t> zeros(partial.size());
  const Buffer<uint16_t> sum(zeros), x(RandomRows(rows, 999)), y(zeros);
  const Buffer<float> weight(std::vector<float>(kHidden, 0.75f));
  for (const PartialBuffer buffer : {PartialBuffer::kA, PartialBuffer::kB}) {
    ExpectCuda(cudaMemcpy(comm->Partial(buffer), partial.data(), partial.size() * 2,
                          cudaMemcpyHostToDevice));
  }
  ExpectCuda(cudaDeviceSynchronize());
  const auto enqueue = [&](PartialBuffer buffer) {
    const absl::Status status = comm->AllReduce(
        {stream.stream, false}, {buffer, rows, sum.get(), x.get(), y.get(), weight.get(), kEps});
    EXPECT_TRUE(status.ok()) << ToString(status);
  };
  cudaGraphExec_t exec = nullptr;
  if (replays == 0) {
    enqueue(PartialBuffer::kA);
  } else {
    cudaGraph_t graph = nullptr;
    ExpectCuda(cudaStreamBeginCapture(stream.stream, cudaStreamCaptureModeThreadLocal));
    enqueue(PartialBuffer::kA);
    enqueue(PartialBuffer::kB);
    ExpectCuda(cudaStreamEndCapture(stream.stream, &graph));
    ExpectCuda(cudaGraphInstantiate(&exec, graph, 0));
    ExpectCuda(cudaGraphDestroy(graph));
    for (int i = 0; i < replays; ++i) ExpectCuda(cudaGraphLaunch(exec, stream.stream));
  }
  EXPECT_TRUE(Drains(stream.stream));
  if (exec != nullptr) ExpectCuda(cudaGraphExecDestroy(exec));
  return {sum.Download(), x.Download(), y.Download()};
}

// The residual and the norm, `times` times, by the existing kernel.
Rows Wanted(const std::vector<uint16_t>& sum, int rows, int times) {
  const Buffer<uint16_t> addend(sum), x(RandomRows(rows, 999)), y(sum);
  const Buffer<float> weight(std::vector<float>(kHidden, 0.75f));
  kernels::cuda::RmsNormArgs norm;
  norm.x = x.get(), norm.addend = addend.get(), norm.weight = weight.get(), norm.y = y.get();
  norm.eps = kEps, norm.rows = rows, norm.width = kHidden;
  for (int i = 0; i < times; ++i) ExpectCuda(kernels::cuda::RmsNorm({nullptr, false, 1, 90}, norm));
  ExpectCuda(cudaDeviceSynchronize());
  return {sum, x.Download(), y.Download()};
}

// --- One rank ---

TEST(NcclComm, OneRankReducesAndGathersAndReplaysAGraph) {
  if (Sanitized()) GTEST_SKIP() << "the sanitizer does not follow several processes, nor NCCL";
  const auto comm = NewComm();
  ASSERT_NE(comm, nullptr);
  EXPECT_STREQ(std::getenv("NCCL_NVLS_ENABLE"), "0");
  for (const int rows : {1, 8, kRowsMax}) {
    const auto partial = RandomRows(rows, static_cast<uint32_t>(rows));
    EXPECT_EQ(Reduce(comm.get(), partial, rows, 0), Wanted(partial, rows, 1)) << rows;
    EXPECT_EQ(Reduce(comm.get(), partial, rows, 20), Wanted(partial, rows, 40)) << rows;
  }
  const Stream stream;
  const std::vector<uint16_t> words = RandomRows(1, 3);
  const Buffer<uint16_t> mine(words), all(std::vector<uint16_t>(words.size()));
  EXPECT_TRUE(
      comm->AllGather({stream.stream, false}, mine.get(), all.get(), int64_t{2} * kHidden).ok());
  EXPECT_TRUE(Drains(stream.stream));
  EXPECT_EQ(all.Download(), words);
  EXPECT_THAT(comm->InWork(), HasSubstr("all-gather, call "));
}

TEST(NcclComm, ANewCommunicatorFollowsAnAbort) {
  if (Sanitized()) GTEST_SKIP() << "the sanitizer does not follow several processes, nor NCCL";
  for (int epoch = 0; epoch < 3; ++epoch) {
    const auto comm = NewComm();
    ASSERT_NE(comm, nullptr);
    const auto partial = RandomRows(4, 1);
    EXPECT_EQ(Reduce(comm.get(), partial, 4, 2), Wanted(partial, 4, 4));
    EXPECT_TRUE(comm->AsyncError().ok());
    comm->Abort();
    comm->Abort();
    EXPECT_EQ(comm->AsyncError().code(), absl::StatusCode::kAborted);
    const Stream stream;
    EXPECT_EQ(comm->AllReduce({stream.stream, false}, {PartialBuffer::kA, 1}).code(),
              absl::StatusCode::kAborted);
  }
}

TEST(NcclComm, ARankThatDoesNotComeIsNoticed) {
  if (Sanitized()) GTEST_SKIP() << "the sanitizer does not follow several processes, nor NCCL";
  const auto id = MakeNcclId();
  ASSERT_TRUE(id.ok()) << ToString(id.status());
  NcclCommOptions options = OptionsOf(0, 2, *id);
  options.deadline_us = 300'000;
  const auto comm = MakeNcclComm(options);
  EXPECT_EQ(comm.status().code(), absl::StatusCode::kDeadlineExceeded) << ToString(comm.status());
  EXPECT_THAT(std::string(Message(comm.status())), HasSubstr("a rank of the group is late"));
}

TEST(NcclComm, BadIdsAreRefused) {
  if (Sanitized()) GTEST_SKIP() << "the sanitizer does not follow several processes, nor NCCL";
  const auto id = MakeNcclId();
  ASSERT_TRUE(id.ok()) << ToString(id.status());
  for (const std::string& bad :
       {std::string(), std::string("nonsense"), *id + "x", std::string(id->size(), 'F')}) {
    EXPECT_EQ(MakeNcclComm(OptionsOf(0, 1, bad)).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
  std::string other = *id;
  other[8] = static_cast<char>(other[8] + 1);  // The version.
  const absl::Status status = MakeNcclComm(OptionsOf(0, 1, other)).status();
  EXPECT_THAT(std::string(Message(status)), HasSubstr("rank 0 has NCCL 2."));
}

// --- One rank for each device ---

TEST(NcclComm, RanksOnSeveralDevicesHaveTheOrderedSum) {
  if (Sanitized()) GTEST_SKIP() << "the sanitizer does not follow several processes, nor NCCL";
  int devices = 0;
  ExpectCuda(cudaGetDeviceCount(&devices));
  if (devices < 2) GTEST_SKIP() << "needs two devices";
  for (const int size : {2, 3, 4, 8}) {
    if (size > devices) break;
    for (const int rows : {1, 5, kRowsMax}) {
      std::vector<std::vector<uint16_t>> parts;
      for (int r = 0; r < size; ++r) parts.push_back(RandomRows(rows, static_cast<uint32_t>(r)));
      const auto id = MakeNcclId();
      ASSERT_TRUE(id.ok()) << ToString(id.status());
      std::vector<Rows> got(static_cast<size_t>(size));
      std::vector<std::thread> threads;
      for (int r = 0; r < size; ++r) {
        threads.emplace_back([&, r] {
          ExpectCuda(cudaSetDevice(r));
          const auto comm = MakeNcclComm(OptionsOf(r, size, *id));
          EXPECT_TRUE(comm.ok()) << ToString(comm.status());
          if (comm.ok()) got[r] = Reduce(comm->get(), parts[r], rows, 3);
        });
      }
      for (std::thread& thread : threads) thread.join();
      const Rows want = Wanted(OrderedSum(parts), rows, 6);
      for (int r = 0; r < size; ++r) {
        EXPECT_EQ(got[r], want) << size << " ranks, " << rows << " rows, rank " << r;
      }
    }
  }
}

}  // namespace
}  // namespace fathom::worker
