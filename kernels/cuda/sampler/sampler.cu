#include "kernels/cuda/sampler/sampler.h"

#include "kernels/cuda/sampler/sampler_cluster.cuh"
#include "kernels/cuda/sampler/sampler_rows.cuh"
#include "kernels/cuda/sampler/sampler_thinking.cuh"

namespace fathom::kernels::cuda {
namespace {

// One launch samples every row. A cluster of 8 thread blocks holds a row in shared memory. The
// logits are read once, with all loads in flight at the same time; each parameter of the row then
// costs passes over shared memory only. A row's result does not depend on other rows.

// Loads this thread block's logits. A thread loads its own quads and alone uses them until the next
// barrier.
FATHOM_DEVICE void Load(const BlockRow& row, const RowLogits& logits, bool by_quads) {
  const int first = static_cast<int>(threadIdx.x);
  const uint32_t z = ptx::SharedAddress(row.z);
  for (int quad = first; quad < row.quads; quad += kSampleThreads) {
    const int id = IdOfLocal(quad * 4, row.block);
    if (by_quads) {
      ptx::CopyAsync16(z + quad * 16, logits.At(id), 16);
      continue;
    }
    for (int i = 0; i < 4; ++i) {
      if (quad * 4 + i < row.count) {
        ptx::CopyAsync4(z + (quad * 4 + i) * 4, logits.At(id + i));
      } else {
        row.z[quad * 4 + i] = -INFINITY;
      }
    }
  }
}

// The largest logit of this thread, or kNotFinite.
FATHOM_DEVICE uint64_t Check(const BlockRow& row) {
  float best = -INFINITY;
  bool finite = true;
  ForOwn(row, [&](int, float z) {
    best = canon::Max(best, z);
    if (kRowFaults) finite = finite && canon::IsFinite(z);
  });
  return finite ? uint64_t{Orderable(best)} << 32 : kNotFinite;
}

// Writes the sum of exp(z - best) of each group of 32 lanes to the first block's shared memory.
FATHOM_DEVICE void SumLanes(const BlockRow& row, float best) {
  const int lane = static_cast<int>(threadIdx.x);
  if (lane >= kBlockLanes) return;
  float sum = 0;
#pragma unroll 8
  for (int i = lane; i < row.count; i += kBlockLanes) {
    sum = __fadd_rn(sum, canon::Exp(__fsub_rn(row.z[i], best)));
  }
  sum = SumGroup(sum);
  if (lane % 32 != 0) return;
  const int group = (row.block * kBlockLanes + lane) / 32;
  *ptx::InBlock(row.shared->groups + group, 0) = sum;
}

// Writes the `count` best tokens by (z descending, id ascending) to the first block's shared
// memory.
__device__ void FindTops(BlockRow* row, float best, int count) {
  const RowSource source{row};
  ClusterBins bins{row};
  const ScoreKeys keys{&source, best};
  const Cut cut = Select(&bins, keys, AllScores(static_cast<uint64_t>(count)));
  int* const found = ptx::InBlock(&row->shared->tops_count, 0);
  uint64_t* const tops = ptx::InBlock(row->shared->tops, 0);
  ForOwn(*row, [&](int local, float z) {
    const int id = IdOfLocal(local, row->block);
    if (!Keeps(cut, ScoreKey(z, best), id)) return;
    const int index = atomicAdd(found, 1);
    if (index < kLogprobsMax) tops[index] = PlaceKey(z, id);
  });
}

// Applies biases and masks the banned ids. Both are few; one thread of the block that holds the id
// applies each.
FATHOM_DEVICE void PatchFew(const SamplerArgs& a, const BlockRow& row, int position) {
  const SamplerSlot& slot = row.shared->slot;
  const int first = static_cast<int>(threadIdx.x);
  const auto is_own = [&](int32_t id) {
    return id >= 0 && id < row.vocab && BlockOfId(id) == row.block;
  };
  const bool bans = slot.end_count > 0 && position < slot.min_tokens;
  if (slot.bias_count == 0 && !bans) return;
  __syncthreads();
  for (int i = first; i < slot.bias_count; i += kSampleThreads) {
    const int32_t id = a.bias_ids[slot.bias_begin + i];
    if (is_own(id)) row.z[LocalOfId(id)] += a.bias_values[slot.bias_begin + i];
  }
  __syncthreads();
  if (!bans) return;
  for (int i = first; i < slot.end_count; i += kSampleThreads) {
    const int32_t id = a.end_ids[slot.end_begin + i];
    if (is_own(id)) row.z[LocalOfId(id)] = -INFINITY;
  }
  __syncthreads();
}

// Applies the mask, penalties and temperature in place.
FATHOM_DEVICE void Adjust(const SamplerArgs& a, const BlockRow& row, const SampleRow& ask) {
  const SamplerSlot& slot = row.shared->slot;
  const bool penalized = slot.penalized != 0;
  const bool divides = !canon::IsGreedy(slot.params.temperature) && slot.params.temperature != 1.0f;
  const uint32_t* const mask = MaskOf(a, ask);
  if (!penalized && !divides && mask == nullptr) return;
  const uint16_t* seen = a.seen + int64_t{ask.slot} * row.vocab;
  ForOwn(row, [&](int local, float z) {
    if (mask != nullptr && IsMasked(mask, IdOfLocal(local, row.block))) z = -INFINITY;
    if (penalized) z = Penalized(z, seen[IdOfLocal(local, row.block)], slot);
    if (divides) z = canon::Tempered(z, slot.params.temperature);
    row.z[local] = z;
  });
}

// Sets the scores of the tokens that top_k drops to -inf: their mass is 0, and they are never
// drawn.
FATHOM_DEVICE void KeepTopK(BlockRow* row, float best, int top_k) {
  const RowSource source{row};
  ClusterBins bins{row};
  const ScoreKeys keys{&source, best};
  const Cut cut = Select(&bins, keys, AllScores(static_cast<uint64_t>(top_k)));
  ForOwn(*row, [&](int local, float z) {
    if (!Keeps(cut, ScoreKey(z, best), IdOfLocal(local, row->block))) row->z[local] = -INFINITY;
  });
}

FATHOM_DEVICE void KeepTopP(BlockRow* row, float best, float top_p) {
  const RowSource source{row};
  ClusterBins bins{row};
  const MassKeys keys{&source, best};
  Summary mine;
  keys.ForEach([&](uint64_t key, uint64_t mass, int) { mine = Combine(mine, {key, mass, key}); });
  const Summary all = Exchange(row, mine);
  const Cut cut = Select(&bins, keys, {all.min, all.max, canon::MassTarget(top_p, all.sum)});
  ForOwn(*row, [&](int local, float z) {
    const uint64_t mass = MassOf(z, best);
    const bool kept = mass != 0 && Keeps(cut, MassKey(mass), IdOfLocal(local, row->block));
    if (!kept) row->z[local] = -INFINITY;
  });
}

// min_p comes before typical_p, which needs the sums of what min_p keeps. Without typical_p,
// DrawWithNoise applies min_p.
FATHOM_DEVICE void KeepTypical(BlockRow* row, float best, float min_p, float typical_p) {
  const RowSource source{row};
  ClusterBins bins{row};
  if (min_p > 0.0f) {
    ForOwn(*row, [&](int local, float z) {
      if (!canon::HasMinP(MassOf(z, best), min_p)) row->z[local] = -INFINITY;
    });
  }
  const GapSums mine = SumGaps(source, best);
  const uint64_t masses = Exchange(row, {0, mine.masses}).sum;
  const uint64_t gaps = Exchange(row, {0, mine.gaps}).sum;
  const TypicalKeys keys{&source, best, canon::MeanGap(gaps, masses)};
  const uint64_t least =
      LeastKey(&bins, keys, {0, kDistanceKeyMax, canon::MassTarget(typical_p, masses)});
  ForOwn(*row, [&](int local, float z) {
    const bool kept = MassOf(z, best) != 0 && TypicalKey(z, best, keys.mean_gap) >= least;
    if (!kept) row->z[local] = -INFINITY;
  });
}

// The largest z + noise of this thread as a PlaceKey; 0 if all scores are -inf. Noise is computed
// only where it can win. A token is skipped if its score plus the largest noise of its word is
// below a lower bound of the winner: the warp's best score plus the least possible noise (only if
// min_p cannot drop that token), then the best sum so far.
FATHOM_DEVICE uint64_t DrawWithNoise(const BlockRow& row, int position, float best, bool narrow) {
  const SamplerSlot& slot = row.shared->slot;
  const float min_p = narrow ? slot.params.min_p : 0.0f;
  float floor = -INFINITY;
  if (!narrow) {
    ForOwn(row, [&](int, float z) { floor = canon::Max(floor, z); });
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) {
      floor = canon::Max(floor, __shfl_xor_sync(~0u, floor, distance));
    }
    floor = __fadd_rn(floor, kNoiseMin);
  }
  uint64_t drawn = 0;
  for (int quad = static_cast<int>(threadIdx.x); quad < row.quads; quad += kSampleThreads) {
    const float4 four = reinterpret_cast<const float4*>(row.z)[quad];
    const float values[4] = {four.x, four.y, four.z, four.w};
    const float most = canon::Max(canon::Max(four.x, four.y), canon::Max(four.z, four.w));
    if (most == -INFINITY) continue;
    const int id = IdOfLocal(quad * 4, row.block);
    uint32_t words[4] = {static_cast<uint32_t>(id) / 4, static_cast<uint32_t>(position),
                         static_cast<uint32_t>(slot.sequence), 0};
    canon::Philox(slot.seed, words);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float z = values[i];
      if (__fadd_rn(z, NoiseBound(__clz(static_cast<int>(words[i])))) < floor) continue;
      if (z == -INFINITY) continue;
      if (min_p > 0.0f && best - z > kMasslessBelow) continue;
      if (min_p > 0.0f && !canon::HasMinP(canon::Mass(z, best), min_p)) continue;
      const float noisy = __fadd_rn(z, canon::NoiseOfWord(words[i]));
      floor = canon::Max(floor, noisy);
      const uint64_t key = PlaceKey(noisy, id + i);
      if (key > drawn) drawn = key;
    }
  }
  return drawn;
}

