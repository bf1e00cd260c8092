// kernels/cuda/attention/prefill_wgmma_layout.cuh: shared memory, barriers and arguments of the
// wgmma prefill attention, shared by its producer and its consumers
// (kernels/cuda/attention/prefill_attention_wgmma.cu says how they work together).
//
// Shared memory has units of 8 KiB: 64 rows of 128 bytes (half of head_dim 128) with the 128-byte
// swizzle. The units hold:
//    0- 6  merged outputs of the consumers' 8 warps (7 KiB each), and results before their store
//    7-14  keys: two stages of 128 tokens, each as [half of the dims][token]
//   15-16, 18, 20  queries: two halves for each consumer
//   17, 19, 21-26  values: four slots of 64 tokens, two halves each
//   27     ones
//   28     barriers and tiles
// The row sum of the weights is a ninth group of 16 columns in the product of weights and values;
// eight of its columns are ones. The tensor core reads a tile's three column blocks at X, X + D and
// X + 2 D. The ones are in unit 27, and a slot with distance D in {1, 3, 4, 5} has its halves in
// units 27 - 2D and 27 - D, so all slots use the same ones.
#pragma once

#include <cstdint>

#include "kernels/cuda/attention/prefill_plan.h"
#include "kernels/cuda/base/ptx.cuh"

namespace fathom::kernels::cuda::prefill {

inline constexpr int kHeadDim = 128;
inline constexpr int kThreads = 384;
inline constexpr int kBlockKeys = 128;    // Two pages, two sub-blocks of the recipe.
inline constexpr int kSegmentBlocks = 4;  // A segment of 512 tokens.
inline constexpr int kConsumerRows = 64;  // A tile has two consumers.

inline constexpr uint32_t kUnit = 8192;
inline constexpr uint32_t kQueryBytes = 2 * kUnit;  // For one consumer.
inline constexpr uint32_t kKeyBytes = 4 * kUnit;    // For one stage.
inline constexpr uint32_t kValueBytes = 2 * kUnit;  // For one slot.
inline constexpr int kKeyStages = 2;
inline constexpr int kValueSlots = 4;

// A warp's merged output has 16 groups of 8 dims. kMergedShared of them are in shared memory, the
// rest in registers.
inline constexpr int kMergedShared = 14;
inline constexpr int kMergedRest = 64 - 4 * kMergedShared;  // Floats a thread.
inline constexpr uint32_t kStripeBytes = kMergedShared * 512;

inline constexpr uint32_t kStripes = 0;
inline constexpr uint32_t kKeys = 7 * kUnit;
inline constexpr uint32_t kOnes = 27 * kUnit;
inline constexpr uint32_t kBarriers = 28 * kUnit;

FATHOM_DEVICE uint32_t ValueDistance(uint32_t slot) { return slot ? slot + 2 : 1; }
FATHOM_DEVICE uint32_t QueryUnit(int consumer, int half) {
  return consumer ? 15 + half : 18 + 2 * half;
}

enum Barrier {
  kQueryFull = 0,                      // [consumer]: the tile and its queries are in shared memory.
  kQueryFree = 2,                      // [consumer]
  kKeyFull = 4,                        // [stage]
  kKeyFree = kKeyFull + kKeyStages,    // [stage]
  kValueFull = kKeyFree + kKeyStages,  // [slot]
  kValueFree = kValueFull + kValueSlots,  // [slot]
  // A slot whose tail the producer has yet to fill with zeros.
  kValueTail = kValueFree + kValueSlots,
  kBarrierCount,
};

// One consumer's part of a tile. The producer writes it before it arrives at the queries' barrier.
// There are two, used in turn, so a consumer can read its tile until it has taken the next one.
struct ConsumerTile {
  int blocks;    // Blocks of keys, equal for both consumers; 0: there are no more tiles.
  int position;  // Position of the consumer's first row.
  int row;       // The consumer's first row in q and out.
  int rows;      // Rows from there to the chunk's end; only these are stored. May be < 1.
  int head;
};
inline constexpr uint32_t kTiles = kBarriers + 8 * kBarrierCount;  // [consumer][2]
// The number of rows comes first.
inline constexpr uint32_t kFaultRows = kTiles + 4 * sizeof(ConsumerTile);
inline constexpr uint32_t kTailParity = kFaultRows + 8;  // Parity of kValueTail; 0 at first.
inline constexpr uint32_t kSharedBytes =
    kTailParity + 4 + 1024;  // The kernel aligns the base to 1024.
static_assert(kSharedBytes <= 232448);

struct KernelArgs {
  const int32_t* block_tables;
  int32_t* work_counter;
  int32_t* faults;
  void* out;
  int table_stride;
  int pool_blocks;
  int heads;
  int kv_heads;
  int group;    // Query heads of a kv head.
  float scale;  // canon::AttentionScale.
};

struct Shared {
  unsigned char* bytes;
  uint32_t base;  // The shared-memory address of `bytes`.
  __device__ __forceinline__ uint32_t At(uint32_t offset) const { return base + offset; }
  __device__ __forceinline__ uint32_t Bar(int barrier) const {
    return base + kBarriers + 8 * barrier;
  }
  __device__ __forceinline__ volatile ConsumerTile* Tile(int consumer, int turn) const {
    return reinterpret_cast<volatile ConsumerTile*>(bytes + kTiles) + consumer * 2 + turn;
  }
};

}  // namespace fathom::kernels::cuda::prefill
