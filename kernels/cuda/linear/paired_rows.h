// kernels/cuda/linear/paired_rows.h: the order of weight rows in which one thread holds both halves
// of a pair. In the tensor core's result a thread has rows r and r + 8 of a tile of 16. So rows
// that belong together are stored 8 apart: element i of a head and element i + head_dim / 2
// (rotary), gate j and up j (silu * mul). Rows are moved when weights are loaded; this changes no
// bit of a GEMM. Pure.
#pragma once

#include <cstdint>

namespace fathom::kernels::cuda {

// The stored matrix has `pairs` first halves and `pairs` second halves. Its row `row` is row
// PairedSource(row, pairs) of [first; second]. REQUIRES: pairs % 8 == 0, 0 <= row < 2 * pairs.
constexpr int64_t PairedSource(int64_t row, int64_t pairs) {
  const int64_t tile = row / 16, in_tile = row % 16;
  return in_tile < 8 ? tile * 8 + in_tile : pairs + tile * 8 + in_tile - 8;
}
// The stored row of row `source` of [first; second].
constexpr int64_t PairedRow(int64_t source, int64_t pairs) {
  const int64_t half = source / pairs, index = source % pairs;
  return index / 8 * 16 + half * 8 + index % 8;
}
// gate_up [2 ffn, hidden] is one pairing with pairs = ffn. In qkv [(heads + 2 kv_heads) head_dim,
// hidden], each q head and each k head is a pairing of its own with pairs = head_dim / 2, and v
// heads keep the order of the checkpoint. A bias is stored in the order of its rows.

}  // namespace fathom::kernels::cuda