// This thread's best as a PlaceKey, or kNotFinite (`finite` may differ between threads).
FATHOM_DEVICE uint64_t Draw(const SamplerArgs& a, BlockRow* row, const SampleRow& ask,
                            bool finite) {
  const SamplerSlot& slot = row->shared->slot;
  PatchFew(a, *row, ask.position);
  Adjust(a, *row, ask);
  uint64_t drawn = 0;
  if (canon::IsGreedy(slot.params.temperature)) {
    ForOwn(*row, [&](int local, float z) {
      const uint64_t key = PlaceKey(z, IdOfLocal(local, row->block));
      if (key > drawn) drawn = key;
    });
    return finite ? drawn : kNotFinite;
  }
  const bool by_k = slot.params.top_k > 0 && slot.params.top_k < row->vocab;
  const bool narrow =
      by_k || slot.params.top_p < 1.0f || slot.params.min_p > 0.0f || slot.params.typical_p < 1.0f;
  float best = 0;
  if (narrow) {
    uint64_t key = 0;
    ForOwn(*row, [&](int, float z) {
      const uint64_t own = uint64_t{Orderable(z)} << 32;
      if (own > key) key = own;
    });
    key = Exchange(row, {finite ? key : kNotFinite}).max;
    if (key == kNotFinite) return kNotFinite;
    best = FromOrderable(static_cast<uint32_t>(key >> 32));
    if (best == -INFINITY) return 0;
    if (by_k) KeepTopK(row, best, slot.params.top_k);
    if (slot.params.top_p < 1.0f) KeepTopP(row, best, slot.params.top_p);
    if (slot.params.typical_p < 1.0f) {
      KeepTypical(row, best, slot.params.min_p, slot.params.typical_p);
    }
  }
  drawn = DrawWithNoise(*row, ask.position, best, narrow);
  return finite ? drawn : kNotFinite;
}

