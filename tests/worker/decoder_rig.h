// tests/worker/decoder_rig.h: loads a model folder as the ranks of one group in this process, each
// rank as a thread, and runs a script of a decoder's test on every rank.
#pragma once

#include <condition_variable>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <thread>
#include <utility>
#include <vector>

#include "kernels/cpu/thread_pool.h"
#include "modeling/checkpoint/checkpoint.h"
#include "worker/comm/comm.h"
#include "worker/cpu/decoder.h"
#include "worker/cpu/kv_cache.h"

namespace fathom::worker {

// The collectives of ranks that are threads of one process.
class ThreadRanks {
 public:
  explicit ThreadRanks(int size) : size_(size), spans_(static_cast<size_t>(size)) {}

  // Waits for every rank.
  void Meet();
  // Waits until every rank has given its values, which stay readable until the next Meet.
  std::span<const std::span<const float>> Share(int rank, std::span<const float> mine);

 private:
  const int size_;
  std::mutex mutex_;
  std::condition_variable changed_;
  int waiting_ = 0;
  int64_t round_ = 0;
  std::vector<std::span<const float>> spans_;
};

class ThreadComm final : public Comm {
 public:
  ThreadComm(ThreadRanks* ranks, int rank, int size) : ranks_(ranks), rank_(rank), size_(size) {}
  int rank() const override { return rank_; }
  int size() const override { return size_; }
  absl::Status AllReduceSum(std::span<float> values) override;
  absl::Status AllGather(std::span<const float> mine, std::span<float> all) override;

 private:
  ThreadRanks* const ranks_;
  const int rank_;
  const int size_;
};

struct RigOptions {
  int tp = 1;
  int stages = 1;
  int threads = 1;
  int32_t block_tokens = 16;
};

// The stages of a pipeline, which compute each batch one after the other in one thread.
class StagedDecoder final : public Decoder {
 public:
  struct Stage {
    std::unique_ptr<KvCache> kv;
    std::unique_ptr<Decoder> decoder;
  };
  // REQUIRES: they are in order, and at least two.
  explicit StagedDecoder(std::vector<Stage> stages) : stages_(std::move(stages)) {}
  absl::StatusOr<std::span<const float>> Forward(const ForwardBatch& batch) override;
  int32_t hidden() const override { return stages_.front().decoder->hidden(); }
  size_t weight_bytes() const override;
  size_t work_bytes() const override;

 private:
  std::vector<Stage> stages_;
};

// The ranks of all stages with one tp rank, for a script. `kv` is null if there are several stages.
struct Rank {
  std::unique_ptr<Comm> comm;
  std::unique_ptr<kernels::ThreadPool> pool;
  std::unique_ptr<KvCache> kv;
  std::unique_ptr<Decoder> decoder;
};

// A sequence with its blocks. The `first_block` values of two sequences must be far enough apart
// for the blocks of the first one.
struct Sequence {
  Sequence(int32_t first_block, int32_t blocks);
  std::vector<BlockId> table;
  int32_t length = 0;
};

// Loads `folder` and calls `script(rank)` in a thread per rank. Load errors fail the test.
void RunRanks(const std::filesystem::path& folder, const RigOptions& options,
              const std::function<void(Rank&)>& script);

// Computes `ids` as one chunk and returns the logits of the ids whose index is in `wanted` (by
// default all): [ids][vocab].
std::vector<float> Feed(
    Rank& rank, Sequence& sequence, std::span<const TokenId> ids,
    const std::function<bool(size_t)>& wanted = [](size_t) { return true; });
// Computes `ids` in chunks of `chunk` tokens; otherwise as Feed.
std::vector<float> FeedInChunks(Rank& rank, Sequence& sequence, std::span<const TokenId> ids,
                                size_t chunk);
TokenId Best(std::span<const float> logits);

}  // namespace fathom::worker
