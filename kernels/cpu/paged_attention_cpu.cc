#include "kernels/canon.h"
#include "kernels/cpu/dot_tile.h"
#include "kernels/cpu/kernels.h"

namespace fathom::kernels {
namespace FATHOM_ISA {
namespace {

using canon::kSegmentTokens;
using canon::kSubBlockTokens;

constexpr int kQueriesMax = 4;
constexpr int kHeadDimMax = 256;
constexpr int kGroup = 16;  // Tokens that are contiguous for every block size.
constexpr float kNone = -__builtin_inff();

// Queries that share a kv head, a sequence and the 64-token sub-block of their position. One read
// of keys and values serves all of them.
struct QueryTile {
  int count = 0;
  int32_t position[kQueriesMax];
  const int32_t* blocks = nullptr;
  int64_t kv_head = 0;
  float* y[kQueriesMax];
  alignas(64) float q[kQueriesMax * kHeadDimMax];
  // m, l and o belong to the current segment; all_m, all_l and all_o to all segments before it.
  float m[kQueriesMax], l[kQueriesMax], all_m[kQueriesMax], all_l[kQueriesMax];
  alignas(64) float o[kQueriesMax][kHeadDimMax];
  alignas(64) float all_o[kQueriesMax][kHeadDimMax];
  alignas(64) float s[kQueriesMax][kSubBlockTokens];  // Scores, then weights.
};

FATHOM_SIMD int64_t OffsetOf(const KvPlanes& kv, const QueryTile& tile, int32_t token) {
  const int64_t block = tile.blocks[token / kv.block_tokens];
  return ((block * kv.kv_heads + tile.kv_head) * kv.block_tokens + token % kv.block_tokens) *
         kv.head_dim;
}

// How many tokens of the sub-block at `start` query i attends to.
FATHOM_SIMD int32_t Visible(const QueryTile& tile, int i, int32_t start) {
  const int32_t tokens = tile.position[i] + 1 - start;
  return tokens < kSubBlockTokens ? tokens : kSubBlockTokens;
}

// Computes the scores of all queries for the 16 tokens from `start` + `first`.
template <int kQueries>
FATHOM_SIMD void ScoreGroup(const KvPlanes& kv, QueryTile& tile, int32_t start, int32_t first) {
  constexpr int kCols = kQueries * 8 <= kAccumulatorsMax   ? 8
                        : kQueries * 4 <= kAccumulatorsMax ? 4
                                                           : 2;
  const int64_t row_bytes = int64_t{kv.head_dim} * 4;
  const char* keys = reinterpret_cast<const char*>(kv.keys + OffsetOf(kv, tile, start + first));
  float sums[(kQueries * kCols + 7) / 8 * 8];
  for (int t = 0; t < kGroup; t += kCols) {
    DotTile<DType::kF32, kQueries, kCols>(tile.q, kv.head_dim, keys + t * row_bytes, row_bytes,
                                          kStep * 4, kv.head_dim, tile.q, sums);
    for (int i = 0; i < kQueries; ++i) {
      for (int c = 0; c < kCols; ++c) tile.s[i][first + t + c] = sums[i * kCols + c];
    }
  }
}

// Adds tokens [begin, end) of the sub-block to o and l of queries [first, first + kQueries).
template <int kQueries, int kVecs>
void AddValues(const KvPlanes& kv, QueryTile& tile, int first, int32_t start, int32_t begin,
               int32_t end) {
  float l[kQueries] = {};
  for (int32_t dim = 0; dim < kv.head_dim; dim += kVecs * kVecFloats) {
    Vec o[kQueries][kVecs];
    for (int i = 0; i < kQueries; ++i) {
      l[i] = tile.l[first + i];  // Each part of the dimensions computes the same sum again.
      for (int v = 0; v < kVecs; ++v) o[i][v] = Load(&tile.o[first + i][dim + v * kVecFloats]);
    }
    for (int32_t t = begin; t < end;) {
      const float* values = kv.values + OffsetOf(kv, tile, start + t) + dim;
      const int32_t group_end = t / kGroup * kGroup + kGroup;
      const int32_t stop = group_end < end ? group_end : end;
      for (; t < stop; ++t, values += kv.head_dim) {
        for (int i = 0; i < kQueries; ++i) {
          const Vec p = Broadcast(tile.s[first + i][t]);
          for (int v = 0; v < kVecs; ++v) {
            o[i][v] = Fma(p, Load(values + v * kVecFloats), o[i][v]);
          }
          l[i] += tile.s[first + i][t];
        }
      }
    }
    for (int i = 0; i < kQueries; ++i) {
      for (int v = 0; v < kVecs; ++v) Store(&tile.o[first + i][dim + v * kVecFloats], o[i][v]);
    }
  }
  for (int i = 0; i < kQueries; ++i) tile.l[first + i] = l[i];
}

// REQUIRES: the registers hold kQueries * kVecs sums; head_dim is a multiple of 32.
template <int kQueries>
void AddValuesOf(const KvPlanes& kv, QueryTile& tile, int first, int32_t start, int32_t begin,
                 int32_t end) {
  constexpr bool kFour = kHalves == 1 || kQueries <= 2;
  if (kFour && kv.head_dim % (4 * kVecFloats) == 0) {
    AddValues<kQueries, kFour ? 4 : 2>(kv, tile, first, start, begin, end);
  } else {
    AddValues<kQueries, 2>(kv, tile, first, start, begin, end);
  }
}

// Turns scores into weights: updates the running maximum, rescales above the threshold, and
// computes 2^((s - m) scale).
FATHOM_SIMD void Weigh(const KvPlanes& kv, QueryTile& tile, int i, int32_t visible, float scale) {
  float* s = tile.s[i];
  const int32_t padded = (visible + kGroup - 1) / kGroup * kGroup;
  for (int32_t t = visible; t < padded; ++t) s[t] = kNone;
  float lanes[kGroup];
  for (int j = 0; j < kGroup; ++j) lanes[j] = s[j];
  for (int32_t t = kGroup; t < padded; t += kGroup) {
    for (int j = 0; j < kGroup; ++j) lanes[j] = canon::Max(lanes[j], s[t + j]);
  }
  float x = lanes[0];
  for (int j = 1; j < kGroup; ++j) x = canon::Max(x, lanes[j]);
  if (tile.m[i] == kNone) {
    tile.m[i] = x;
  } else if ((x - tile.m[i]) * scale > canon::kRescaleThreshold) {
    const float factor = canon::Ex2((tile.m[i] - x) * scale);
    tile.l[i] *= factor;
    for (int32_t d = 0; d < kv.head_dim; ++d) tile.o[i][d] *= factor;
    tile.m[i] = x;
  }
  const float n = tile.m[i] * scale;
  for (int32_t t = 0; t < padded; t += kGroup) {
    for (int j = 0; j < kGroup; ++j) s[t + j] = canon::Ex2(canon::Fma(s[t + j], scale, -n));
  }
}

template <int kQueries>
void SubBlock(const KvPlanes& kv, QueryTile& tile, int32_t start, float scale) {
  // Positions ascend in a tile, so the first query attends to the fewest tokens.
  const int32_t least = Visible(tile, 0, start);
  const int32_t most = Visible(tile, kQueries - 1, start);
  for (int32_t first = 0; first < most; first += kGroup) {
    ScoreGroup<kQueries>(kv, tile, start, first);
  }
  for (int i = 0; i < kQueries; ++i) Weigh(kv, tile, i, Visible(tile, i, start), scale);
  AddValuesOf<kQueries>(kv, tile, 0, start, 0, least);
  for (int i = 0; i < kQueries; ++i) {
    const int32_t visible = Visible(tile, i, start);
    if (visible > least) AddValuesOf<1>(kv, tile, i, start, least, visible);
  }
}

FATHOM_SIMD void Merge(const KvPlanes& kv, QueryTile& tile, int i, float scale) {
  const float m = canon::Max(tile.all_m[i], tile.m[i]);
  const float fa = canon::Ex2((tile.all_m[i] - m) * scale);
  const float fb = canon::Ex2((tile.m[i] - m) * scale);
  tile.all_l[i] = tile.all_l[i] * fa + tile.l[i] * fb;
  for (int32_t d = 0; d < kv.head_dim; ++d) {
    tile.all_o[i][d] = tile.all_o[i][d] * fa + tile.o[i][d] * fb;
  }
  tile.all_m[i] = m;
}

template <int kQueries>
void Attend(const KvPlanes& kv, QueryTile& tile) {
  const float scale = canon::AttentionScale(kv.head_dim);
  const int32_t last = tile.position[kQueries - 1];
  for (int i = 0; i < kQueries; ++i) {
    tile.all_m[i] = kNone;
    tile.all_l[i] = 0;
    for (int32_t d = 0; d < kv.head_dim; ++d) tile.all_o[i][d] = 0;
  }
  for (int32_t segment = 0; segment <= last; segment += kSegmentTokens) {
    for (int i = 0; i < kQueries; ++i) {
      tile.m[i] = kNone;
      tile.l[i] = 0;
      for (int32_t d = 0; d < kv.head_dim; ++d) tile.o[i][d] = 0;
    }
    const int32_t end = segment + kSegmentTokens;
    for (int32_t start = segment; start < end && start <= last; start += kSubBlockTokens) {
      SubBlock<kQueries>(kv, tile, start, scale);
    }
    for (int i = 0; i < kQueries; ++i) Merge(kv, tile, i, scale);
  }
  for (int i = 0; i < kQueries; ++i) {
    for (int32_t d = 0; d < kv.head_dim; ++d) tile.y[i][d] = tile.all_o[i][d] / tile.all_l[i];
  }
}

void AttendTile(const KvPlanes& kv, QueryTile& tile) {
  switch (tile.count) {
    case 1:
      return Attend<1>(kv, tile);
    case 2:
      return Attend<2>(kv, tile);
    case 3:
      return Attend<3>(kv, tile);
    case 4:
      return Attend<4>(kv, tile);
  }
}

// How many rows, starting at `row`, make one tile: rows of one sequence with consecutive positions
// inside one sub-block.
int64_t RowsOfTile(const PagedAttentionArgs& args, int64_t row, int64_t end, int64_t most) {
  int64_t count = 1;
  const SequenceRow& first = args.rows[row];
  while (count < most && row + count < end) {
    const SequenceRow& next = args.rows[row + count];
    if (next.blocks != first.blocks || next.position != first.position + count ||
        next.position / kSubBlockTokens != first.position / kSubBlockTokens) {
      break;
    }
    ++count;
  }
  return count;
}

// Fills a tile with query heads [head, head + heads) of one kv head of rows [row, row + rows).
// REQUIRES: rows * heads <= kQueriesMax.
void FillTile(const PagedAttentionArgs& args, int64_t row, int64_t rows, int64_t kv_head,
              int64_t head, int64_t heads, QueryTile& tile) {
  const int32_t dim = args.planes.head_dim;
  tile.count = 0;
  tile.blocks = args.rows[row].blocks;
  tile.kv_head = kv_head;
  for (int64_t r = row; r < row + rows; ++r) {
    for (int64_t h = head; h < head + heads; ++h) {
      const float* q = args.q + r * args.q_stride + h * dim;
      for (int32_t d = 0; d < dim; ++d) tile.q[tile.count * dim + d] = q[d];
      tile.position[tile.count] = args.rows[r].position;
      tile.y[tile.count] = args.y + r * args.y_stride + h * dim;
      ++tile.count;
    }
  }
}

}  // namespace

void PagedAttention(const PagedAttentionArgs& args, int64_t begin, int64_t end) {
  const int64_t group = args.heads / args.planes.kv_heads;
  const int64_t rows_most = group >= kQueriesMax ? 1 : kQueriesMax / group;
  QueryTile tile;
  for (int64_t unit = begin; unit < end;) {
    const int64_t kv_head = unit / args.row_count;
    const int64_t row = unit % args.row_count;
    const int64_t row_end =
        row + (end - unit) < args.row_count ? row + (end - unit) : args.row_count;
    const int64_t rows = RowsOfTile(args, row, row_end, rows_most);
    for (int64_t first = 0; first < group; first += kQueriesMax) {
      const int64_t heads = group - first < kQueriesMax ? group - first : kQueriesMax;
      FillTile(args, row, rows, kv_head, kv_head * group + first, heads, tile);
      AttendTile(args.planes, tile);
    }
    unit += rows;
  }
}

}  // namespace FATHOM_ISA
}  // namespace fathom::kernels
