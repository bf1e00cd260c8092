// kernels/cuda/rows/row_ops_config.h: the thread blocks of the ops over rows of activations: norms
// (kernels/cuda/rows/rmsnorm.h), rotary embedding and KV write (rope_kv_write.h), silu * mul
// (silu_mul.h) and the embedding (embedding.h). Pure: tested without a GPU. A function returns
// nullopt if the op does not support the shape.
#pragma once

#include <optional>
#include <string>

namespace fathom::kernels::cuda {

struct RowOpConfig {
  int threads = 0;   // Threads of a thread block.
  int blocks_x = 0;  // The grid's x: parts of a row, or rows if a thread block has a whole row.
  int blocks_y = 0;  // The grid's y: rows if a thread block has a part of a row, else 1.
  int variant = 0;   // The instance of the kernel; its meaning is at each function.
  bool operator==(const RowOpConfig&) const = default;
};

inline constexpr int kNormThreads = 128;  // The recipe's lanes; a thread block has one row.
inline constexpr int kRowOpThreads = 256;

// variant: the vectors of 8 elements that a lane keeps in registers, at least as many as the row
// has; 0: any number, which are read twice.
std::optional<RowOpConfig> RmsNormPickConfig(int rows, int width);
// variant: the threads of a head; each has 8 elements and the 8 elements head_dim / 2 later.
std::optional<RowOpConfig> RopeKvWritePickConfig(int rows, int heads, int kv_heads, int head_dim);
// A thread has 8 gates and their 8 ups.
std::optional<RowOpConfig> SiluMulPickConfig(int rows, int ffn);
// A thread block has one row.
std::optional<RowOpConfig> EmbeddingPickConfig(int rows, int hidden);

std::string ToString(const RowOpConfig& config);

}  // namespace fathom::kernels::cuda
