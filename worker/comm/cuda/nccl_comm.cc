#include "worker/comm/cuda/nccl_comm.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <mutex>
#include <semaphore>
#include <string_view>
#include <thread>

#include "common/check.h"
#include "kernels/cuda/comm/all_reduce.h"
#include "kernels/cuda/rows/rmsnorm.h"
#include "worker/comm/cuda/nccl_api.h"
#include "worker/comm/nccl_log.h"
#include "worker/cuda/cuda_check.h"

namespace fathom::worker {
namespace {

namespace device = kernels::cuda;

constexpr std::string_view kIdMagic = "FNCCL001";
constexpr int kSizeMax = device::kCommRanksMax;
constexpr auto kWatchPeriod = std::chrono::milliseconds(20);
constexpr auto kSettlePeriod = std::chrono::microseconds(50);
constexpr int kQuickPolls = 1000;  // A call is enqueued within microseconds, a start takes longer.

ncclDataType_t TypeOf(kernels::DType dtype) {
  return dtype == kernels::DType::kBf16 ? ncclBfloat16 : ncclFloat16;
}

// The id of NCCL in the bytes of MakeNcclId.
absl::StatusOr<ncclUniqueId> IdOf(std::string_view bytes, int version) {
  ncclUniqueId id = {};
  int32_t theirs = 0;
  if (bytes.size() != kIdMagic.size() + sizeof(theirs) + sizeof(id) ||
      bytes.substr(0, kIdMagic.size()) != kIdMagic) {
    return Invalid("the {} bytes of rank 0 are no NCCL id of this version", bytes.size());
  }
  std::memcpy(&theirs, bytes.data() + kIdMagic.size(), sizeof(theirs));
  std::memcpy(&id, bytes.data() + kIdMagic.size() + sizeof(theirs), sizeof(id));
  if (theirs != version) {
    return Invalid("rank 0 has NCCL {}, this rank {}: install one version for all ranks",
                   NcclVersionText(theirs), NcclVersionText(version));
  }
  return id;
}

class NcclComm final : public DeviceComm {
 public:
  NcclComm(const NcclApi* api, const NcclCommOptions& options) : api_(*api), options_(options) {}
  ~NcclComm() override;
  NcclComm(const NcclComm&) = delete;
  NcclComm& operator=(const NcclComm&) = delete;
  absl::Status Start(const ncclUniqueId& id);

  int rank() const override { return options_.rank; }
  int size() const override { return options_.size; }
  const char* name() const override { return "NCCL"; }
  bool chains() const override { return false; }  // The last kernel may be NCCL's.
  void* Partial(PartialBuffer buffer) const override { return partials_[static_cast<int>(buffer)]; }
  absl::Status AllReduce(const CommStream& on, const ReduceRows& rows) override;
  absl::Status AllGather(const CommStream& on, const void* mine, void* all, int64_t bytes) override;
  void* Rows() const override { return RowsIn(rank()); }
  absl::Status ExchangeRows(const CommStream& on, int rows, int64_t row_bytes) override;
  const void* RowsOf(int rank) const override { return RowsIn(rank); }
  int messages_ahead() const override { return 0; }  // A send and its receive meet.
  absl::Status Send(const CommStream& on, int peer, const void* data, int64_t bytes) override;
  absl::Status Recv(const CommStream& on, int peer, void* to, int64_t bytes) override;
  void Abort() override;
  absl::Status AsyncError() const override;
  std::string InWork() const override;

 private:
  absl::Status Allocate();
  // Calls NCCL, and waits until the call has been enqueued.
  template <class F>
  absl::Status Call(const char* name, F&& call);
  // Waits while NCCL says "in progress".
  absl::Status Settle(const char* name, ncclResult_t result);
  char* RowsIn(int rank) const { return rows_ + rank * options_.exchange_bytes; }
  absl::Status SumShares(const CommStream& on, const ReduceRows& rows);
  void Fail(ncclResult_t error) {
    int none = 0;
    error_.compare_exchange_strong(none, static_cast<int>(error));
    wake_.release();
  }
  void Watch();

  const NcclApi& api_;
  const NcclCommOptions options_;
  int sms_ = 0;
  int sm_ = 0;
  char* memory_ = nullptr;
  void* partials_[2] = {};
  char* sums_ = nullptr;   // [size][rows of a share][hidden]
  char* parts_ = nullptr;  // [size][rows of a share][hidden], what the others sent.
  char* rows_ = nullptr;   // [size][exchange_bytes], of an exchange.