// The first warp of the first block writes the row's result and the token for the next step.
FATHOM_DEVICE void Finish(const SamplerArgs& a, const BlockRow& row, const SampleRow& ask,
                          uint64_t drawn, float best, int tops) {
  const SampleShared& shared = *row.shared;
  SampleOut* const out = a.out + RowOfBlock(a, blockIdx.y);
  const int lane = static_cast<int>(threadIdx.x);
  const bool draws = ask.target < 0, keeps = ask.target != kTargetDrafted;
  int32_t token = ask.target < row.vocab ? ask.target : -1;
  if (draws) token = drawn >> 32 > Orderable(-INFINITY) ? IdOfPlace(drawn) : -1;
  if (draws && shared.forced >= 0) token = shared.forced;
  int fault = shared.fault;
  if (drawn == kNotFinite) fault |= kFaultNonFinite;
  if (fault == 0 && token < 0) fault = kFaultTokenRange;
  if (lane == 0) {
    out->token = fault == 0 ? token : -1;
    out->fault = fault;
    if (fault != 0) {
      out->logprob = 0;
      if (keeps) atomicOr(a.slot_faults + ask.slot, fault);
    }
    if (draws && keeps) a.slot_tokens[ask.slot] = fault == 0 ? token : 0;
    if (draws && keeps && fault == 0) NoteThinking(a.slot_thinking, ask, token);
  }
  if (fault != 0) return;
  if (lane == 0 && draws && keeps && shared.slot.penalized != 0) {
    uint16_t* const seen = a.seen + int64_t{ask.slot} * row.vocab + token;
    *seen = SeenAgain(*seen);
  }
  if (draws && ask.logprobs < 0) {
    if (lane == 0) out->logprob = 0;
    return;
  }
  float sum = 0;
  for (const float group : shared.groups) sum = __fadd_rn(sum, group);
  const float log_sum = __fadd_rn(best, canon::Log(sum));
  if (lane == 0) {
    out->logprob = __fsub_rn(LogitsOf(a, ask)[token], log_sum);
  }
  if (lane >= tops) return;
  const uint64_t key = shared.tops[lane];
  int rank = 0;
  for (int i = 0; i < tops; ++i) rank += shared.tops[i] > key;
  out->top_ids[rank] = IdOfPlace(key);
  out->top_logprobs[rank] = __fsub_rn(FromOrderable(static_cast<uint32_t>(key >> 32)), log_sum);
}

