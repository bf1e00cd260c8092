// worker/cpu/decoder.h: the forward pass of a Llama-like model on the CPU, for one rank of a group:
// its share of the layers of its stage. Only the first stage embeds tokens, and only the last one
// makes logits; between two stages a row is its hidden values in fp32, so stages change no bit.
// Layers may have different widths. A row is one token of one sequence.
// Decode rows, prompt chunks of any length and many sequences go through the same ops in one batch,
// and the logits of a row have the same bits in every batch (docs/NUMERICS.md). Thread: the engine
// thread; `pool` runs the ops. Load allocates all memory, for DecoderLimits.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "common/status.h"
#include "common/types.h"
#include "kernels/cpu/thread_pool.h"
#include "modeling/spec/rank_model.h"
#include "worker/comm/comm.h"
#include "worker/cpu/kv_cache.h"
#include "worker/progress.h"

namespace fathom {
class Checkpoint;
}  // namespace fathom

namespace fathom::worker {

struct DecoderLimits {
  int32_t step_tokens = 0;     // Rows of one Forward.
  int32_t logits_rows = 0;     // The rows with logits among them.
  int32_t context_tokens = 0;  // Positions are below it and below the tokens of the KV pool.
};

struct ForwardRow {
  TokenId token = 0;     // Read in the first stage only.
  int32_t position = 0;  // In its sequence, over prompt and output.
  int32_t sequence = 0;  // Index into ForwardBatch::block_tables.
  bool logits = false;
};

// REQUIRES: the rows of one sequence have ascending positions without a gap; earlier positions are
// in the KV cache; block table i covers the positions of its rows; no two sequences write to the
// same block.
struct ForwardBatch {
  std::span<const ForwardRow> rows;
  std::span<const std::span<const BlockId>> block_tables;
  // [rows][hidden]: what the previous stage returned for these rows; empty in the first stage.
  std::span<const float> hidden = {};
};

class Decoder {
 public:
  // Loads and packs the slices of this rank. Errors: those of the checkpoint, and INVALID_ARGUMENT
  // for a weight that is not finite. `kv`, `comm`, `pool` and `progress` (may be null; learns the
  // layer in work and counts the layers done) outlive the decoder. REQUIRES: the CPU can compute
  // the model (modeling/spec/device_kinds.h), `kv` has the planes of the rank, and `comm` its tp
  // rank and size.
  static absl::StatusOr<std::unique_ptr<Decoder>> Load(const RankModel& model,
                                                       const Checkpoint& checkpoint,
                                                       const DecoderLimits& limits, KvCache* kv,
                                                       Comm* comm, kernels::ThreadPool* pool,
                                                       Progress* progress = nullptr);
  virtual ~Decoder() = default;

  // Writes the keys and values of the rows. In the last stage returns the logits [rows with
  // logits][vocab] in the order of the rows, in another stage the hidden values [rows][hidden] of
  // all rows. They are the same on every rank of the stage and valid until the next Forward. They
  // may be non-finite; the caller checks each row. Errors: OUT_OF_RANGE for a token, position,
  // sequence or block that does not exist (nothing was written); ABORTED from a collective.
  virtual absl::StatusOr<std::span<const float>> Forward(const ForwardBatch& batch) = 0;

  virtual int32_t hidden() const = 0;  // The hidden values of a row.
  // Bytes of the packed weights, and of the working memory for the limits.
  virtual size_t weight_bytes() const = 0;
  virtual size_t work_bytes() const = 0;
};

}  // namespace fathom::worker
