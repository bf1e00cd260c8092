#include "worker/comm/cuda/peer_comm.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "common/check.h"
#include "common/process.h"
#include "kernels/cuda/comm/all_reduce_config.h"
#include "kernels/cuda/comm/peer_messages.h"
#include "worker/comm/select_comm.h"
#include "worker/cuda/cuda_check.h"

namespace fathom::worker {
namespace {

namespace device = kernels::cuda;

// A handle of the driver opens whole blocks of this size, so no other allocation may be in one.
constexpr int64_t kBlockBytes = int64_t{2} << 20;

uint64_t ProcessNumber() {
  static const uint64_t number = RandomSeed();
  return number;
}

// The device of this process with the UUID; -1: it is not visible here.
int DeviceOf(const std::array<uint8_t, 16>& uuid) {
  int count = 0;
  FATHOM_CUDA(cudaGetDeviceCount(&count));
  for (int i = 0; i < count; ++i) {
    cudaDeviceProp properties = {};
    FATHOM_CUDA(cudaGetDeviceProperties(&properties, i));
    if (std::memcmp(properties.uuid.bytes, uuid.data(), uuid.size()) == 0) return i;
  }
  return -1;
}

}  // namespace

PeerComm::PeerComm(const PeerCommOptions& options) : options_(options) {
  group_.layout = LayoutOf(options.sizes);
  group_.rank = options.rank;
  group_.ranks = options.sizes.ranks;
  group_.blocks_max = options.sizes.blocks_max;
}

absl::StatusOr<std::unique_ptr<PeerComm>> PeerComm::Create(const PeerCommOptions& options) {
  const auto& sizes = options.sizes;
  if (!IsValid(sizes) || options.rank < 0 || options.rank >= sizes.ranks || options.hidden < 0 ||
      options.hidden % 8 != 0 || sizes.row_bytes_max != int64_t{options.hidden} * 2) {
    return Invalid(
        "peer memory is for groups of 2 to {} ranks on one host, and a hidden size that is a "
        "multiple of 8; this is rank {} of {}, hidden {}, rows {}",
        device::kCommRanksMax, options.rank, sizes.ranks, options.hidden, sizes.rows_max);
  }
  std::unique_ptr<PeerComm> comm(new PeerComm(options));
  FATHOM_RETURN_IF_ERROR(comm->Allocate());
  return comm;
}

absl::Status PeerComm::Allocate() {
  FATHOM_CUDA(cudaSetDevice(options_.device));
  cudaDeviceProp properties = {};
  FATHOM_CUDA(cudaGetDeviceProperties(&properties, options_.device));
  sms_ = properties.multiProcessorCount;
  sm_ = properties.major * 10 + properties.minor;
  if (options_.sizes.blocks_max > sms_) {
    return Invalid(
        "a comm of {} thread blocks needs as many multiprocessors, the GPU of rank {} has {}: all "
        "thread blocks of a kernel must be on the device at once",
        options_.sizes.blocks_max, options_.rank, sms_);
  }
  FATHOM_CUDA(device::PreloadPushKernels());
  FATHOM_CUDA(device::PreloadOneShotKernels());
  FATHOM_CUDA(device::PreloadTwoShotKernels());
  FATHOM_CUDA(device::PreloadPeerMessages());
  const int64_t bytes = (group_.layout.bytes + kBlockBytes - 1) / kBlockBytes * kBlockBytes;
  void* region = nullptr;
  if (const cudaError_t error = cudaMalloc(&region, bytes); error != cudaSuccess) {
    cudaGetLastError();
    return Exhausted(
        "rank {} cannot allocate the {} bytes of its peer region ({}): use fewer rows in a step "
        "(--max-num-batched-tokens)",
        options_.rank, bytes, cudaGetErrorString(error));
  }
  group_.regions[options_.rank] = static_cast<std::byte*>(region);
  // Memory of an earlier comm has numbers like those of this one.
  FATHOM_CUDA(cudaMemset(region, 0, sizeof(device::PeerRegionHeader)));
  for (const int64_t inbox : group_.layout.inboxes) {
    FATHOM_CUDA(cudaMemset(static_cast<std::byte*>(region) + inbox, 0,
                           options_.sizes.ranks * group_.layout.inbox_stride));
  }
  FATHOM_CUDA(
      cudaHostAlloc(reinterpret_cast<void**>(&words_), sizeof(*words_), cudaHostAllocMapped));
  *words_ = {};
  FATHOM_CUDA(cudaHostGetDevicePointer(reinterpret_cast<void**>(&group_.host), words_, 0));
  FATHOM_CUDA(cudaDeviceSynchronize());
  own_.build = BuildVersion();
  own_.rank = options_.rank;
  own_.dtype = options_.dtype;
  own_.sizes = options_.sizes;
  std::memcpy(own_.device.data(), properties.uuid.bytes, own_.device.size());
  own_.process = ProcessNumber();
  own_.address = reinterpret_cast<uint64_t>(region);
  cudaIpcMemHandle_t handle = {};
  static_assert(sizeof(handle) == sizeof(own_.memory));
  if (const cudaError_t error = cudaIpcGetMemHandle(&handle, region); error != cudaSuccess) {
    cudaGetLastError();
    return FailedPrecondition(
        "the driver cannot share device memory between processes ({}): use NCCL, or one rank",
        cudaGetErrorString(error));
  }
  std::memcpy(own_.memory.data(), &handle, sizeof(handle));
  local_handle_ = EncodePeerHandle(own_);
  return absl::OkStatus();
}

PeerComm::~PeerComm() {
  for (int r = 0; r < device::kCommRanksMax; ++r) {
    if (mapped_[r]) cudaIpcCloseMemHandle(group_.regions[r]);
  }
  cudaFree(group_.regions[options_.rank]);
  cudaFreeHost(words_);
}

absl::Status PeerComm::CheckAccess(const PeerHandle& peer) const {
  if (peer.device == own_.device) return absl::OkStatus();
  const int theirs = DeviceOf(peer.device);
  // A device that CUDA_VISIBLE_DEVICES hides can still be mapped; then Map says if it fails.
  if (theirs < 0) return absl::OkStatus();
  int can = 0;
  FATHOM_CUDA(cudaDeviceCanAccessPeer(&can, options_.device, theirs));
  if (can == 0) {
    return FailedPrecondition(
        "the GPU of rank {} cannot reach the memory of the GPU of rank {} (nvidia-smi topo -p2p r "
        "shows why): use NCCL for this group",
        options_.rank, peer.rank);
  }
  if (peer.process != own_.process) return absl::OkStatus();  // Map enables it.
  const cudaError_t error = cudaDeviceEnablePeerAccess(theirs, 0);
  if (error == cudaSuccess || error == cudaErrorPeerAccessAlreadyEnabled) {
    cudaGetLastError();
    return absl::OkStatus();
  }
  return FailedPrecondition("the GPU of rank {} cannot map the memory of rank {}: {}",
                            options_.rank, peer.rank, cudaGetErrorString(error));
}

absl::Status PeerComm::Map(const PeerHandle& peer) {
  if (peer.process == own_.process) {
    group_.regions[peer.rank] = std::bit_cast<std::byte*>(peer.address);
    return absl::OkStatus();
  }
  cudaIpcMemHandle_t handle = {};
  std::memcpy(&handle, peer.memory.data(), sizeof(handle));
  void* region = nullptr;
  const cudaError_t error = cudaIpcOpenMemHandle(&region, handle, cudaIpcMemLazyEnablePeerAccess);
  if (error != cudaSuccess) {
    cudaGetLastError();
    return FailedPrecondition(
        "rank {} cannot map the region of rank {}: {}; the processes must be on one host, with "
        "/dev of both GPUs and a common IPC namespace (in containers: --ipc=host)",
        options_.rank, peer.rank, cudaGetErrorString(error));
  }
  group_.regions[peer.rank] = static_cast<std::byte*>(region);
  mapped_[peer.rank] = true;
  return absl::OkStatus();
}

absl::Status PeerComm::Open(std::span<const std::string> handles) {
  FATHOM_CHECK(!opened_);
  FATHOM_CUDA(cudaSetDevice(options_.device));
  FATHOM_ASSIGN_OR_RETURN(const std::vector<PeerHandle> all, CheckPeerHandles(handles, own_));
  for (const PeerHandle& peer : all) {
    if (peer.rank == options_.rank) continue;
    FATHOM_RETURN_IF_ERROR(CheckAccess(peer));
    FATHOM_RETURN_IF_ERROR(Map(peer));
  }
  opened_ = true;
  return absl::OkStatus();
}

void* PeerComm::Partial(PartialBuffer buffer) const {
  return group_.regions[group_.rank] + group_.layout.partials[static_cast<int>(buffer)];
}

device::LaunchContext PeerComm::Context(const CommStream& on) const {
  return {on.stream, on.dependent, sms_, sm_};
}

device::AllReduceArgs PeerComm::ArgsOf(const ReduceRows& rows) {
  FATHOM_CHECK(opened_ && rows.rows >= 0 && rows.rows <= options_.sizes.rows_max);
  FATHOM_CHECK(last_buffer_ != static_cast<int>(rows.buffer));
  last_buffer_ = static_cast<int>(rows.buffer);
  return {group_,   last_buffer_, options_.dtype, rows.rows,   options_.hidden,
          rows.sum, rows.x,       rows.y,         rows.weight, rows.eps};
}

absl::Status PeerComm::AllReducePush(const CommStream& on, const ReduceRows& rows) {
  FATHOM_RETURN_IF_ERROR(AsyncError());
  FATHOM_CUDA(device::AllReducePush(Context(on), ArgsOf(rows)));
  ++enqueued_.reduces;
  ++enqueued_.meetings;
  return absl::OkStatus();
}

absl::Status PeerComm::AllReduceOneShot(const CommStream& on, const ReduceRows& rows) {
  FATHOM_RETURN_IF_ERROR(AsyncError());
  FATHOM_CUDA(device::AllReduceOneShot(Context(on), ArgsOf(rows)));
  ++enqueued_.reduces;
  ++enqueued_.meetings;
  return absl::OkStatus();
}

absl::Status PeerComm::AllReduceTwoShot(const CommStream& on, const ReduceRows& rows) {
  FATHOM_RETURN_IF_ERROR(AsyncError());
  const device::AllReduceArgs args = ArgsOf(rows);
  FATHOM_CUDA(device::AllReduceTwoShotSum(Context(on), args));
  FATHOM_CUDA(device::AllReduceTwoShotFinish(Context({on.stream, true}), args));
  ++enqueued_.reduces;
  enqueued_.meetings += 2;
  return absl::OkStatus();
}

absl::Status PeerComm::AllReduce(const CommStream& on, const ReduceRows& rows) {
  const int64_t bytes = int64_t{rows.rows} * options_.hidden * 2;
  const auto way = SelectComm(size(), bytes, {.peer = true, .nccl = false});
  if (way == CommWay::kPush && rows.rows <= options_.sizes.push_rows &&
      device::PushPickConfig(size(), rows.rows, options_.hidden, group_.blocks_max)) {
    return AllReducePush(on, rows);
  }
  if (way == CommWay::kTwoShot) return AllReduceTwoShot(on, rows);
  return AllReduceOneShot(on, rows);
}

absl::Status PeerComm::AllGather(const CommStream& on, const void* mine, void* all, int64_t bytes) {
  FATHOM_RETURN_IF_ERROR(AsyncError());
  FATHOM_CHECK(opened_ && bytes <= options_.sizes.gather_bytes);
  FATHOM_CUDA(device::PeerGather(Context(on), {group_, mine, all, bytes}));
  ++enqueued_.gathers;
  ++enqueued_.meetings;
  return absl::OkStatus();
}

absl::Status PeerComm::ExchangeRows(const CommStream& on, int rows, int64_t row_bytes) {
  FATHOM_RETURN_IF_ERROR(AsyncError());
  FATHOM_CHECK(opened_ && rows * row_bytes <= options_.sizes.exchange_bytes);
  FATHOM_CUDA(device::PeerExchange(Context(on), group_));
  ++enqueued_.gathers;
  ++enqueued_.meetings;
  return absl::OkStatus();
}

absl::Status PeerComm::Send(const CommStream& on, int peer, const void* data, int64_t bytes) {
  FATHOM_RETURN_IF_ERROR(AsyncError());
  FATHOM_CHECK(opened_ && bytes <= options_.sizes.mail_bytes);
  FATHOM_CUDA(device::PeerSend(Context(on), {group_, peer, data, nullptr, bytes}));
  return absl::OkStatus();
}

absl::Status PeerComm::Recv(const CommStream& on, int peer, void* to, int64_t bytes) {
  FATHOM_RETURN_IF_ERROR(AsyncError());
  FATHOM_CHECK(opened_ && bytes <= options_.sizes.mail_bytes);
  FATHOM_CUDA(device::PeerRecv(Context(on), {group_, peer, nullptr, to, bytes}));
  return absl::OkStatus();
}

void PeerComm::Abort() {
  aborted_.store(true);
  __atomic_store_n(&words_->abort, 1u, __ATOMIC_RELEASE);
}

absl::Status PeerComm::AsyncError() const {
  if (!aborted_.load()) return absl::OkStatus();
  return Aborted("the group's comm over peer memory was aborted; the last operation was {}",
                 InWork());
}

std::string PeerComm::InWork() const {
  const uint64_t progress = __atomic_load_n(&words_->progress, __ATOMIC_ACQUIRE);
  return fmt::format("{} {}", NameOf(device::ProgressOp(progress)),
                     device::ProgressNumber(progress));
}

int64_t PeerComm::WaitedUs() const {
  return static_cast<int64_t>(__atomic_load_n(&words_->waited_ns, __ATOMIC_RELAXED) / 1000);
}

CommBegan PeerComm::Began() const {
  const uint64_t progress = __atomic_load_n(&words_->progress, __ATOMIC_ACQUIRE);
  const uint32_t number = device::ProgressNumber(progress);
  switch (device::ProgressOp(progress)) {
    case device::CommOp::kNone:
      break;
    case device::CommOp::kPush:
    case device::CommOp::kOneShot:
    case device::CommOp::kTwoShotSum:
    case device::CommOp::kTwoShotFinish:
      return {CommBegan::Kind::kReduce, number};
    case device::CommOp::kGather:
    case device::CommOp::kExchange:
      return {CommBegan::Kind::kGather, number};
    case device::CommOp::kSend:
    case device::CommOp::kRecv:
      return {CommBegan::Kind::kMessage, 0};
  }
  return {};
}

}  // namespace fathom::worker
