// tests/worker/fake_decoder.h: a Decoder whose logits are a hash of all tokens in the blocks of the
// row's block table. A wrong block, position, copy or batch therefore changes the answer. It keeps
// the tokens in a real KvCache. As a stage of a pipeline it passes the tokens on as hidden values.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "worker/comm/comm.h"
#include "worker/cpu/decoder.h"
#include "worker/cpu/kv_cache.h"

namespace fathom::worker {

inline constexpr int32_t kFakeVocab = 40;
// A sequence that contains this token has non-finite logits from there on.
inline constexpr TokenId kPoison = 39;

inline constexpr int32_t kFakeHidden = 3;

// The place of a FakeDecoder in a pipeline.
struct FakeStage {
  bool first = true;
  bool last = true;
  bool poisons = true;  // In this stage the hidden values of a poisoned sequence become non-finite.
};

inline std::vector<float> FakeLogits(std::span<const TokenId> ids) {
  uint64_t hash = 14695981039346656037u;
  bool poisoned = false;
  for (const TokenId id : ids) {
    hash = (hash ^ static_cast<uint64_t>(id + 1)) * 1099511628211u;
    poisoned |= id == kPoison;
  }
  std::vector<float> logits(kFakeVocab);
  for (float& logit : logits) {
    hash = hash * 6364136223846793005u + 1442695040888963407u;
    logit = static_cast<float>(hash >> 40) / 4194304.0f;  // 0 to 4.
  }
  logits[kPoison] = -50.0f;  // Never sampled.
  if (poisoned) logits[0] = std::numeric_limits<float>::quiet_NaN();
  return logits;
}

class FakeDecoder final : public Decoder {
 public:
  // The shape that its KvCache must have.
  static KvShape Shape(int32_t block_tokens, int32_t pool_blocks) {
    return {.layers = {{{"k", 1, kWidth}, {"v", 1, kWidth}}},
            .block_tokens = block_tokens,
            .pool_blocks = pool_blocks};
  }

  FakeDecoder(KvCache* kv, Comm* comm, int32_t logits_rows, const FakeStage& stage = {})
      : kv_(kv), comm_(comm), logits_rows_(logits_rows), stage_(stage) {}

  absl::StatusOr<std::span<const float>> Forward(const ForwardBatch& batch) override {
    std::vector<float> ranks(64, static_cast<float>(comm_->rank() + 1));
    FATHOM_RETURN_IF_ERROR(comm_->AllReduceSum(ranks));
    const auto size = static_cast<float>(comm_->size());
    for (const float sum : ranks) FATHOM_CHECK(sum == size * (size + 1) / 2);
    largest_batch = std::max(largest_batch, std::ssize(batch.rows));
    ++forwards;
    values_.clear();
    FATHOM_CHECK(batch.hidden.size() == (stage_.first ? 0 : batch.rows.size() * kFakeHidden));
    int32_t with_logits = 0;
    for (size_t i = 0; i < batch.rows.size(); ++i) {
      const ForwardRow& row = batch.rows[i];
      const std::span<const float> in =
          stage_.first ? batch.hidden : batch.hidden.subspan(i * kFakeHidden, kFakeHidden);
      const std::span<const BlockId> blocks = batch.block_tables[static_cast<size_t>(row.sequence)];
      *Cell(blocks, row.position) = stage_.first ? static_cast<float>(row.token) : in[0];
      if (row.logits) FATHOM_CHECK(++with_logits <= logits_rows_);
      if (!stage_.last) {
        AddHidden(IdsUpTo(blocks, row.position), in);
      } else if (row.logits) {
        const std::vector<float> logits = FakeLogits(IdsUpTo(blocks, row.position));
        values_.insert(values_.end(), logits.begin(), logits.end());
      }
    }
    return std::span<const float>(values_);
  }
  int32_t hidden() const override { return kFakeHidden; }
  size_t weight_bytes() const override { return 0; }
  size_t work_bytes() const override { return 0; }

  int64_t largest_batch = 0;
  int64_t forwards = 0;

 private:
  static constexpr int32_t kWidth = 16;

  std::vector<TokenId> IdsUpTo(std::span<const BlockId> blocks, int32_t position) {
    std::vector<TokenId> ids;
    for (int32_t i = 0; i <= position; ++i) {
      ids.push_back(static_cast<TokenId>(*Cell(blocks, i)));
    }
    return ids;
  }
  // The hidden values of a row are its token, a value that may become NaN, and a constant.
  void AddHidden(const std::vector<TokenId>& ids, std::span<const float> in) {
    const bool poisoned = stage_.poisons && std::find(ids.begin(), ids.end(), kPoison) != ids.end();
    const float value = stage_.first ? 0 : in[1];
    values_.push_back(static_cast<float>(ids.back()));
    values_.push_back(poisoned ? std::numeric_limits<float>::quiet_NaN() : value);
    values_.push_back(7);
  }
  float* Cell(std::span<const BlockId> blocks, int32_t position) {
    const int32_t block_tokens = kv_->shape().block_tokens;
    const BlockId block = blocks[static_cast<size_t>(position / block_tokens)];
    FATHOM_CHECK(kv_->Contains(block));
    return kv_->Plane(0, 0) + block.value * kv_->BlockFloats(0, 0) +
           position % block_tokens * kWidth;
  }

  KvCache* const kv_;
  Comm* const comm_;
  const int32_t logits_rows_;
  const FakeStage stage_;
  std::vector<float> values_;
};

}  // namespace fathom::worker
