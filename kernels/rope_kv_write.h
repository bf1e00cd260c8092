// kernels/rope_kv_write.h: rotates q in place and writes the rotated k, and v, into the KV cache.
// It uses the rotate-half form: element i of a head is paired with element i + head_dim / 2. q:
// [rows][heads][head_dim]; k, v: [rows][kv_heads][head_dim]; rows are `stride` floats apart in all
// three. Planes: [block][kv_head][token][head_dim]. The token of row r at position t lies in block
// blocks[t / block_tokens].
// REQUIRES: every position is below the length of the cos and sin tables and inside its block
// table; no two rows write the same place.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/cpu/thread_pool.h"

namespace fathom::kernels {

// One row of a batch: the token at the absolute position `position` of a sequence, and the block
// table of the sequence.
struct SequenceRow {
  const int32_t* blocks = nullptr;
  int32_t position = 0;
};

// The keys and the values of one layer on one rank.
struct KvPlanes {
  float* keys = nullptr;
  float* values = nullptr;
  int32_t kv_heads = 0;
  int32_t head_dim = 0;
  int32_t block_tokens = 0;  // A multiple of 16.
};

// The inverse frequencies and their scaling, as the model's configuration gives them.
struct RopeSpec {
  enum class Scaling { kNone, kLinear, kLlama3, kYarn };
  int32_t head_dim = 0;
  double theta = 10000.0;
  Scaling scaling = Scaling::kNone;
  double factor = 1.0;
  double low_freq_factor = 1.0;
  double high_freq_factor = 4.0;
  double original_context = 0;
  // kYarn: a pair that turns more than beta_fast times in the original context keeps its frequency.
  // A pair that turns less than beta_slow times has its frequency divided by `factor`. Between the
  // two limits the frequencies are blended. `truncate` rounds both limits outwards to whole pairs.
  double beta_fast = 32.0;
  double beta_slow = 1.0;
  bool truncate = true;
  double attention_factor = 1.0;  // Multiplies every cos and sin.
};

// cos and sin: [positions][head_dim / 2], multiplied by attention_factor, computed in double and
// stored in fp32.
struct RopeTable {
  std::vector<float> cos, sin;
};
RopeTable MakeRopeTable(const RopeSpec& spec, int64_t positions);

struct RopeKvWriteArgs {
  float* q = nullptr;
  const float* k = nullptr;
  const float* v = nullptr;
  int64_t stride = 0;
  int32_t heads = 0;
  const float* cos = nullptr;
  const float* sin = nullptr;
  const SequenceRow* rows = nullptr;
  int64_t row_count = 0;
  KvPlanes planes;
};

void RopeKvWriteRef(const RopeKvWriteArgs& args);
void RopeKvWriteCpu(const RopeKvWriteArgs& args, ThreadPool& pool);

}  // namespace fathom::kernels
