#include "kernels/cuda/linear/cublas_table.h"

#include <algorithm>
#include <tuple>
#include <vector>

namespace fathom::kernels::cuda {
namespace {

constexpr DType kBf16 = DType::kBf16;
[[maybe_unused]] constexpr DType kF16 = DType::kF16;

// The first entry belongs to no device, so that the table is never empty.
const CublasEntry kTable[] = {
    {{0, 0, kBf16, 0, 0, false, false}, 0, 0, {}},
#include "kernels/cuda/linear/cublas_table.inc"
};

bool Before(const CublasEntry& a, const CublasEntry& b) {
  return std::tie(a.shape, a.rows_min) < std::tie(b.shape, b.rows_min);
}

}  // namespace

CublasChoice ChooseCublas(std::span<const CublasEntry> table, const CublasShape& shape, int rows) {
  CublasEntry key;
  key.shape = shape;
  key.rows_min = rows;
  // Finds the last entry of the shape that begins at or below `rows`.
  auto after = std::upper_bound(table.begin(), table.end(), key, Before);
  if (after == table.begin() || !((after - 1)->shape == shape)) return {nullptr, rows};
  const CublasEntry& entry = *(after - 1);
  if (rows <= entry.rows_max) return {&entry.algo, rows};
  if (after != table.end() && after->shape == shape) return {nullptr, rows};  // `rows` is in a gap.
  return {&entry.algo, entry.rows_max};
}

std::span<const CublasEntry> CublasTable() {
  static const std::vector<CublasEntry> sorted = [] {
    std::vector<CublasEntry> entries(std::begin(kTable), std::end(kTable));
    std::sort(entries.begin(), entries.end(), Before);
    return entries;
  }();
  return sorted;
}

}  // namespace fathom::kernels::cuda
