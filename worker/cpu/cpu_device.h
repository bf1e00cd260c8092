// worker/cpu/cpu_device.h: the CPU as a device of the engine (worker/engine/device.h): one step at
// a time, computed inside of Submit. If a step has more rows with logits than one forward pass
// takes, the device runs several passes; a chunk that is cut between two passes gives the same bits
// as a whole one (docs/NUMERICS.md). With stages, Submit also waits for the other stages; every
// stage runs the same passes. Thread: the engine thread owns it and everything that it points to.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "common/clock.h"
#include "common/engine_limits.h"
#include "kernels/sample.h"
#include "worker/cpu/decoder.h"
#include "worker/cpu/kv_cache.h"
#include "worker/cpu/stage_stream.h"
#include "worker/engine/device.h"

namespace fathom::worker {

// What the device works with; the pointers outlive it.
struct CpuDeviceParts {
  Decoder* decoder = nullptr;
  KvCache* kv = nullptr;
  EpochComm* comm = nullptr;
  const Clock* clock = nullptr;
  EngineLimits limits;
  int32_t logits_rows = 0;        // Rows with logits of one Forward, at most.
  KvCache* swap_space = nullptr;  // With limits.host_blocks; its block i is block i of the space.
  Proposer* proposer = nullptr;   // Null: no drafts.
  const GrammarEngine* grammars = nullptr;  // Null: no guided output.
};

// The tokens of a sequence, each once, with the counts that the penalties of the sampler need.
class SeenTokens {
 public:
  // `id` is the next token of the sequence; `output`: it was generated.
  void Add(TokenId id, bool output);
  std::span<const kernels::SeenToken> tokens() const { return tokens_; }

 private:
  std::vector<kernels::SeenToken> tokens_;
  absl::flat_hash_map<TokenId, size_t> index_;  // Into tokens_.
};

class CpuDevice final : public Device {
 public:
  // REQUIRES: decoder, KV cache and comm were made for the same rank and for these limits. The
  // device takes its stage from comm.
  explicit CpuDevice(const CpuDeviceParts& parts);

  Proposer* proposer() override { return parts_.proposer; }
  const GrammarEngine* grammars() const override { return parts_.grammars; }
  int steps_in_flight() const override { return 1; }
  EpochComm* comm() override { return parts_.comm; }
  absl::Status Submit(const StepBatch& batch) override;
  StepOutputs Collect() override { return outputs_; }
  std::string NonFiniteDetail(int32_t, int32_t) const override { return {}; }
  void Drain() override {}

 private:
  // What a device keeps for a slot (worker/engine/device.h).
  struct SlotState {
    SeenTokens seen;  // Empty unless a penalty is on.
    kernels::ThinkingSlot thinking;
    TokenId sampled = 0;
    int32_t kept = 0;  // Samples of the step's row that were kept (ChunkWork::drafts).
    RowFault fault = RowFault::kNone;
    StepId since;  // The step that admitted the sequence; samples of earlier steps are not its own.
  };

  absl::Status CopyBlocks(std::span<const BlockCopy> copies);
  void Admit(StepId step, const AdmitWork& admit);
  // In the first stage: takes the samples that the step needs, and those that have surely come.
  absl::Status TakeSamples(const StepBatch& batch);
  // Which chunks are computed: decided in the first stage, received in the others, and sent on.
  absl::Status ChooseChunks(const StepBatch& batch);
  // In the last stage: sends what the first one needs to know of the step.
  absl::Status SendSamples(const StepBatch& batch);
  void PlanRows(const StepBatch& batch);
  // The forward pass of rows [begin, end), and the outputs of its logits.
  absl::Status Compute(const StepBatch& batch, size_t begin, size_t end);
  void UseHidden(const ChunkWork& chunk, int32_t position, std::span<const float> hidden);
  void UseLogits(const ChunkWork& chunk, int32_t position, std::span<const float> logits);
  // Whether sample `index` of the chunk is of the sequence: all drafts before it are kept.
  bool Keeps(const ChunkWork& chunk, int32_t index, std::span<const float> logits);
  TokenId Sample(const ChunkWork& chunk, int32_t position, std::span<const float> logits);
  void Score(std::span<const float> logits, int32_t top, int32_t output);
  const EpochComm& links() const { return *parts_.comm; }
  bool has_stages() const { return links().stages() > 1; }
  SlotState& StateOf(SlotId id) { return states_[static_cast<size_t>(id.value)]; }

  const CpuDeviceParts parts_;
  StageStream stages_;
  MaskSource* masks_ = nullptr;    // Of the current step.
  std::vector<SlotState> states_;  // [slots + 1]
  StepId next_samples_;            // In the first stage: the step whose samples come next.
  // Of the current step; members so that their memory is reused.
  std::vector<uint8_t> computed_;  // One for each chunk of the batch.
  std::vector<float> hidden_;      // [rows of a pass][hidden], received.
  std::vector<SlotSample> samples_;
  std::vector<ForwardRow> rows_;
  std::vector<std::span<const BlockId>> block_tables_;  // One for each chunk of the batch.
  std::vector<RowOutput> row_outputs_;
  std::vector<TokenId> top_ids_;     // [outputs][kTopLogprobsMax]
  std::vector<float> top_logprobs_;  // [outputs][kTopLogprobsMax]
  kernels::SampleScratch scratch_;
  StepOutputs outputs_;
};

}  // namespace fathom::worker
