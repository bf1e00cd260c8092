// kernels/cuda/attention/prefill_wgmma_producer.cuh: the warp that takes tiles from the counter and
// loads the consumers' data by TMA. Its threads have only 24 registers.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/attention/prefill_wgmma_layout.cuh"
#include "kernels/cuda/base/ptx.cuh"

namespace fathom::kernels::cuda::prefill {

struct Producer {
  const uint32_t base;  // The shared-memory base address.
  const KernelArgs& args;
  const CUtensorMap* key_map;
  const CUtensorMap* value_map;
  const int lane;
  uint32_t done = 0;  // Blocks of all tiles, counted as the consumers count them.
  // The current tile.
  int kv_head = 0;
  int end = 0;       // The position after the chunk's last token.
  int pages = 0;     // Pages that the tile's rows attend to.
  int table = 0;     // Start of the sequence's row in block_tables.
  int key_page = 0;  // 32 entries of the table, one in each lane.
  int value_page = 0;

  __device__ __forceinline__ Producer(uint32_t b, const KernelArgs& a, const CUtensorMap* k,
                                      const CUtensorMap* v)
      : base(b), args(a), key_map(k), value_map(v), lane(threadIdx.x) {}

  __device__ __forceinline__ uint32_t Bar(int barrier) const {
    return base + kBarriers + 8 * barrier;
  }

  // Sets a fault in all rows of the tile because of a block id beyond the pool. This is rare, so
  // the values that it needs are kept in shared memory and not in registers.
  __device__ __forceinline__ void Fault() const {
#pragma unroll 1
    for (int i = ptx::LoadShared(base + kFaultRows + 4) - 1; i >= 0; --i) {
      atomicOr(args.faults + ptx::LoadShared(base + kFaultRows) + i, kFaultBlockRange);
    }
  }

  // The row of a plane at which page `index` of the tile begins. `entries` is reloaded every 32
  // pages.
  template <bool kFaults>
  __device__ __forceinline__ int PageRow(int* entries, int index) const {
    if ((index & 31) == 0) {
      *entries = args.block_tables[table + min(index + lane, pages - 1)];
      if (kRowFaults &&
          static_cast<uint32_t>(*entries) >= static_cast<uint32_t>(args.pool_blocks)) {
        *entries = 0;
        if (kFaults) Fault();
      }
    }
    return (__shfl_sync(~0u, *entries, index & 31) * args.kv_heads + kv_head) * kBlockTokens;
  }

  // Loads the keys of the block `ahead` blocks after block number `done`.
  __device__ __forceinline__ void LoadKeys(int block, int ahead) {
    const uint32_t n = done + ahead;
    const int row0 = PageRow<true>(&key_page, 2 * block);
    const int row1 = PageRow<true>(&key_page, 2 * block + 1);
    ptx::BarrierWait(Bar(kKeyFree) + (n & 1) * 8, (n >> 1 & 1) ^ 1);
    if (lane == 0) {
      const uint32_t to = base + kKeys + (n & 1) * kKeyBytes;
      const uint32_t full = Bar(kKeyFull) + (n & 1) * 8;
      ptx::BarrierArriveExpect(full, kKeyBytes);
      ptx::TmaLoad2d(to, key_map, full, 0, row0);
      ptx::TmaLoad2d(to + 2 * kUnit, key_map, full, 64, row0);
      ptx::TmaLoad2d(to + kUnit, key_map, full, 0, row1);
      ptx::TmaLoad2d(to + 3 * kUnit, key_map, full, 64, row1);
    }
  }

  __device__ __forceinline__ void LoadValues(int block, int half) {
    const int page = 2 * block + half;
    const uint32_t slot = (done & 1) * 2 + half;
    const int row = PageRow<false>(&value_page, page);  // The load of the keys reported its faults.
    ptx::BarrierWait(Bar(kValueFree) + slot * 8, (done >> 1 & 1) ^ 1);
    const uint32_t half1 = base + kOnes - ValueDistance(slot) * kUnit;
    const uint32_t half0 = half1 - ValueDistance(slot) * kUnit;
    const bool tail = page * kBlockTokens + kBlockTokens > end;
    if (lane == 0) {
      const uint32_t full = tail ? Bar(kValueTail) : Bar(kValueFull) + slot * 8;
      ptx::BarrierArriveExpect(full, kValueBytes);
      ptx::TmaLoad2d(half0, value_map, full, 0, row);
      ptx::TmaLoad2d(half1, value_map, full, 64, row);
    }
    if (tail) {
      ZeroTail(half0, half1, max(0, end - page * kBlockTokens));
      if (lane == 0) ptx::BarrierArrive(Bar(kValueFull) + slot * 8);
    }
  }

