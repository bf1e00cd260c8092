// kernels/cuda/comm/all_reduce_config.h: the thread blocks of an all-reduce
// (kernels/cuda/comm/all_reduce.h). The choice depends on nothing but the arguments, which are
// equal on all ranks: thread block b of a rank meets thread block b of the others. Pure: tested
// without a GPU. A function returns nullopt if the op does not support the shape.
#pragma once

#include <optional>
#include <string>

namespace fathom::kernels::cuda {

struct AllReduceConfig {
  int blocks = 0;   // Thread blocks; the rows, or parts of a share, are dealt to them in turn.
  int threads = 0;  // Threads of a thread block.
  int kept = 0;     // Vectors of 8 elements that a lane keeps in registers, at least as many as the
                    // row has; 0: any number, which are read twice.
  bool operator==(const AllReduceConfig&) const = default;
};

// A thread block has one row, whose vectors stay in registers. 2, 4 or 8 ranks.
std::optional<AllReduceConfig> PushPickConfig(int ranks, int rows, int width, int blocks_max);
// A thread block sums whole rows, because the norm needs whole rows. One-shot: 2, 4 or 8 ranks.
std::optional<AllReduceConfig> OneShotPickConfig(int ranks, int rows, int width, int blocks_max);
// The first kernel of a two-shot all-reduce: a thread sums single vectors of the rank's share.
std::optional<AllReduceConfig> TwoShotSumPickConfig(int ranks, int rows, int width, int blocks_max);
// The second one: rows as in a one-shot, each read from one rank.
std::optional<AllReduceConfig> TwoShotFinishPickConfig(int ranks, int rows, int width,
                                                       int blocks_max);

std::string ToString(const AllReduceConfig& config);

}  // namespace fathom::kernels::cuda