__global__ void __cluster_dims__(kSampleBlocks, 1, 1) __launch_bounds__(kSampleThreads, 2)
    SampleKernel(const __grid_constant__ SamplerArgs a, bool by_quads) {
  extern __shared__ float4 quads[];
  __shared__ SampleShared shared;
  WaitForPrevious();
  const SampleRow ask = a.rows[RowOfBlock(a, blockIdx.y)];
  if (ask.logits_row < 0) return;
  BlockRow row;
  row.shared = &shared;
  row.z = reinterpret_cast<float*>(quads);
  row.block = ptx::ClusterBlock();
  row.vocab = a.vocab;
  row.count = LocalCount(a.vocab, row.block);
  row.quads = (row.count + 3) / 4;
  Load(row, LogitsOf(a, ask), by_quads);
  LetNextStart();
  constexpr int kSlotWords = sizeof(SamplerSlot) / 4;
  if (threadIdx.x < kSlotWords) {
    reinterpret_cast<uint32_t*>(&shared.slot)[threadIdx.x] =
        reinterpret_cast<const uint32_t*>(a.slots + ask.slot)[threadIdx.x];
  }
  if (threadIdx.x == kSampleThreads - 1) {
    shared.tops_count = 0;
    shared.forced = ForcedToken(a.slot_thinking, ask);
    shared.fault = kRowFaults ? a.faults[ask.fault_row] | a.slot_faults[ask.slot] : 0;
  }
  ptx::ClusterArrive();
  ptx::CopyAsyncWaitAll();
  ptx::ClusterWait();  // All blocks have started, and shared.slot is loaded.

  const bool draws = ask.target < 0;
  const int tops = min(min(ask.logprobs, kLogprobsMax), a.vocab);
  uint64_t key = Check(row);
  bool finite = key != kNotFinite;
  bool all_finite = true;
  float best = 0;
  if (!draws || ask.logprobs >= 0) {
    key = Exchange(&row, {key}).max;
    finite = all_finite = key != kNotFinite;
    if (all_finite) {
      best = FromOrderable(static_cast<uint32_t>(key >> 32));
      SumLanes(row, best);
      __syncthreads();  // Other threads read these elements as lanes; Draw changes them.
      if (tops > 0) FindTops(&row, best, tops);
    }
  }
  uint64_t drawn = finite ? 0 : kNotFinite;
  if (draws && all_finite) drawn = Draw(a, &row, ask, finite);
  drawn = Exchange(&row, {drawn}).max;
  if (row.block == 0 && threadIdx.x < 32) Finish(a, row, ask, drawn, best, tops);
}

}  // namespace

// Whether four ids are always 16 aligned bytes of one slice.
static bool IsQuads(const SamplerArgs& a) {
  bool quads = a.vocab % 4 == 0 && a.logits.stride % 4 == 0 && a.logits.width % 4 == 0;
  for (const float* slice : a.logits.slices) {
    quads = quads && reinterpret_cast<uintptr_t>(slice) % 16 == 0;
  }
  return quads;
}

cudaError_t SampleCluster(const LaunchContext& context, const SamplerArgs& args) {
  const auto config = SamplerPickConfig(context.sm, args.vocab);
  const int rows = RowsOfLaunch(args);
  if (!config || config->kernel != SamplerKernel::kCluster || rows < 0 || rows > 65535) {
    return cudaErrorInvalidValue;
  }
  if (rows == 0) return cudaSuccess;
  const SamplerArgs strided = WithStride(args);
  const int bytes = config->shared_bytes;
  const cudaError_t error =
      cudaFuncSetAttribute(SampleKernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  if (error != cudaSuccess) return error;
  return Launch(context, dim3(kSampleBlocks, static_cast<unsigned>(rows)), dim3(kSampleThreads),
                static_cast<size_t>(bytes), SampleKernel, strided, IsQuads(strided));
}

}  // namespace fathom::kernels::cuda
