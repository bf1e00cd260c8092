// kernels/cuda/rows/row_ops_config.h: thread blocks of the ops that go over rows of activations:
// norms (kernels/cuda/rows/rmsnorm.h), rotary embedding and KV write (rope_kv_write.h), silu * mul
// (silu_mul.h) and the embedding's gather (embedding.h). Pure: tested without a GPU. nullopt: not a
// shape for the op.
#pragma once

#include <optional>
#include <string>

namespace fathom::kernels::cuda {

struct RowOpConfig {
  int threads = 0;   // Of a thread block.
  int blocks_x = 0;  // Of the grid: parts of a row, or rows where a block has a whole one.
  int blocks_y = 0;  // Rows where a block has a part of one, else 1.
  int variant = 0;   // Which instance of the kernel, as the op's function says.
  bool operator==(const RowOpConfig&) const = default;
};

inline constexpr int kNormThreads = 128;  // The recipe's lanes: a thread block has a row.
inline constexpr int kRowOpThreads = 256;

// variant: vectors of 8 elements that a lane keeps in registers, at least the row's; 0: any number,
// read twice.
std::optional<RowOpConfig> RmsNormPickConfig(int rows, int width);
// variant: threads of a head, which have 8 elements and those half a head further on.
std::optional<RowOpConfig> RopeKvWritePickConfig(int rows, int heads, int kv_heads, int head_dim);
// A thread has 8 gates and their 8 ups.
std::optional<RowOpConfig> SiluMulPickConfig(int rows, int ffn);
// A thread block has a row.
std::optional<RowOpConfig> EmbeddingPickConfig(int rows, int hidden);

std::string ToString(const RowOpConfig& config);

}  // namespace fathom::kernels::cuda