  std::mutex mutex_;           // Guards calls on comm_; no holder waits without looking at abort_.
  ncclComm_t comm_ = nullptr;  // Null after ncclCommAbort.
  std::atomic<bool> abort_ = false;
  std::atomic<bool> stop_ = false;  // The destructor.
  std::atomic<int> error_ = 0;      // The first ncclResult_t that is one.
  std::atomic<uint64_t> calls_ = 0;
  std::atomic<const char*> last_call_ = "nothing";
  std::counting_semaphore<> wake_{0};
  std::thread watchdog_;
};

absl::Status NcclComm::Allocate() {
  FATHOM_CUDA(cudaSetDevice(options_.device));
  cudaDeviceProp properties = {};
  FATHOM_CUDA(cudaGetDeviceProperties(&properties, options_.device));
  sms_ = properties.multiProcessorCount;
  sm_ = properties.major * 10 + properties.minor;
  const int64_t row_bytes = int64_t{options_.hidden} * 2;
  const auto aligned = [](int64_t bytes) { return (bytes + 255) / 256 * 256; };
  const int64_t partial = aligned(options_.rows_max * row_bytes);
  const int64_t shares = aligned(int64_t{device::RowsPerRank(options_.rows_max, options_.size)} *
                                 options_.size * row_bytes);
  const int64_t bytes =
      std::max<int64_t>(2 * partial + 2 * shares + options_.size * options_.exchange_bytes, 256);
  if (const cudaError_t error = cudaMalloc(reinterpret_cast<void**>(&memory_), bytes);
      error != cudaSuccess) {
    cudaGetLastError();
    return Exhausted(
        "rank {} cannot allocate {} bytes for sums over NCCL ({}): use fewer rows in a step "
        "(--max-num-batched-tokens)",
        options_.rank, bytes, cudaGetErrorString(error));
  }
  for (int i = 0; i < 2; ++i) partials_[i] = memory_ + i * partial;
  sums_ = memory_ + 2 * partial;
  parts_ = sums_ + shares;
  rows_ = parts_ + shares;
  return absl::OkStatus();
}

absl::Status NcclComm::Start(const ncclUniqueId& id) {
  FATHOM_RETURN_IF_ERROR(Allocate());
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  watchdog_ = std::thread([this] { Watch(); });
  const std::lock_guard lock(mutex_);
  return Settle("ncclCommInitRankConfig",
                api_.init(&comm_, options_.size, id, options_.rank, &config));
}

NcclComm::~NcclComm() {
  stop_.store(true);
  wake_.release();
  if (watchdog_.joinable()) watchdog_.join();
  if (comm_ != nullptr) api_.abort_comm(comm_);
  cudaFree(memory_);
}

void NcclComm::Watch() {
  cudaSetDevice(options_.device);
  while (!stop_.load()) {
    wake_.try_acquire_for(kWatchPeriod);
    const std::unique_lock lock(mutex_, std::try_to_lock);  // A holder sees the same errors.
    if (!lock.owns_lock() || comm_ == nullptr) continue;
    ncclResult_t state = ncclSuccess;
    const ncclResult_t asked = api_.async_error(comm_, &state);
    if (asked != ncclSuccess) state = asked;
    if (state != ncclSuccess && state != ncclInProgress) {
      int none = 0;
      error_.compare_exchange_strong(none, static_cast<int>(state));
    }
    if (abort_.load() || error_.load() != 0) {
      api_.abort_comm(comm_);
      comm_ = nullptr;
    }
  }
}

absl::Status NcclComm::Settle(const char* name, ncclResult_t result) {
  const TimeUs deadline = options_.clock->Now() + options_.deadline_us;
  for (int polls = 0; result == ncclInProgress; ++polls) {
    if (abort_.load()) return AsyncError();
    if (options_.clock->Now() > deadline) {
      Abort();
      return DeadlineExceeded("rank {}: {} did not end within {} ms: a rank of the group is late{}",
                              options_.rank, name, options_.deadline_us / 1000, NcclLogTail());
    }
    if (polls < kQuickPolls) {
      std::this_thread::yield();
    } else {
      std::this_thread::sleep_for(kSettlePeriod);
    }
    const ncclResult_t asked = api_.async_error(comm_, &result);
    if (asked != ncclSuccess) result = asked;
  }
  if (result == ncclSuccess) return absl::OkStatus();
  Fail(result);
  return Annotate(AsyncError(), name);
}

template <class F>
absl::Status NcclComm::Call(const char* name, F&& call) {
  FATHOM_RETURN_IF_ERROR(AsyncError());
  const std::lock_guard lock(mutex_);
  if (comm_ == nullptr) return AsyncError();
  last_call_.store(name, std::memory_order_relaxed);
  calls_.fetch_add(1, std::memory_order_relaxed);
  return Settle(name, call());
}

absl::Status NcclComm::SumShares(const CommStream& on, const ReduceRows& rows) {
  const ncclDataType_t type = TypeOf(options_.dtype);
  const int64_t row = options_.hidden;
  const int per_rank = device::RowsPerRank(rows.rows, size());
  const auto share_of = [&](int r) { return device::ShareOf(rows.rows, size(), r); };
  const device::RowShare mine = share_of(rank());
  char* const partial = static_cast<char*>(Partial(rows.buffer));
  const auto part_of = [&](int r) {
    return r == rank() ? partial + mine.first * row * 2 : parts_ + int64_t{r} * per_rank * row * 2;
  };
  FATHOM_RETURN_IF_ERROR(Call("send and receive of shares", [&] {
    ncclResult_t first = api_.group_start();
    const auto also = [&](ncclResult_t result) {
      if (first == ncclSuccess || first == ncclInProgress) first = result;
    };
    for (int peer = 0; peer < size(); ++peer) {
      if (peer == rank()) continue;
      const device::RowShare theirs = share_of(peer);
      if (theirs.rows > 0) {
        also(api_.send(partial + theirs.first * row * 2, theirs.rows * row, type, peer, comm_,
                       on.stream));
      }
      if (mine.rows > 0) {
        also(api_.recv(part_of(peer), mine.rows * row, type, peer, comm_, on.stream));
      }
    }
    also(api_.group_end());
    return first;
  }));
  char* const own_sums = sums_ + int64_t{rank()} * per_rank * row * 2;
  device::OrderedSumArgs sum;
  sum.dtype = options_.dtype;
  sum.ranks = size();
  for (int r = 0; r < size(); ++r) sum.parts[r] = part_of(r);
  sum.out = own_sums;
  sum.count = mine.rows * row;
  FATHOM_CUDA(device::OrderedSum({on.stream, false, sms_, sm_}, sum));
  return Call("all-gather of sums", [&] {
    return api_.all_gather(own_sums, sums_, per_rank * row, type, comm_, on.stream);
  });
}

absl::Status NcclComm::AllReduce(const CommStream& on, const ReduceRows& rows) {
  FATHOM_CHECK(rows.rows >= 0 && rows.rows <= options_.rows_max);
  if (rows.rows == 0) return AsyncError();
  const int64_t count = int64_t{rows.rows} * options_.hidden;
  if (size() <= 2) {
    FATHOM_RETURN_IF_ERROR(Call("all-reduce", [&] {
      return api_.all_reduce(Partial(rows.buffer), sums_, count, TypeOf(options_.dtype), ncclSum,
                             comm_, on.stream);
    }));
  } else {
    FATHOM_RETURN_IF_ERROR(SumShares(on, rows));
  }
  if (rows.sum != nullptr) {
    FATHOM_CUDA(cudaMemcpyAsync(rows.sum, sums_, count * 2, cudaMemcpyDeviceToDevice, on.stream));
  }
  if (rows.x == nullptr) return absl::OkStatus();
  device::RmsNormArgs norm;
  norm.dtype = options_.dtype;
  norm.x = rows.x, norm.addend = sums_, norm.weight = rows.weight, norm.y = rows.y;
  norm.eps = rows.eps;
  norm.rows = rows.rows, norm.width = options_.hidden;
  FATHOM_CUDA(device::RmsNorm({on.stream, false, sms_, sm_}, norm));
  return absl::OkStatus();
}

absl::Status NcclComm::AllGather(const CommStream& on, const void* mine, void* all, int64_t bytes) {
  return Call("all-gather", [&] {
    return api_.all_gather(mine, all, static_cast<size_t>(bytes), ncclUint8, comm_, on.stream);
  });
}

absl::Status NcclComm::ExchangeRows(const CommStream& on, int rows, int64_t row_bytes) {
  FATHOM_CHECK(rows * row_bytes <= options_.exchange_bytes);
  return Call("exchange of rows", [&] {
    ncclResult_t first = api_.group_start();
    const auto also = [&](ncclResult_t result) {
      if (first == ncclSuccess || first == ncclInProgress) first = result;
    };
    const auto bytes = static_cast<size_t>(row_bytes);
    for (int row = 0; row < rows; ++row) {
      const int to = row % size();
      for (int peer = 0; peer < size(); ++peer) {
        if (peer == rank() || (to != peer && to != rank())) continue;
        const int64_t at = row * row_bytes;
        also(to == peer ? api_.send(RowsIn(rank()) + at, bytes, ncclUint8, peer, comm_, on.stream)
                        : api_.recv(RowsIn(peer) + at, bytes, ncclUint8, peer, comm_, on.stream));
      }
    }
    also(api_.group_end());
    return first;
  });
}

absl::Status NcclComm::Send(const CommStream& on, int peer, const void* data, int64_t bytes) {
  FATHOM_CHECK(peer >= 0 && peer < size() && peer != rank());
  return Call("send", [&] {
    return api_.send(data, static_cast<size_t>(bytes), ncclUint8, peer, comm_, on.stream);
  });
}

absl::Status NcclComm::Recv(const CommStream& on, int peer, void* to, int64_t bytes) {
  FATHOM_CHECK(peer >= 0 && peer < size() && peer != rank());
  return Call("receive", [&] {
    return api_.recv(to, static_cast<size_t>(bytes), ncclUint8, peer, comm_, on.stream);
  });
}

void NcclComm::Abort() {
  abort_.store(true);
  wake_.release();
}

absl::Status NcclComm::AsyncError() const {
  if (const int error = error_.load(); error != 0) {
    return Unavailable("rank {}: NCCL failed: {}; the last operation was {}{}", options_.rank,
                       api_.error_string(static_cast<ncclResult_t>(error)), InWork(),
                       NcclLogTail());
  }
  if (!abort_.load()) return absl::OkStatus();
  return Aborted("the group's comm over NCCL was aborted; the last operation was {}", InWork());
}

std::string NcclComm::InWork() const {
  return fmt::format("{}, call {}", last_call_.load(std::memory_order_relaxed),
                     calls_.load(std::memory_order_relaxed));
}

}  // namespace

absl::StatusOr<std::string> MakeNcclId(const char* library) {
  FATHOM_ASSIGN_OR_RETURN(const NcclApi* const api, OpenNccl(library));
  ncclUniqueId id = {};
  if (const ncclResult_t result = api->unique_id(&id); result != ncclSuccess) {
    return Unavailable("NCCL makes no id: {} ({}){}", api->error_string(result),
                       api->last_error(nullptr), NcclLogTail());
  }
  std::string bytes(kIdMagic);
  const int32_t version = api->version;
  bytes.append(reinterpret_cast<const char*>(&version), sizeof(version));
  bytes.append(reinterpret_cast<const char*>(&id), sizeof(id));
  return bytes;
}

absl::StatusOr<std::unique_ptr<DeviceComm>> MakeNcclComm(const NcclCommOptions& options) {
  FATHOM_CHECK(options.clock != nullptr);
  if (options.size < 1 || options.size > kSizeMax || options.rank < 0 ||
      options.rank >= options.size || options.hidden < 0 || options.hidden % 8 != 0 ||
      options.rows_max < 0 || options.exchange_bytes < 0 || !device::IsDeviceType(options.dtype)) {
    return Invalid(
        "NCCL groups have 1 to {} ranks, and a hidden size that is a multiple of 8; "
        "this is rank {} of {}, hidden {}, rows {}",
        kSizeMax, options.rank, options.size, options.hidden, options.rows_max);
  }
  FATHOM_ASSIGN_OR_RETURN(const NcclApi* const api, OpenNccl(options.library));
  FATHOM_ASSIGN_OR_RETURN(const ncclUniqueId id, IdOf(options.id, api->version));
  auto comm = std::make_unique<NcclComm>(api, options);
  FATHOM_RETURN_IF_ERROR(comm->Start(id));
  return comm;
}

}  // namespace fathom::worker
