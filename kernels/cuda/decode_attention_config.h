// kernels/cuda/decode_attention_config.h: which instance of decode attention
// (kernels/cuda/decode_attention.h) a model's heads take, and where what lies in a thread block's
// shared memory. Pure: tested without a GPU.
#pragma once

#include <optional>
#include <string>

namespace fathom::kernels::cuda {

struct DecodeAttentionConfig {
  int head_dim = 0;
  int columns = 0;  // Of a product: query heads of a kv head, filled up to 8 or 16.
  int stages = 0;   // Pages of keys and values under way.
  int shared_bytes = 0;
  bool operator==(const DecodeAttentionConfig&) const = default;
};

inline constexpr int kDecodeThreads = 128;
// H100, TB/s with 2 / 3: MHA 32 x 4096 3.051 / 3.048, GQA 56/8 2.747 / 2.712.
inline constexpr int kDecodeStages = 2;
// Elements of a row of weights in shared memory: 64 tokens, and 8 that keep columns in banks of
// their own.
inline constexpr int kDecodeWeightStride = 64 + 8;

// A ring of pages (keys, values), the queries, maxima of the four warps twice, the weights.
constexpr int DecodeStageBytes(int head_dim) { return 2 * 64 * head_dim * 2; }
constexpr int DecodeQueryAt(int head_dim) { return kDecodeStages * DecodeStageBytes(head_dim); }
constexpr int DecodeMaximaAt(int head_dim, int columns) {
  return DecodeQueryAt(head_dim) + columns * head_dim * 2;
}
constexpr int DecodeWeightsAt(int head_dim, int columns) {
  return DecodeMaximaAt(head_dim, columns) + 2 * 4 * columns * 4;
}
constexpr int DecodeSharedBytes(int head_dim, int columns) {
  return DecodeWeightsAt(head_dim, columns) + columns * kDecodeWeightStride * 2;
}

// nullopt: no kernel for these heads.
std::optional<DecodeAttentionConfig> DecodeAttentionPickConfig(int heads, int kv_heads,
                                                               int head_dim);
std::string ToString(const DecodeAttentionConfig& config);

}  // namespace fathom::kernels::cuda
