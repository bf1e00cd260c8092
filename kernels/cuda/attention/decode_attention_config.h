// kernels/cuda/attention/decode_attention_config.h: which instance of decode attention
// (kernels/cuda/attention/decode_attention.h) a model's heads use, and the layout of a thread
// block's shared memory. Pure: tested without a GPU.
#pragma once

#include <optional>
#include <string>

namespace fathom::kernels::cuda {

struct DecodeAttentionConfig {
  int head_dim = 0;
  int columns = 0;  // Of the GEMMs: the query heads of a kv head, filled up to 8 or 16.
  int halves = 0;   // Halves in shared memory; a half is a page of keys or of values.
  int shared_bytes = 0;
  bool operator==(const DecodeAttentionConfig&) const = default;
};

inline constexpr int kDecodeThreads = 128;
// With 4 halves, three thread blocks fit on a multiprocessor of Hopper. Measured on an H200, in us,
// with 3 / 4 / 6 halves (4, 3, 2 thread blocks): GQA 56/8 of 32 x 4096 tokens 131.0 / 131.7 /
// 133.2, MHA 472 / 473 / 479, one row of 290 tokens 5.9 / 5.4 / 5.7.
inline constexpr int kDecodeHalves = 4;
// Elements of a row of weights in shared memory: 64 tokens and 8 elements of padding, which put the
// columns into different banks.
inline constexpr int kDecodeWeightStride = 64 + 8;

// The layout: the ring of halves, the maxima of the four warps, the weights.
constexpr int DecodeHalfBytes(int head_dim) { return 64 * head_dim * 2; }
constexpr int DecodeMaximaAt(int head_dim) { return kDecodeHalves * DecodeHalfBytes(head_dim); }
constexpr int DecodeWeightsAt(int head_dim, int columns) {
  return DecodeMaximaAt(head_dim) + 4 * columns * 4;
}
constexpr int DecodeSharedBytes(int head_dim, int columns) {
  return DecodeWeightsAt(head_dim, columns) + columns * kDecodeWeightStride * 2;
}

// nullopt: there is no kernel for these heads.
std::optional<DecodeAttentionConfig> DecodeAttentionPickConfig(int heads, int kv_heads,
                                                               int head_dim);
std::string ToString(const DecodeAttentionConfig& config);

}  // namespace fathom::kernels::cuda
