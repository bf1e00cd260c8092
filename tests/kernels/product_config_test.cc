// The tiles of ProductGeneric and the table of compared cuBLASLt algorithms: index arithmetic and
// choices, tested without a GPU.
#include "kernels/cuda/linear/product_config.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <vector>

#include "kernels/cuda/linear/cublas_table.h"

namespace fathom::kernels::cuda {
namespace {

TEST(ProductTile, EachFitsItsThreadsAndMemory) {
  for (const ProductTile tile : kProductTiles) {
    const ProductTileShape s = ShapeOf(tile);
    EXPECT_EQ(s.rows % (16 * s.warps_rows), 0);
    EXPECT_EQ(s.n % (16 * s.warps_n), 0);
    EXPECT_LE(s.shared_bytes(), 99 * 1024) << "sm_86 and sm_89 have no more";
    // The conditions that Loader asserts.
    EXPECT_EQ(s.rows * 8 % s.threads(), 0);
    EXPECT_EQ(s.n * 8 % s.threads(), 0);
    EXPECT_EQ(s.threads() / 8 % 8, 0);
  }
}

TEST(ProductTile, EveryTileIsWalkedOnce) {
  for (const int row_tiles : {1, 2, 15, 16, 17, 40}) {
    for (const int n_tiles : {1, 3, 64}) {
      std::set<std::pair<int, int>> seen;
      for (int i = 0; i < row_tiles * n_tiles; ++i) {
        const ProductTileAt at = TileOfBlock(i, row_tiles, n_tiles);
        ASSERT_TRUE(at.row_tile >= 0 && at.row_tile < row_tiles);
        ASSERT_TRUE(at.n_tile >= 0 && at.n_tile < n_tiles);
        ASSERT_TRUE(seen.emplace(at.row_tile, at.n_tile).second);
      }
    }
  }
}

TEST(ProductTile, TheSwizzleIsAPermutationWithoutBankConflicts) {
  std::set<int> seen;
  for (int row = 0; row < 128; ++row) {
    for (int piece = 0; piece < 8; ++piece) {
      EXPECT_TRUE(seen.insert(ProductSwizzle(row, piece)).second);
      EXPECT_EQ(ProductSwizzle(row, piece) / 128, row);
    }
  }
  for (int row = 0; row < 128; row += 8) {
    for (int piece = 0; piece < 8; ++piece) {
      std::set<int> banks;
      for (int i = 0; i < 8; ++i) banks.insert(ProductSwizzle(row + i, piece) % 128);
      EXPECT_EQ(banks.size(), 8u);
    }
  }
}

TEST(ProductTile, MoreRowsNeverTakeASmallerTileOfRows) {
  for (const int n : {256, 4096, 22016, 102400}) {
    int before = 0;
    for (int rows = 1; rows <= 4096; ++rows) {
      const int tile = ShapeOf(PickProductTile(rows, n, 132)).rows;
      EXPECT_GE(tile, before) << rows << " rows, n " << n;
      before = tile;
    }
  }
}

CublasEntry Entry(int n, int rows_min, int rows_max, uint64_t algo) {
  return {{90, 130100, DType::kBf16, n, 4096, false, false}, rows_min, rows_max, {algo}};
}

TEST(CublasTable, FindsTheRowsOfAShapeAndOfNoOther) {
  const std::vector<CublasEntry> table = {Entry(1024, 1, 64, 1), Entry(4096, 33, 64, 2),
                                          Entry(4096, 65, 128, 3), Entry(4096, 257, 512, 4)};
  const CublasShape shape = table[1].shape;
  const auto algo = [&](const CublasShape& s, int rows) {
    const CublasChoice choice = ChooseCublas(table, s, rows);
    EXPECT_EQ(choice.rows, choice.algo != nullptr ? std::min(rows, 512) : rows);
    return choice.algo == nullptr ? 0 : static_cast<int>((*choice.algo)[0]);
  };
  EXPECT_EQ(algo(shape, 1), 0);
  EXPECT_EQ(algo(shape, 32), 0);
  EXPECT_EQ(algo(shape, 33), 2);
  EXPECT_EQ(algo(shape, 64), 2);
  EXPECT_EQ(algo(shape, 65), 3);
  EXPECT_EQ(algo(shape, 129), 0) << "a gap";
  EXPECT_EQ(algo(shape, 512), 4);
  EXPECT_EQ(algo(shape, 5000), 4) << "in parts of 512";
  std::vector<CublasShape> others(6, shape);
  others[0].sm = 80;
  others[1].version = 130200;
  others[2].dtype = DType::kF16;
  others[3].k = 8192;
  others[4].float_out = true;
  others[5].bias = true;
  for (const CublasShape& other : others) EXPECT_EQ(algo(other, 64), 0);
  EXPECT_EQ(ChooseCublas({}, shape, 64).algo, nullptr);
}

TEST(CublasTable, TheBuiltInOneIsSortedAndDoesNotOverlap) {
  const auto table = CublasTable();
  for (size_t i = 1; i < table.size(); ++i) {
    EXPECT_GT(table[i].rows_min, 0);
    EXPECT_LE(table[i].rows_min, table[i].rows_max);
    ASSERT_LE(table[i - 1].shape, table[i].shape);
    if (table[i - 1].shape == table[i].shape) {
      EXPECT_LT(table[i - 1].rows_max, table[i].rows_min) << table[i].shape.n;
    }
  }
}

}  // namespace
}  // namespace fathom::kernels::cuda