  // Fills the tokens after the chunk's end with zeros. Their weights are 0, but 0 * NaN is not 0.
  __device__ __forceinline__ void ZeroTail(uint32_t half0, uint32_t half1, int first_token) {
    const int parity = ptx::LoadShared(base + kTailParity);
    ptx::BarrierWait(Bar(kValueTail), parity);
    __syncwarp();
    if (lane == 0) ptx::StoreShared(base + kTailParity, parity ^ 1);
#pragma unroll 1
    for (int i = first_token * 8 + lane; i < kBlockTokens * 8; i += 32) {
      ptx::StoreSharedZero16(half0 + i * 16);
      ptx::StoreSharedZero16(half1 + i * 16);
    }
    ptx::FenceAsyncProxy();
    __syncwarp();
  }

  // Loads the tile's description and queries, as soon as the consumer has released the previous
  // ones.
  __device__ __forceinline__ void LoadQueries(const CUtensorMap* query_map, int consumer, int turn,
                                              const ConsumerTile& tile) {
    ptx::BarrierWait(Bar(kQueryFree + consumer), (turn & 1) ^ 1);
    if (lane == 0) {
      const uint32_t to = base + kTiles + (consumer * 2 + (turn & 1)) * sizeof(ConsumerTile);
      ptx::StoreShared(to + offsetof(ConsumerTile, blocks), tile.blocks);
      const uint32_t full = Bar(kQueryFull + consumer);
      if (tile.blocks == 0) {
        ptx::BarrierArrive(full);
        return;
      }
      ptx::StoreShared(to + offsetof(ConsumerTile, position), tile.position);
      ptx::StoreShared(to + offsetof(ConsumerTile, row), tile.row);
      ptx::StoreShared(to + offsetof(ConsumerTile, rows), tile.rows);
      ptx::StoreShared(to + offsetof(ConsumerTile, head), tile.head);
      ptx::BarrierArriveExpect(full, kQueryBytes);
      const uint32_t q = base + QueryUnit(consumer, 0) * kUnit;
      ptx::TmaLoad3d(q, query_map, full, 0, tile.head, tile.row);
      ptx::TmaLoad3d(base + QueryUnit(consumer, 1) * kUnit, query_map, full, 64, tile.head,
                     tile.row);
    }
  }
};

// Finds the chunk of a tile.
__device__ __forceinline__ int FindChunk(const PrefillPlan& plan, int tile, int lane) {
  int before = 0;
#pragma unroll
  for (int i = 0; i < kPrefillPlanChunks; i += 32) {
    const bool begun = i + lane < plan.chunks && plan.chunk[i + lane].tile_begin <= tile;
    before += __popc(__ballot_sync(~0u, begun));
  }
  return before - 1;
}

__device__ __forceinline__ void Produce(const Shared& shared, const KernelArgs& args,
                                        const PrefillPlan& plan, const CUtensorMap* query_map,
                                        const CUtensorMap* key_map, const CUtensorMap* value_map) {
  Producer producer(shared.base, args, key_map, value_map);
  int turn = 0;
#pragma unroll 1
  for (int tile = blockIdx.x; tile < plan.tiles; ++turn) {
    const PrefillPlanChunk& chunk = plan.chunk[FindChunk(plan, tile, producer.lane)];
    const PrefillTile at =
        PrefillTileAt(tile - chunk.tile_begin, chunk.rows, args.heads, chunk.group_heads);
    if (producer.lane == 0) tile = gridDim.x + atomicAdd(args.work_counter, 1);  // The next tile.
    const int rows = min(chunk.rows - at.row, kPrefillTileRows);
    producer.kv_head = at.head / args.group;
    producer.end = chunk.position_begin + chunk.rows;
    producer.pages = (chunk.position_begin + at.row + rows - 1) / kBlockTokens + 1;
    producer.table = chunk.table_row * args.table_stride;
    if (kRowFaults && producer.lane == 0) {
      ptx::StoreShared(shared.base + kFaultRows, chunk.row_begin + at.row);
      ptx::StoreShared(shared.base + kFaultRows + 4, rows);
    }
    __syncwarp();
    const int blocks = (producer.pages + 1) / 2;
    producer.LoadKeys(0, 0);
#pragma unroll 1
    for (int c = 0; c < 2; ++c) {
      const int first = at.row + c * kConsumerRows;
      producer.LoadQueries(query_map, c, turn,
                           {blocks, chunk.position_begin + first, chunk.row_begin + first,
                            chunk.rows - first, at.head});
    }
#pragma unroll 1
    for (int block = 0; 2 * block < producer.pages; ++block) {
      producer.LoadValues(block, 0);
      if (2 * block + 2 < producer.pages) producer.LoadKeys(block + 1, 1);
      producer.LoadValues(block, 1);
      ++producer.done;
    }
    tile = __shfl_sync(~0u, tile, 0);
  }
#pragma unroll 1
  for (int c = 0; c < 2; ++c) producer.LoadQueries(query_map, c, turn, {});
  // The last thread block resets the counters for the next launch.
  if (producer.lane == 0 &&
      atomicAdd(args.work_counter + 1, 1) == static_cast<int>(gridDim.x) - 1) {
    args.work_counter[0] = 0;
    args.work_counter[1] = 0;
  }
}

}  // namespace fathom::kernels::cuda::prefill
