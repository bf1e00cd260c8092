// worker/cpu/decoder.h: the forward pass of a Llama-like model on the CPU, one rank of a
// tensor-parallel group; layers may differ in their widths. A row is one token of one sequence.
// Decode rows, prompt chunks of any length and many sequences go through the same ops in one batch,
// and a row's logits have the same bits however it was batched (docs/NUMERICS.md). Thread: the
// engine thread; `pool` runs the ops. All memory is allocated by Load, for DecoderLimits.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>

#include "common/status.h"
#include "common/types.h"
#include "kernels/cpu/thread_pool.h"
#include "modeling/spec/rank_model.h"
#include "worker/comm/comm.h"
#include "worker/cpu/kv_cache.h"

namespace fathom::worker {

class Checkpoint;

struct DecoderLimits {
  int32_t step_tokens = 0;     // Rows of one Forward.
  int32_t logits_rows = 0;     // Of those, rows with logits.
  int32_t context_tokens = 0;  // Positions are below it, and below what the KV pool holds.
};

struct ForwardRow {
  TokenId token = 0;
  int32_t position = 0;  // In its sequence, prompt and output counted alike.
  int32_t sequence = 0;  // Index into ForwardBatch::block_tables.
  bool logits = false;
};

// REQUIRES: rows of one sequence have ascending positions without a gap; positions before the first
// are in the cache; block table i covers its rows' positions; no two sequences write one block.
struct ForwardBatch {
  std::span<const ForwardRow> rows;
  std::span<const std::span<const BlockId>> block_tables;
};

class Decoder {
 public:
  // Loads and packs this rank's slices. Errors are the checkpoint's, and INVALID_ARGUMENT for a
  // weight that is not finite. `kv`, `comm`, `pool` and `progress` (may be null; counts layers
  // done) outlive the decoder. REQUIRES: the CPU runs the model (modeling/spec/device_kinds.h), the
  // rank has all of its layers (stages is 1), `kv` has its planes and `comm` its place.
  static absl::StatusOr<std::unique_ptr<Decoder>> Load(const RankModel& model,
                                                       const Checkpoint& checkpoint,
                                                       const DecoderLimits& limits, KvCache* kv,
                                                       Comm* comm, kernels::ThreadPool* pool,
                                                       std::atomic<uint64_t>* progress = nullptr);
  virtual ~Decoder() = default;

  // Writes the rows' keys and values and returns [rows with logits][vocab] in the rows' order, the
  // same on every rank, valid until the next Forward. Logits may be non-finite: the caller checks
  // them per row. Errors: OUT_OF_RANGE for a token, position, sequence or block that does not exist
  // (nothing was written); ABORTED from a collective.
  virtual absl::StatusOr<std::span<const float>> Forward(const ForwardBatch& batch) = 0;

  // Bytes held: packed weights, and working memory for the limits.
  virtual size_t weight_bytes() const = 0;
  virtual size_t work_bytes() const = 0;
};

}  // namespace fathom::worker
