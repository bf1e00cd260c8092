// kernels/rope_kv_write.h: rotates q in place and writes rotated k, and v, into the cache.
// Rotate-half form: of a head, element i is paired with i + head_dim / 2. q:
// [rows][heads][head_dim]; k, v: [rows][kv_heads][head_dim]; rows are `stride` floats apart in all
// three. Planes: [block][kv_head][token][head_dim]; row r's token t = position lies in block
// blocks[t / block_tokens]. REQUIRES: positions are below the tables' length and inside the block
// tables; no two rows write one place.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/cpu/thread_pool.h"

namespace fathom::kernels {

// One row of a batch: a token at an absolute position of a sequence whose blocks are given.
struct SequenceRow {
  const int32_t* blocks = nullptr;
  int32_t position = 0;
};

// One rank's K and V of a layer.
struct KvPlanes {
  float* keys = nullptr;
  float* values = nullptr;
  int32_t kv_heads = 0;
  int32_t head_dim = 0;
  int32_t block_tokens = 0;  // A multiple of 16.
};

// Inverse frequencies and their scaling, as a model's configuration gives them.
struct RopeSpec {
  enum class Scaling { kNone, kLinear, kLlama3, kYarn };
  int32_t head_dim = 0;
  double theta = 10000.0;
  Scaling scaling = Scaling::kNone;
  double factor = 1.0;
  double low_freq_factor = 1.0;
  double high_freq_factor = 4.0;
  double original_context = 0;
  // kYarn: pairs that turn more than beta_fast times in the original context keep their frequency,
  // those that turn less than beta_slow times have it divided by `factor`, and those between are
  // blended; `truncate` rounds both ends of the blend to whole pairs, outwards.
  double beta_fast = 32.0;
  double beta_slow = 1.0;
  bool truncate = true;
  double attention_factor = 1.0;  // Of every cos and sin.
};

// cos and sin of [positions][head_dim / 2] times attention_factor, computed in double, stored in
// fp32.
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
