// kernels/cuda/comm/all_reduce.h: the sum of the ranks' partial rows over peer memory, with the
// residual and the norm that follow it. docs/NUMERICS.md, "All-reduce": partials are rounded to the
// model's type; sum = round(((r0 + r1) + r2) + ...) in fp32; then x = round(x + sum), then y =
// RMSNorm(x) * w (kernels/cuda/rows/rmsnorm.h with `addend` = sum: equal bits). A row has the same
// bits for any number of rows, and by any way:
//   push: each rank writes its partials to all peers and sums what they wrote. One kernel; nothing
//     is read over a link, but twice the bytes cross it. For few rows.
//   one-shot: each rank reads all partials and sums all rows. One kernel, one meeting.
//   two-shot: each rank sums its share of the rows (ShareOf), then reads the sums of all. Two
//     kernels, one meeting each: two launches are cheap beside a message that takes the way, and
//     the end of a kernel is the barrier between a rank's own thread blocks.
//
// A rank's partial is in its own region, in buffer A or B. Consecutive all-reduces use the buffers
// in turn (attention A, MLP B), so that one meeting for each is enough. Proof for a write of A
// after an all-reduce of B: the writer's kernel begins after this rank's all-reduce of B has ended.
// That one ended after a meeting, at which every peer had ended its all-reduce of A, and with it
// its reads of this rank's A. The same holds for a peer's inbox A, which this rank writes after it
// has received what the peer pushed for B. The share of sums of a two-shot is written after the
// meeting of its first kernel, at which every peer has ended the second kernel of the previous one.
#pragma once

#include <cstdint>

#include "kernels/cuda/base/launch.h"
#include "kernels/cuda/comm/peer_region.h"

namespace fathom::kernels::cuda {

struct AllReduceArgs {
  PeerGroup group;
  int buffer = 0;  // 0: A, 1: B.
  DType dtype = DType::kBf16;
  int rows = 0;
  int width = 0;                  // A multiple of 8.
  void* sum = nullptr;            // [rows][width] or null: the rounded sum.
  void* x = nullptr;              // [rows][width] or null: the residual.
  void* y = nullptr;              // [rows][width] or null: the norm. REQUIRES: x, if set.
  const float* weight = nullptr;  // [width], fp32. REQUIRES: set, if y is.
  float eps = 0;
};
// 2, 4 or 8 ranks, at most PeerRegionSizes::push_rows rows, of at most 8192 elements.
cudaError_t AllReducePush(const LaunchContext& context, const AllReduceArgs& args);
// 2, 4 or 8 ranks.
cudaError_t AllReduceOneShot(const LaunchContext& context, const AllReduceArgs& args);
// 2 to 8 ranks. The second one follows the first one on the stream.
cudaError_t AllReduceTwoShotSum(const LaunchContext& context, const AllReduceArgs& args);
cudaError_t AllReduceTwoShotFinish(const LaunchContext& context, const AllReduceArgs& args);

// out = round(((parts[0] + parts[1]) + ...)), for parts that are in this rank's own memory.
struct OrderedSumArgs {
  DType dtype = DType::kBf16;
  const void* parts[kCommRanksMax] = {};  // [count] each, aligned to 16 bytes.
  int ranks = 0;                          // 1 to 8.
  void* out = nullptr;                    // [count]; may be one of the parts.
  int64_t count = 0;                      // A multiple of 8.
};
cudaError_t OrderedSum(const LaunchContext& context, const OrderedSumArgs& args);

// Load the kernels into the device. A kernel that is loaded when it is first launched may have to
// wait for running kernels, perhaps for one that waits for this launch (ranks that share a
// process).
cudaError_t PreloadPushKernels();
cudaError_t PreloadOneShotKernels();
cudaError_t PreloadTwoShotKernels();

}  // namespace fathom::kernels::cuda
