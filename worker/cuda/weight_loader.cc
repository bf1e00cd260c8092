#include "worker/cuda/weight_loader.h"

#include <cuda_runtime_api.h>

#include <array>
#include <atomic>
#include <chrono>
#include <memory>
#include <thread>
#include <vector>

#include "worker/cuda/cuda_check.h"

namespace fathom::worker {
namespace {

// The state that the readers share.
struct Work {
  const WeightPieces* pieces = nullptr;
  std::byte* arena = nullptr;
  int device = 0;
  std::atomic<size_t> next{0};
  std::atomic<bool> stop{false};
};

class Reader {
 public:
  explicit Reader(Work* work) : work_(*work) {}

  // The function of a reader thread.
  void Run() {
    FATHOM_CUDA(cudaSetDevice(work_.device));
    Allocate();
    while (status_.ok() && !work_.stop.load(std::memory_order_relaxed)) {
      const size_t index = work_.next.fetch_add(1, std::memory_order_relaxed);
      if (index >= work_.pieces->pieces().size()) break;
      status_ = Carry(work_.pieces->pieces()[index]);
    }
    if (!status_.ok()) work_.stop.store(true, std::memory_order_relaxed);
    const int64_t begin = LoadTimeUs();
    FATHOM_CUDA(cudaStreamSynchronize(stream_));
    wait_us_ += LoadTimeUs() - begin;
    Free();
  }

  const absl::Status& status() const { return status_; }
  void AddTo(CopyTimes* times) const {
    times->pin_us += pin_us_;
    times->read_us += times_.read_us;
    times->convert_us += times_.convert_us;
    times->wait_us += wait_us_;
  }

 private:
  struct Staging {
    std::byte* data = nullptr;
    cudaEvent_t copied = nullptr;
  };

  void Allocate() {
    const int64_t begin = LoadTimeUs();
    FATHOM_CUDA(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
    for (Staging& staging : staging_) {
      FATHOM_CUDA(cudaHostAlloc(reinterpret_cast<void**>(&staging.data),
                                static_cast<size_t>(work_.pieces->staging_bytes()),
                                cudaHostAllocDefault));
      FATHOM_CUDA(cudaEventCreateWithFlags(&staging.copied, cudaEventDisableTiming));
    }
    scratch_.resize(static_cast<size_t>(work_.pieces->scratch_bytes()));
    pin_us_ = LoadTimeUs() - begin;
  }

  absl::Status Carry(const WeightPiece& piece) {
    Staging& staging = staging_[turn_];
    turn_ = 1 - turn_;
    const int64_t begin = LoadTimeUs();
    FATHOM_CUDA(cudaEventSynchronize(staging.copied));  // Returns at once before the first record.
    wait_us_ += LoadTimeUs() - begin;
    const auto staged = work_.pieces->Read(piece, staging.data, scratch_.data(), &times_);
    if (!staged.ok()) return staged.status();
    const WeightRegion& region = *piece.region;
    std::byte* target = work_.arena + region.offset + piece.first_row * region.row_bytes();
    const std::byte* source = staging.data + staged->offset;
    if (staged->pitch == staged->width) {
      FATHOM_CUDA(cudaMemcpyAsync(target, source, static_cast<size_t>(piece.rows * staged->width),
                                  cudaMemcpyHostToDevice, stream_));
    } else {
      const auto width = static_cast<size_t>(staged->width);
      FATHOM_CUDA(cudaMemcpy2DAsync(target, width, source, static_cast<size_t>(staged->pitch),
                                    width, static_cast<size_t>(piece.rows), cudaMemcpyHostToDevice,
                                    stream_));
    }
    FATHOM_CUDA(cudaEventRecord(staging.copied, stream_));
    return absl::OkStatus();
  }

  void Free() {
    for (Staging& staging : staging_) {
      FATHOM_CUDA(cudaEventDestroy(staging.copied));
      FATHOM_CUDA(cudaFreeHost(staging.data));
    }
    FATHOM_CUDA(cudaStreamDestroy(stream_));
  }

  Work& work_;
  cudaStream_t stream_ = nullptr;
  std::array<Staging, 2> staging_;
  size_t turn_ = 0;
  std::vector<std::byte> scratch_;
  absl::Status status_;
  WeightPieces::Times times_;
  int64_t pin_us_ = 0;
  int64_t wait_us_ = 0;
};

}  // namespace

int64_t LoadTimeUs() {
  return std::chrono::duration_cast<std::chrono::microseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

absl::Status CopyPieces(const WeightPieces& pieces, std::byte* arena, int readers,
                        CopyTimes* times) {
  Work work;
  work.pieces = &pieces;
  work.arena = arena;
  FATHOM_CUDA(cudaGetDevice(&work.device));
  std::vector<std::unique_ptr<Reader>> all;
  std::vector<std::thread> threads;
  for (int i = 0; i < readers; ++i) {
    all.push_back(std::make_unique<Reader>(&work));
    threads.emplace_back(&Reader::Run, all.back().get());
  }
  for (std::thread& thread : threads) thread.join();
  for (const auto& reader : all) {
    if (!reader->status().ok()) return reader->status();
    reader->AddTo(times);
  }
  times->pin_us /= readers;
  times->read_us /= readers;
  times->convert_us /= readers;
  times->wait_us /= readers;
  return absl::OkStatus();
}

}  // namespace fathom::worker
